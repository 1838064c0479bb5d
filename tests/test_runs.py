"What kept results depend on is among the settings of their run."

import ast
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import nbformat
import pytest
import torch
from PIL import Image

from rcg.classifier import Classifier
from rcg.running.checkpoints import load_unet
from rcg.running.images import ImageFolder
from rcg.running.jobs import ImageSource, check_images
from rcg.running.presets import preset
from rcg.running.runs import Run

NBS = Path(__file__).parent.parent / "nbs"
LOADERS = {"load_unet", "load_classifier"}
NOT_KEPT = {  # what a network is for, if not for results that a run keeps
    ("experiments/blind_test.ipynb", "unet"): "numbers below the kept answers",
    ("experiments/solvers.ipynb", "unet"): "the last figure",
    ("own_images.ipynb", "classifiers"): "trained in the run, whose job knows them",
}


def names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def assigned(nodes: list[ast.AST]) -> dict[str, set[str]]:
    "What every variable is made of."
    found: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            (target,), value = node.targets, node.value
            both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            pairs = zip(target.elts, value.elts) if both else [(target, value)]
            for one, made in pairs:
                for name in names(one):
                    found.setdefault(name, set()).update(names(made))
    return found


def left_out(path: Path) -> set[str]:
    "Loaded networks that no run of the notebook is told of."
    cells = nbformat.read(path, as_version=4).cells
    code = [c.source for c in cells if c.cell_type == "code"]
    code = [source for source in code if not source.startswith("#| export")]
    nodes = [node for source in code for node in ast.walk(ast.parse(source))]
    calls = [n for n in nodes if isinstance(n, ast.Call) and "Run" in names(n.func)]
    if not calls:
        return set()
    made, told = assigned(nodes), set().union(*map(names, calls))
    told = told.union(*(made.get(name, set()) for name in told))  # as `**known`
    loaded = {name for name, parts in made.items() if parts & LOADERS}
    known = {k for name, k in NOT_KEPT if name == path.relative_to(NBS).as_posix()}
    return loaded - told - known


@pytest.mark.parametrize(
    "path", sorted(NBS.rglob("*.ipynb")), ids=lambda p: p.relative_to(NBS).as_posix()
)
def test_runs_are_told_of_loaded_networks(path):
    assert not (missing := left_out(path)), f"pass {missing} to `Run`, or say why not"


def test_a_run_that_leaves_a_network_out_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "NBS", tmp_path)
    cells = ["def f(name):\n    unet = load_unet(name)\n", 'Run("a", images=3)']
    for told, missing in ((cells, {"unet"}), ([cells[0], 'Run("a", u=unet)'], set())):
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in told]
        nbformat.write(notebook, tmp_path / "a.ipynb")
        assert left_out(tmp_path / "a.ipynb") == missing


def test_a_run_knows_weights_and_shape_of_its_networks(tmp_path):
    torch.manual_seed(0)
    config = preset("digits").classifier
    network = Classifier(config)
    (Run(tmp_path, network=network) / "result").touch()
    again = Classifier(config)
    again.load_state_dict(network.state_dict())
    Run(tmp_path, network=again)
    with torch.no_grad():
        next(again.parameters())[0] += 1e-6
    with pytest.raises(ValueError, match="network.weights was"):
        Run(tmp_path, network=again)
    other = Classifier(replace(config, head_width=16))  # the same shapes of weights
    with pytest.raises(ValueError, match="network.config.head_width was 32, is 16"):
        Run(tmp_path, network=other)
    with pytest.raises(ValueError, match="network.type was Classifier, is UNet"):
        Run(tmp_path, network=load_unet("digits-denoiser"))


def test_kept_results_are_of_the_packages_networks():
    results = NBS.parent / "results"
    told = json.loads((results / "gradient-score" / "settings.json").read_text())
    assert told["denoiser"] == load_unet("digits-denoiser").described()


def test_repaired_images_are_read_again_even_if_they_are_as_large(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pets" / name / "0.png")
    file = tmp_path / "pets" / "cat" / "0.png"
    whole = file.read_bytes()
    file.write_bytes(bytes(len(whole)))
    opened = partial(ImageFolder, tmp_path / "pets", 8)
    source = ImageSource("pets", opened, tmp_path / "images.json")
    with pytest.raises(OSError, match="1 images of pets cannot be read: cat/0.png"):
        check_images(source, 0)
    file.write_bytes(whole)
    assert len(check_images(source, 0)[1]) == 2
