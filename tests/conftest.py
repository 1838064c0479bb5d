"""Shared pieces of the tests: where the golden numbers are, and how to read them."""

import json
import os
import shutil
from contextlib import chdir
from functools import cache
from pathlib import Path

# Several workers (`pytest -n 2`) share the cores instead of competing for them.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

import nbformat  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parent.parent
NBS = ROOT / "nbs"


@cache
def read(name: str) -> nbformat.NotebookNode:
    "A notebook of nbs/, which nobody changes."
    return nbformat.read(NBS / name, as_version=4)


def parameters(name: str) -> dict:
    "The defaults of a papermill notebook."
    tagged = [c for c in read(name).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1, (
        f"{name}: without the tag, papermill silently uses the notebook's own values"
    )
    values = {}
    exec(tagged[0].source, values)
    return {k: v for k, v in values.items() if k != "__builtins__"}


def execute(name: str, /, **parameters) -> str:
    """Execute a notebook of nbs/ with what papermill makes of its parameters.

    It is executed in this process, where everything is imported already. Returns what
    it prints and shows as Markdown, and raises what its cells raise.
    """
    from execnb.shell import CaptureShell
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    notebook = load_notebook_node(str(NBS / name))
    shell, shown = CaptureShell(), []
    with chdir(NBS):
        for cell in parameterize_notebook(notebook, parameters).cells:
            if cell.cell_type == "code":
                source = f"{cell.source}\n#"  # a last semicolon would silence `print`
                result = shell.run_cell(source, store_history=True)
                if result.exception:
                    raise result.exception
                data = [o.data for o in result.display_objects]
                data.append(shell.display_formatter.format(result.result.result)[0])
                shown += [result.stdout, result.stderr]
                shown += [one.get("text/markdown", "") for one in data]
    return "\n".join(shown)


@pytest.fixture
def golden():
    "One golden file as (weights, tensors); weights are stored as float16."

    def load(name: str):
        tensors = load_file(GOLDEN / f"{name}.safetensors")
        weights = {k[2:]: v.float() for k, v in tensors.items() if k.startswith("w.")}
        return weights, {k: v for k, v in tensors.items() if not k.startswith("w.")}

    return load


@pytest.fixture
def manifests() -> dict:
    "Parameter names and shapes of the public full-size models."
    return json.loads((GOLDEN / "state_dict_manifests.json").read_text())


@pytest.fixture(autouse=True)
def seeded():
    "Every test starts from the same random state."
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def browser():
    "A headless Chromium or Chrome of this machine, driven by Playwright."
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install playwright"
    )
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("needs a browser: install chromium or Google Chrome")
    quiet = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with playwright.sync_playwright() as p:
        running = p.chromium.launch(
            executable_path=program, args=quiet + ["--no-sandbox"] * (os.getuid() == 0)
        )
        yield running
        running.close()
