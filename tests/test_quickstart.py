"""The quickstart at a small setting: it runs, and again it computes nothing twice."""

import csv
import json
import re

import nbformat
import papermill
import yaml
from conftest import ROOT, execute

SMALL = yaml.safe_load((ROOT / ".ci" / "quickstart-small.yaml").read_text())


def with_papermill(out, settings: dict) -> list[str]:
    "Run the notebook as the README does; returns what it shows, without progress."
    nbs = ROOT / "nbs"
    papermill.execute_notebook(
        nbs / "quickstart.ipynb", out, settings, cwd=nbs, progress_bar=False
    )
    cells = nbformat.read(out, as_version=4).cells
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    tables = [
        o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})
    ]
    printed = "".join(o.text for o in outputs if o.get("name") == "stdout")
    return [*tables, *printed.splitlines()]


def test_quickstart_runs_and_reuses(tmp_path):
    run, results = tmp_path / "run", tmp_path / "results"
    settings = SMALL | {"run_dir": str(run), "results": str(results)}
    first = with_papermill(tmp_path / "out.ipynb", settings)
    accuracy = json.loads((run / "accuracy.json").read_text())
    for name in ("vanilla", "robust"):
        clean, attacked = accuracy[f"{name}, clean"], accuracy[f"{name}, attacked"]
        assert clean[0] > 0.2 and all(a <= c for a, c in zip(attacked, clean))

    scores = json.loads((run / "metrics.json").read_text())
    found = [(row["method"], row["scale"]) for row in scores]
    each = [(name, s) for s in SMALL["scales"] for name in ("vanilla", "robust")]
    assert found == [("unguided", 0.0), *each]
    with open(results / "seed-0.csv", newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == [m for m, _ in found]
    differences = json.loads((run / "differences.json").read_text())
    by = {(row["method"], row["scale"]): row["distance"] for row in scores}
    for scale in SMALL["scales"]:
        value, *_ = differences[f"{scale:g}"]
        gap = by["robust", scale] - by["vanilla", scale]
        assert abs(value - gap) < 1e-6 * abs(by["vanilla", scale])
    assert any(f"everything computed is in {run}" in line for line in first)

    kept = {p: p.stat().st_mtime_ns for p in run.rglob("*.safetensors")}
    assert sum(p.parent.name == "samples" for p in kept) == len(found)
    again = execute("quickstart.ipynb", **settings)
    assert [shown for shown in first if shown not in again] == []
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*.safetensors")} == kept


def test_readme_example(tmp_path, monkeypatch):
    "The example on the first page runs with the networks of the package alone."
    monkeypatch.chdir(tmp_path)
    text, names = (ROOT / "README.md").read_text(), {}
    for example in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(example, names)
    assert names["images"].shape == names["gradient"].shape == (10, 1, 28, 28)
    assert names["gradient"].flatten(1).norm(dim=1).min() > 0
