"""The pages that are published: no errors, no dead links, no picture without words, and in step with their sources."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields, replace
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

NOTEBOOKS = sorted(
    p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
NAMES = [str(p.relative_to(ROOT / "nbs")) for p in NOTEBOOKS]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, nbformat.NotebookNode]:
    "Every notebook as nbdev hands it to the site generator."
    copy = tmp_path_factory.mktemp("site") / "rcg"
    copy.mkdir()
    shutil.copy(ROOT / "settings.ini", copy)
    for folder in ("nbs", "rcg"):
        shutil.copytree(
            ROOT / folder,
            copy / folder,
            ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"),
        )
    make = "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0, force=True)"
    done = subprocess.run(
        [sys.executable, "-c", make], cwd=copy, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {n: nbformat.read(copy / "_proc" / n, as_version=4) for n in NAMES}


def code_cells(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook(name):
    notebook = nbformat.read(ROOT / "nbs" / name, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = code_cells(notebook)
    assert all(c.execution_count is None for c in cells), "run nbdev_clean"
    assert not any(
        o.output_type == "error" for c in cells for o in c.get("outputs", [])
    )
    for cell in cells:
        outputs = cell.get("outputs", [])
        if re.search(r"^#\| fig-cap|^print\(", cell.source, re.M):
            assert outputs, (
                f"run the notebook, this cell has no output: {cell.source[:200]}"
            )
        streams = [o.name for o in outputs if o.output_type == "stream"]
        assert len(streams) == len(set(streams)), (
            "run the notebook with tools/notebooks.py, which joins what was printed"
        )
    form = r"# \S[^\n]*\n\n> \S[^\n]*(\n\n- [\w-]+: \S+)*"
    assert re.fullmatch(form, notebook.cells[0].source), (
        "the first cell is a title and a description, and nothing else"
    )


@pytest.mark.parametrize("name", NAMES)
def test_page(pages, name):
    page = pages[name]
    front = page.cells[0].source
    assert re.search(r"^title: \S", front, re.M) and re.search(
        r"^description: \S", front, re.M
    )
    for cell in code_cells(page):
        assert not any(o.output_type == "error" for o in cell.get("outputs", []))
        if any("image/png" in o.get("data", {}) for o in cell.get("outputs", [])):
            for words in ("fig-alt", "fig-cap"):
                text = re.search(rf"#\|\s*{words}:\s*(\S.*)", cell.source)
                assert text and len(text[1]) > 20, (
                    f"a figure without {words}: {cell.source[:200]}"
                )


def anchors(page) -> set[str]:
    "What a link into the page may name: its headings and the symbols it documents."
    prose = "\n".join(c.source for c in page.cells if c.cell_type == "markdown")
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    outputs = json.dumps([c.get("outputs", []) for c in code_cells(page)])
    symbols = re.findall(
        r"^#+ (?:\w+\.)*(\w+)", "\n".join(re.findall(r"#+ [\w.]+", outputs)), re.M
    )
    return {re.sub(r"[^\w]+", "-", h.lower()).strip("-") for h in headings} | {
        x.lower() for x in symbols
    }


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(pages, name):
    site = "https://rcg-diffusion.github.io/rcg/"
    html = {re.sub(r"^\d+[a-z]?_|\.ipynb$", "", n) + ".html": n for n in NAMES}
    prose = "\n".join(c.source for c in pages[name].cells if c.cell_type == "markdown")
    prose = re.sub(r"```.*?```", "", prose, flags=re.S)
    assert not re.search(r"!\[\s*\]\(", prose), "an image without alt text"
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith(site):  # to the documentation of a symbol, put in by nbdev
            page, _, anchor = target.removeprefix(site).partition("#")
            assert page in html and anchor in anchors(pages[html[page]]), (
                f"dead link: {target}"
            )
        elif not re.match(r"https?:|#", target):
            assert ((ROOT / "nbs" / name).parent / target.split("#")[0]).exists(), (
                f"dead link: {target}"
            )


@pytest.mark.parametrize("name", NAMES)
def test_no_widget_or_path_in_outputs(name):
    text = json.dumps(nbformat.read(ROOT / "nbs" / name, as_version=4))
    assert str(ROOT) not in text and "site-packages" not in text, (
        "an output shows a path of the machine it ran on"
    )


def test_every_notebook_is_in_the_sidebar():
    listed = re.findall(r"- (\S+\.ipynb)", (ROOT / "nbs" / "sidebar.yml").read_text())
    assert sorted(listed) == sorted(NAMES)


def test_no_two_notebooks_become_the_same_page():
    pages = [re.sub(r"(^|/)\d+[a-z]?_", r"\1", n) for n in NAMES]
    assert len(set(pages)) == len(pages)


def test_readme_is_the_index():
    spec = importlib.util.spec_from_file_location(
        "notebooks", ROOT / "tools" / "notebooks.py"
    )
    tools = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tools)
    assert (ROOT / "README.md").read_text() == tools.readme(), (
        "run: python tools/notebooks.py readme"
    )
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", tools.readme()):
        assert (ROOT / target).exists(), f"dead link in README.md: {target}"


def test_modules_import_only_from_rooms_below():
    order = [n for n in NAMES if re.match(r"\d\d[a-z]?_", n)]
    rooms = {
        re.search(r"#\| default_exp (\w+)", (ROOT / "nbs" / n).read_text())[1]: i
        for i, n in enumerate(order)
    }
    for module, level in rooms.items():
        source = (ROOT / "rcg" / f"{module}.py").read_text()
        for used in re.findall(r"from (?:rcg)?\.(\w+) import", source):
            assert rooms[used] < level, (
                f"rcg.{module} imports rcg.{used}, which is not below it"
            )
    assert {p.stem for p in Path(ROOT / "rcg").glob("*.py")} - set(rooms) == {
        "__init__",
        "_modidx",
    }


def parameters(name: str) -> dict:
    "The defaults of a papermill notebook."
    cells = nbformat.read(ROOT / "nbs" / name, as_version=4).cells
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1, (
        f"{name}: without the tag, papermill silently uses the notebook's own values"
    )
    values = {}
    exec(tagged[0].source, values)
    return values


def test_quickstart_runs_the_digits_preset():
    from rcg.running.presets import preset

    p, q = preset("digits"), parameters("quickstart.ipynb")
    assert (q["denoiser_steps"], q["classifier_steps"]) == (
        p.denoiser_training.steps,
        p.classifier_training.steps,
    )
    assert (q["sampling_steps"], q["images"] * q["repeats"]) == (
        p.sampling.steps,
        p.sampling.images,
    )
    assert q["eps"] == p.attack.threat.eps


def test_experiments_default_to_the_paper():
    from rcg.running.jobs import SamplingJob, TrainingJob, from_parameters, job_attack, network_config, training_config
    from rcg.running.presets import preset

    notebook_only = {"processes", "trial_steps"}
    for name in ("cifar10", "imagenet128"):
        p, notebook = preset(name), f"train_{name.removesuffix('128')}.ipynb"
        values = {k: v for k, v in parameters(notebook).items() if k != "__builtins__"}
        job = from_parameters(
            TrainingJob,
            {k: v for k, v in values.items() if k not in notebook_only},
            strict=True,
        )
        assert (
            job_attack(job) == p.attack
            and network_config(job) == p.classifier
            and job.preset == name
        )
        assert training_config(job) == replace(
            p.classifier_training, workers=job.workers
        )
        assert {f.name for f in fields(TrainingJob)} <= values.keys(), (
            "every setting of a job is a parameter of the notebook"
        )
    plain = {
        f.name: f.default
        for f in fields(TrainingJob)
        if f.default not in (None, MISSING) and f.name != "validation"
    }
    assert {name: values[name] for name in plain} == plain, (
        "what a notebook and a YAML file leave out must mean the same"
    )
    values = {
        k: v for k, v in parameters("sample.ipynb").items() if k != "__builtins__"
    }
    job = from_parameters(
        SamplingJob,
        {k: v for k, v in values.items() if k not in notebook_only},
        strict=True,
    )
    assert (job.scale, job.steps, job.sampler, job.images) == (
        p.sampling.robust_scale,
        p.sampling.steps,
        "ddpm",
        50_000,
    )
    assert {f.name for f in fields(SamplingJob)} <= values.keys()
    sets = {s["method"]: s["scale"] for s in parameters("evaluate.ipynb")["samples"]}
    assert sets == {
        "unguided": 0.0,
        "vanilla": p.sampling.vanilla_scale,
        "robust": p.sampling.robust_scale,
    }


def test_the_ablation_is_the_papers():
    from rcg.running.presets import preset

    p, q = preset("cifar10"), parameters("ablation_cifar10.ipynb")
    assert [p.attack.threat.eps, p.attack.steps] == q["robust"][1:] and q[
        "best"
    ] == p.classifier_training.steps
    assert (
        q["best"] in q["checkpoints"]
        and p.sampling.robust_scale in q["scales"]
        and q["table4_scale"] in q["scales"]
    )
    assert len(q["threats"]) * len(q["attack_steps"]) == 15
