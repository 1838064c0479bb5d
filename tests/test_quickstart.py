"""The main job, at a small setting: it runs, and run again it computes nothing twice."""

import json
import re

import nbformat
import papermill
import yaml
from conftest import ROOT

from rcg.classifier import Classifier
from rcg.running.presets import preset
from rcg.training import save_tensors
from rcg.unet import UNet


def execute(tmp_path, name: str) -> list:
    "Run the notebook; returns everything it shows as Markdown."
    small = yaml.safe_load((ROOT / ".ci" / "quickstart-small.yaml").read_text())
    out = tmp_path / name
    settings = dict(
        cwd=ROOT / "nbs",
        progress_bar=False,
        parameters=small | {"run_dir": str(tmp_path / "run")},
    )
    papermill.execute_notebook(ROOT / "nbs" / "quickstart.ipynb", out, **settings)
    outputs = [
        o for c in nbformat.read(out, as_version=4).cells for o in c.get("outputs", [])
    ]
    return [
        o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})
    ]


def test_quickstart_runs_and_reuses(tmp_path):
    first = execute(tmp_path, "first.ipynb")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for method in ("unguided", "vanilla", "robust"):
        value, low, high = metrics[method]["distance"]
        assert 0 < low <= value <= high
        assert 0 <= metrics[method]["precision"][0] <= 1
        assert any(f"| {method} |" in text for text in first)

    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.safetensors")}
    assert sum(p.parent.name == "samples" for p in kept) == 1 + 2 * 2 + 3 * 2
    assert execute(tmp_path, "second.ipynb") == first
    assert {
        p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.safetensors")
    } == kept


def test_readme_example(tmp_path, monkeypatch):
    "The examples on the first page work with the networks that the quickstart leaves behind."
    monkeypatch.chdir(tmp_path)
    for kind, network in (
        ("denoiser", UNet(preset("digits").unet)),
        ("robust", Classifier(preset("digits").classifier)),
    ):
        save_tensors(
            tmp_path / "runs" / "quickstart" / kind / "model.safetensors",
            network.state_dict(),
        )
    text = (ROOT / "README.md").read_text()
    for example in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(example, {})
    assert (tmp_path / "digits.png").stat().st_size > 1000
