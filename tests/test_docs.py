"""The pages that are published: no errors, no dead links, no picture without words, and in step with their sources."""

import importlib.util
import json
import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
NAMES = [str(p.relative_to(ROOT / "nbs")) for p in NOTEBOOKS]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, nbformat.NotebookNode]:
    "Every notebook as nbdev hands it to the site generator."
    from nbdev.process import NBProcessor
    from nbdev.processors import FilterDefaults

    return {n: NBProcessor(p, procs=FilterDefaults().procs(), rm_directives=False) for n, p in zip(NAMES, NOTEBOOKS)}


@pytest.fixture(scope="module")
def processed(pages) -> dict[str, nbformat.NotebookNode]:
    for page in pages.values():
        page.process()
    return {name: page.nb for name, page in pages.items()}


def code_cells(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook(name):
    notebook = nbformat.read(ROOT / "nbs" / name, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = code_cells(notebook)
    assert all(c.execution_count is None for c in cells), "run nbdev_clean"
    assert not any(o.output_type == "error" for c in cells for o in c.get("outputs", []))
    assert len(cells) <= 3 or any(c.outputs for c in cells), "run the notebook: it has no outputs"
    title, subtitle = notebook.cells[0].source.split("\n", 2)[::2]
    assert title.startswith("# ") and subtitle.startswith("> "), "the first cell is a title and a description"


@pytest.mark.parametrize("name", NAMES)
def test_figures_have_words(processed, name):
    for cell in code_cells(processed[name]):
        if any("image/png" in o.get("data", {}) for o in cell.get("outputs", [])):
            alt = re.search(r"#\|\s*fig-alt:\s*(\S.*)", cell.source)
            assert alt and len(alt[1]) > 20, f"a figure without alt text: {cell.source[:200]}"
            assert re.search(r"#\|\s*fig-cap:", cell.source), f"a figure without caption: {cell.source[:200]}"
    for cell in processed[name].cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"!\[\s*\]\(", cell.source), f"an image without alt text: {cell.source[:200]}"


@pytest.mark.parametrize("name", NAMES)
def test_internal_links_lead_somewhere(name):
    notebook = nbformat.read(ROOT / "nbs" / name, as_version=4)
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", prose, flags=re.S)):
        if not re.match(r"https?:", target):
            assert ((ROOT / "nbs" / name).parent / target).exists(), f"dead link in {name}: {target}"


@pytest.mark.parametrize("name", NAMES)
def test_no_widget_or_path_in_outputs(name):
    text = json.dumps(nbformat.read(ROOT / "nbs" / name, as_version=4))
    assert str(ROOT) not in text and "site-packages" not in text, "an output shows a path of the machine it ran on"


def test_every_notebook_is_in_the_sidebar():
    listed = re.findall(r"- (\S+\.ipynb)", (ROOT / "nbs" / "sidebar.yml").read_text())
    assert sorted(listed) == sorted(NAMES)


def test_readme_is_the_index():
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "tools" / "notebooks.py")
    tools = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tools)
    assert (ROOT / "README.md").read_text() == tools.readme(), "run: python tools/notebooks.py readme"
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", tools.readme()):
        assert (ROOT / target).exists(), f"dead link in README.md: {target}"


def test_modules_import_only_from_rooms_below():
    order = [n for n in NAMES if re.match(r"\d\d_", n)]
    rooms = {re.sub(r"^\d\d_|\.ipynb$", "", n): i for i, n in enumerate(order)}
    for module, level in rooms.items():
        source = (ROOT / "rcg" / f"{module}.py").read_text()
        for used in re.findall(r"from (?:rcg)?\.(\w+) import", source):
            assert rooms[used] < level, f"rcg.{module} imports rcg.{used}, which is not below it"
    assert {p.stem for p in Path(ROOT / "rcg").glob("*.py")} - set(rooms) == {"__init__", "_modidx"}


def test_papermill_notebooks_have_parameters():
    for name in ("quickstart.ipynb",):
        tags = [c.metadata.get("tags", []) for c in nbformat.read(ROOT / "nbs" / name, as_version=4).cells]
        assert tags.count(["parameters"]) == 1, f"{name}: papermill would silently use the notebook's defaults"
