"Explanations that take too long to be executed by every test run, at a small setting."

import nbformat
import papermill
from conftest import ROOT

from rcg.training import read_table


def execute(name: str, folder, **parameters) -> str:
    "Run an explanation; returns everything it shows as Markdown."
    out = folder / f"{name}.ipynb"
    papermill.execute_notebook(ROOT / "nbs/explanations" / out.name, out, cwd=ROOT / "nbs", progress_bar=False, parameters=parameters)
    outputs = [o for c in nbformat.read(out, as_version=4).cells for o in c.get("outputs", [])]
    return "\n".join(o.data.get("text/markdown", "") for o in outputs if "data" in o)


def test_early_stopping(tmp_path):
    shown = execute("early_stopping", tmp_path, iterations=4, every=2, seeds=[0], results=str(tmp_path / "results"))
    rows = read_table(tmp_path / "results/seed-0.csv")
    assert len(rows) == 5 * 2 * 3 * 2  # trainings, moments, noise levels, clean and attacked
    assert all(0 <= row["accuracy"] <= 1 and 0 < row["loss"] < 10 for row in rows)
    assert "After 4 iterations" in shown and "ε = 3, full" in shown
