"Explanations that take too long to be executed by every test run, at a small setting."

import nbformat
import papermill
from conftest import ROOT

from rcg.running.files import read_table


def execute(name: str, folder, **parameters) -> str:
    "Run an explanation; returns everything it shows as Markdown."
    out = folder / f"{name}.ipynb"
    papermill.execute_notebook(
        ROOT / "nbs/explanations" / out.name,
        out,
        cwd=ROOT / "nbs",
        progress_bar=False,
        parameters=parameters,
    )
    outputs = [
        o for c in nbformat.read(out, as_version=4).cells for o in c.get("outputs", [])
    ]
    return "\n".join(o.data.get("text/markdown", "") for o in outputs if "data" in o)


def test_early_stopping(tmp_path):
    shown = execute(
        "early_stopping",
        tmp_path,
        iterations=4,
        every=2,
        seeds=[0],
        results=str(tmp_path / "results"),
    )
    rows = read_table(tmp_path / "results/seed-0.csv")
    assert (
        len(rows) == 5 * 2 * 3 * 2
    )  # trainings, moments, noise levels, clean and attacked
    assert all(0 <= row["accuracy"] <= 1 and 0 < row["loss"] < 10 for row in rows)
    assert "After 4 iterations" in shown and "ε = 3, full" in shown


def test_oracle(tmp_path):
    small = dict(
        iterations=3,
        sizes=[50],
        budgets=[0.0, 0.3],
        seeds=[0],
        timesteps=[100, 300],
        scales=[1.0],
    )
    shown = execute("oracle", tmp_path, results=str(tmp_path / "results"), **small)
    exact = read_table(tmp_path / "results/64-0-0-0-gradient.csv")
    assert all(row["cosine"] > 0.99 and row["error"] < 1e-3 for row in exact)
    guided, random = (
        read_table(tmp_path / f"results/{d}-{n}-0-0-guided.csv")[0]
        for d, n in ((64, 0), (64, 50))
    )
    assert guided["hits"] > 0.9 > 0.5 > random["hits"]
    assert "50 points, ε = 0.3" in shown


def test_gradient_score(tmp_path):
    small = dict(
        budgets=[0.0, 1.0],
        lengths=[2, 4],
        seeds=[0, 1],
        scales=[1.0],
        images=20,
        scored=30,
    )
    shown = execute(
        "gradient_score", tmp_path, results=str(tmp_path / "results"), **small
    )
    rows = read_table(tmp_path / "results/1-4-1.csv")
    assert [row["t"] for row in rows] == [0, 100, 200, 300, 400] and all(
        -1 <= row["alignment"] <= 1 for row in rows
    )
    assert (
        rows[0]["best"] == 1.0 and 0 < rows[0]["distance"] != rows[0]["distance, s = 1"]
    ), "compared on fresh samples"
    assert "| alignment |" in shown
