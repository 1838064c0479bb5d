"The pages: no errors, no dead links, options that Quarto accepts, up to date."

import ast
import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import fields, replace
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import NBS, ROOT, parameters, read

sys.path.insert(0, str(ROOT / "tools"))
from notebooks import opening, readme

from rcg.running.site import ON_COLAB, colab, heading_id, notebooks, page_of

NAMES = sorted(
    p.relative_to(NBS).as_posix()
    for p in NBS.rglob("*.ipynb")
    if ".ipynb_checkpoints" not in p.parts
)
SITE = "https://rcg-diffusion.github.io/rcg/"

FLOORS = """
    running.settings running.files running.tensors running.hub data running.models
    diffusion solvers unet classifier attack training gradient_training guidance
    metrics running.further_metrics gradients figures running.images running.presets
    running.runs running.downloads running.checkpoints running.evaluator
    running.classifiers running.report interop.networks interop.denoisers
    interop.pipeline running.commands running.jobs running.sweeps lab.views
    lab.worker lab.widgets survey.answers survey.page survey.making survey.serving
    survey.opinions running.site
""".split()  # a module imports only from those before it
LATER = {
    ("running.commands", "running.jobs"),  # only when a job is resolved or run
    ("running.checkpoints", "interop.denoisers"),  # only for a folder of diffusers
    ("running.hub", "running.checkpoints"),  # only when a network is saved or loaded
    ("running.hub", "training"),
}
BY_HAND = {  # short names for modules, and `python -m rcg.survey`
    "checkpoints",
    "evaluator",
    "experiment",
    "jobs",
    "survey.__main__",
    "running.__init__",
    "lab.__init__",
    "interop.__init__",
    "survey.__init__",
    "__init__",
    "_modidx",
}


def code_cells(notebook) -> list:
    return [c for c in notebook.cells if c.cell_type == "code"]


def prose(notebook) -> str:
    "The text of a notebook, without its blocks of code."
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    return re.sub(r"```.*?```", "", text, flags=re.S)


# What Quarto accepts: the keys in use, with their types.

QUARTO = {
    "project": {"type": str, "output-dir": str, "resources": list},
    "format": {
        "html": {
            "theme": {"light": str, "dark": str},
            "css": str,
            "toc": bool,
            "toc-depth": int,
            "code-copy": bool,
            "code-overflow": str,
            "link-external-newwindow": bool,
            "keep-md": bool,
        },
        "commonmark": str,
    },
    "website": {
        "title": str,
        "description": str,
        "favicon": str,
        "site-url": str,
        "repo-url": str,
        "repo-branch": str,
        "repo-actions": list,
        "twitter-card": bool,
        "open-graph": bool,
        "page-navigation": bool,
        "navbar": {"background": str, "search": bool, "tools": list},
        "sidebar": {"style": str, "contents": list},
    },
    "metadata-files": list,
}
OPTIONS = {  # of a cell
    "fig-cap": str,
    "fig-alt": str,
    "fig-width": (int, float),
    "label": str,
    "eval": bool,
    "echo": bool,
    "include": bool,
    "output": (bool, str),
    "warning": bool,
    "code-fold": (bool, str),
    "code-summary": str,
}
DIRECTIVES = {"default_exp", "export", "exports", "exporti", "exec_doc", "hide"}
FRONT = {  # of a page
    "title": str,
    "description": str,
    "output-file": str,
    "skip_exec": bool,
    "skip_showdoc": bool,
}


def check(value, wanted, place: str):
    "Raise `AssertionError` for keys that are not in use and values of another type."
    if not isinstance(wanted, dict):
        assert isinstance(value, wanted), f"{place}: {value!r} should be {wanted}"
        return
    assert isinstance(value, dict), f"{place}: {value!r} should have keys"
    for key, inner in value.items():
        assert key in wanted, (
            f"{place}: is {key} an option of Quarto? Then list it here"
        )
        check(inner, wanted[key], f"{place}: {key}")


@pytest.mark.parametrize("name", ["_quarto.yml", "nbdev.yml", "sidebar.yml"])
def test_site_settings(name):
    check(yaml.safe_load((NBS / name).read_text()), QUARTO, name)


def test_files_that_the_site_settings_name():
    site = yaml.safe_load((NBS / "_quarto.yml").read_text())
    named = [site["website"]["favicon"], site["format"]["html"]["css"]]
    for file in named + site["metadata-files"]:
        assert (NBS / file).is_file(), f"_quarto.yml names {file}, which does not exist"
    for pattern in site["project"]["resources"]:
        assert list(NBS.glob(pattern)), f"nothing is like {pattern}"
    _, front, _ = (NBS / "404.qmd").read_text().split("---", 2)
    check(yaml.safe_load(front), FRONT, "404.qmd")


def cell_options(source: str, place: str) -> dict:
    "The options of a cell, of which nbdev's own take no colon."
    lines = re.findall(r"^#\|\s*(.*)$", source, re.M)
    for line in [x for x in lines if ":" not in x]:
        assert line.split()[0] in DIRECTIVES, f"{place}: unknown directive {line!r}"
    try:
        values = yaml.safe_load("\n".join(x for x in lines if ":" in x)) or {}
    except yaml.YAMLError as error:
        raise AssertionError(f"{place}: quote the text of an option: {error}") from None
    check(values, OPTIONS, place)
    return values


@pytest.mark.parametrize("name", NAMES)
def test_options_are_yaml(name):
    for i, cell in enumerate(code_cells(read(name))):
        options = cell_options(cell.source, f"{name}, code cell {i}")
        assert ("code-fold" in options) == ("code-summary" in options), (
            f"{name}: say what is folded: {cell.source[:200]}"
        )
        if any("image/png" in o.get("data", {}) for o in cell.outputs):
            for words in ("fig-alt", "fig-cap"):
                assert len(options.get(words, "")) > 20, (
                    f"{name}: a figure without {words}: {cell.source[:200]}"
                )
    title = read(name).cells[0].source
    form = r"# \S[^\n]*\n\n> \S[^\n]*(\n\n- [\w-]+: \S+)*"
    assert re.fullmatch(form, title), (
        "the first cell is a title and a description, and nothing else"
    )
    front = "\n".join(re.findall(r"^- (.*)$", title, re.M))
    check(yaml.safe_load(front) or {}, FRONT, f"{name}: front matter")


# The committed notebooks.


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook(name):
    notebook = read(name)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert cell.execution_count is None, "run nbdev_clean"
        assert not any(o.output_type == "error" for o in cell.outputs)
        if re.search(r"^#\| fig-cap|^print\(", cell.source, re.M):
            assert cell.outputs, (
                f"run the notebook, this cell has no output: {cell.source[:200]}"
            )
        streams = [o.name for o in cell.outputs if o.output_type == "stream"]
        assert len(streams) == len(set(streams)), (
            "run the notebook with tools/notebooks.py, which joins what was printed"
        )
    text = json.dumps(notebook)
    assert str(ROOT) not in text and "site-packages" not in text, (
        "an output shows a path of the machine it ran on"
    )


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short_and_checks_are_shown(name):
    for cell in code_cells(read(name)):
        count = len(cell.source.splitlines())
        assert count <= 50, f"{count} lines: divide {cell.source[:100]!r}"
        hidden = re.search(
            r"^#\| *hide$|^#\| *(include|echo): false", cell.source, re.M
        )
        checks = re.search(r"^\s*(assert|test_\w+\()", cell.source, re.M)
        assert not (hidden and checks), f"a hidden check: {cell.source[:200]}"


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_comes_early(name):
    "A page with figures begins with one; if it is one from further down, with that."
    notebook, shown = read(name), 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "![" in cell.source:
            break
        if cell.cell_type == "code":
            if not re.search(r"^#\| *(code-fold|hide)", cell.source, re.M):
                shown += len(cell.source.splitlines())
            if any("image/png" in o.get("data", {}) for o in cell.outputs):
                break
    else:
        return
    assert shown <= 100, f"{shown} lines of code before the first picture"
    if picture := opening(notebook):
        image = NBS / "images" / f"{Path(name).stem}.png"
        assert image.read_bytes() == picture, "run the notebook with tools/notebooks.py"
        assert f"images/{image.name}){{fig-alt=" in "".join(
            c.source for c in notebook.cells[:3]
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_stands_alone(name):
    "Only as a paragraph of its own does an image get its caption."
    for block in re.split(r"\n\s*\n", prose(read(name))):
        if block.lstrip().startswith("!["):
            assert re.fullmatch(r"!\[.*\]\(\S+\)(\{.*\})?", block.strip()), block
        else:
            assert "\n![" not in block, f"a blank line is missing: {block}"


def test_sidebar_lists_every_notebook_once():
    assert sorted(notebooks(NBS)) == NAMES


def test_no_two_notebooks_become_the_same_page():
    pages = [page_of(n) for n in NAMES]
    assert len(set(pages)) == len(pages)


@pytest.mark.parametrize(
    "name, following", list(zip(notebooks(NBS), notebooks(NBS)[1:]))
)
def test_next_leads_through_the_sidebar(name, following):
    last = [c for c in read(name).cells if c.cell_type == "markdown"][-1].source
    found = re.search(r"^Next: [^\n]*?\]\(([^)#]+\.ipynb)", last, re.M)
    assert found, f"{name} does not end with a link to {following}"
    target = ((NBS / name).parent / found[1]).resolve()
    assert target == NBS / following


# The pages that nbdev makes of them.


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, nbformat.NotebookNode]:
    "Every notebook as nbdev hands it to the site generator."
    copy = tmp_path_factory.mktemp("site") / "rcg"
    copy.mkdir()
    shutil.copy(ROOT / "settings.ini", copy)
    shutil.copy(ROOT / "README.md", copy)
    hidden = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
    for folder in ("nbs", "rcg"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=hidden)
    make = (
        "from nbdev.quarto import nbdev_readme, refresh_quarto_yml, proc_nbs\n"
        "refresh_quarto_yml(); proc_nbs(n_workers=0, force=True)\n"
        "nbdev_readme.__wrapped__(chk_time=True)"
    )
    run = [sys.executable, "-c", make]
    done = subprocess.run(run, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (copy / "README.md").read_text() == (ROOT / "README.md").read_text()
    assert (copy / "nbs" / "nbdev.yml").read_text() == (NBS / "nbdev.yml").read_text()
    return {n: nbformat.read(copy / "_proc" / n, as_version=4) for n in NAMES}


@pytest.mark.xdist_group("pages")
@pytest.mark.parametrize("name", NAMES)
def test_page(pages, name):
    page = pages[name]
    front = yaml.safe_load(page.cells[0].source.strip().strip("-"))
    check(front, FRONT, name)
    assert {"title", "description", "output-file"} <= front.keys()
    for i, cell in enumerate(code_cells(page)):
        cell_options(cell.source, f"{name}, code cell {i} of the page")
        assert not any(o.output_type == "error" for o in cell.get("outputs", []))


def shown(page) -> str:
    "The markdown of a page: its text, and what its cells show as such."
    outputs = [
        "".join(o["data"]["text/markdown"])
        for c in code_cells(page)
        for o in c.get("outputs", [])
        if "text/markdown" in o.get("data", {})
    ]
    return "\n\n".join([prose(page), *outputs])


def anchors(page) -> list[str]:
    "What a link into a page may name."
    text = shown(page)
    headings = [heading_id(h) for h in re.findall(r"^#+ +(.+)$", text, re.M)]
    return headings + re.findall(r"\[\]\{#([^}\s]+)\}", text)


@pytest.fixture(scope="module")
def places(pages) -> dict[str, list[str]]:
    "The anchors of every page."
    return {name: anchors(page) for name, page in pages.items()}


@pytest.mark.xdist_group("pages")
@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(pages, places, name):
    by_page = {page_of(n): n for n in NAMES}
    text = shown(pages[name])
    assert not re.search(r"!\[\s*\]\(", text), "an image without alt text"
    assert "[[`" not in text, "a link in the text of a link"
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        inside = target.startswith(SITE)  # put in by nbdev, or of a page to another
        path, _, anchor = target.removeprefix(SITE).partition("#")
        if not inside and re.match(r"https?:|mailto:", target):
            continue
        file = (NBS if inside else (NBS / name).parent) / path if path else NBS / name
        file = file.resolve()
        if file.suffix == ".html":
            named = file.relative_to(NBS).as_posix()
            assert named in by_page, f"dead link: {target}"
            file = NBS / by_page[named]
        assert file.exists() or not path.strip("/"), f"dead link: {target}"
        if anchor:
            known = places[file.relative_to(NBS).as_posix()]
            assert anchor in known, f"dead link: {target}"


@pytest.mark.xdist_group("pages")
@pytest.mark.parametrize("name", NAMES)
def test_every_symbol_is_documented_once_and_in_order(pages, places, name):
    "An entry for each public name, in the order of the notebook, and none twice."
    defined = []
    for cell in code_cells(read(name)):
        if re.search(r"^#\| *exports?$", cell.source, re.M):
            kinds = (ast.FunctionDef, ast.ClassDef)
            names = [
                n.name for n in ast.parse(cell.source).body if isinstance(n, kinds)
            ]
            defined += [n.lower() for n in names if not n.startswith("_")]
    entries = re.findall(r"^### .*\{#(\S+) \.api\}$", prose(pages[name]), re.M)
    assert [e.removesuffix("-2") for e in entries] == defined
    assert "show_doc(" not in json.dumps([c.source for c in pages[name].cells])
    every = [a for a in places[name] if a in entries]
    assert len(every) == len(set(every)), "two headings have the name of a symbol"


@pytest.mark.parametrize("name", ON_COLAB)
def test_a_page_runs_on_colab_after_the_cell_that_is_given(name):
    "It installs what the page imports, and brings the results that it reads."
    first, page = colab(f"{name}.ipynb", "someone/copy"), read(f"{name}.ipynb")
    code = "\n".join(c.source for c in code_cells(page))
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    there = settings["DEFAULT"]["requirements"].replace("pillow", "PIL")
    there = re.split(r"[\s>=.-]+", there.replace("scikit-learn", "sklearn")) + ["rcg"]
    there += re.findall(r"^%pip install -q \. (.*)$", first, re.M)[0].split()
    needed = set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.M))
    # IPython is what runs there; cleanfid is called clean-fid
    assert needed <= {*there, *sys.stdlib_module_names, "IPython", "cleanfid"}
    if results := re.findall(r"[\"'](results/[^\"'{]*)", code):
        assert "!git clone" in first and "\n%cd copy\n" in first
        tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True)
        files = tracked.stdout.decode().splitlines()
        assert all(any(f.startswith(r) for f in files) for r in results)


def test_other_pages_have_no_link_to_colab():
    assert {f"{name}.ipynb" for name in ON_COLAB} == {
        name for name in NAMES if colab(name, "someone/copy")
    }


@pytest.mark.xdist_group("pages")
def test_gallery_and_index_are_whole(pages):
    figures = sum(
        "fig-cap" in c.source
        and any("image/png" in o.get("data", {}) for o in c.outputs)
        for n in NAMES
        for c in code_cells(pages[n])
    )
    html = json.dumps([c.get("outputs") for c in code_cells(pages["gallery.ipynb"])])
    assert html.count("<figure>") >= figures > 0
    names = shown(pages["api.ipynb"])
    assert "[`pgd`](attack.html#pgd)" in names and "[rcg.guidance]" in names
    assert "quickstart.html" in shown(pages["index.ipynb"])


# README, and the package.


def test_readme():
    text = (ROOT / "README.md").read_text()
    assert text == readme(), "run: python tools/notebooks.py readme"
    assert len(text.split()) <= 600
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
        assert (ROOT / target).exists(), f"dead link in README.md: {target}"
    for command in re.findall(r"^papermill (?:--\S+ )*(\S+\.ipynb)", text, re.M):
        assert (ROOT / command).exists(), f"README.md runs {command}"
    install, test = 'pip install -e ".[dev]" && ', re.search("OMP_.*pytest.*", text)[0]
    assert text.count(install) == 2 and test in (ROOT / ".ci" / "run").read_text()


def test_results_are_described():
    text = (ROOT / "results" / "README.md").read_text()
    for folder in (p for p in (ROOT / "results").iterdir() if p.is_dir()):
        assert f"| `{folder.name}/` |" in text, f"describe {folder} in its README"


def modules() -> dict[str, Path]:
    "The package's modules by their name without `rcg.`."
    paths = sorted((ROOT / "rcg").rglob("*.py"))
    name = lambda p: ".".join(p.relative_to(ROOT / "rcg").with_suffix("").parts)
    return {name(p): p for p in paths}


def imported(module: str, path: Path) -> set[str]:
    "The modules of the package that a module imports anywhere in it."
    package = ["rcg", *module.split(".")[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            full = above + (node.module or "").split(".") * bool(node.module)
            if full[:1] == ["rcg"]:
                base = ".".join(full[1:])
                inner = [f"{base}.{a.name}".strip(".") for a in node.names]
                found |= {i if i in modules() else base for i in inner}
    return found


@pytest.mark.parametrize("module", sorted(set(modules()) - BY_HAND))
def test_modules_import_only_from_floors_below(module):
    assert module in FLOORS, f"give rcg.{module} its place in FLOORS"
    below = FLOORS[: FLOORS.index(module)]
    for used in imported(module, modules()[module]):
        assert used in below or (module, used) in LATER, (
            f"rcg.{module} imports rcg.{used}, which is not below it"
        )


def test_every_module_is_exported_from_a_notebook():
    exported = {
        found[1]
        for n in NAMES
        if (found := re.search(r"#\| default_exp ([\w.]+)", (NBS / n).read_text()))
    }
    assert set(modules()) - BY_HAND == exported


# Settings of the notebooks.


def test_quickstart_runs_the_mnist_preset():
    from rcg.running.presets import preset

    p, q = preset("mnist"), parameters("quickstart.ipynb")
    assert q["data"] == p.data and q["eps"] == p.attack.threat.eps


def job_of(kind: type, name: str, **changes):
    "The job that a notebook's parameters describe, all of which it has to have."
    names = [f.name for f in fields(kind)]
    values = parameters(name)
    missing = set(names) - values.keys()
    assert not missing, f"{name}: every setting of a job is a parameter, also {missing}"
    return kind(**{n: values[n] for n in names} | changes)


@pytest.mark.parametrize("name", ["imagenet128", "cifar10"])
@pytest.mark.parametrize("network", ["robust", "vanilla", "denoiser"])
def test_training_defaults_to_the_paper(name, network):
    from rcg.running.jobs import TrainingJob
    from rcg.running.presets import preset

    p = preset(name)
    job = job_of(TrainingJob, "train_imagenet.ipynb", preset=name, network=network)
    plan = job.resolve()
    denoiser = network == "denoiser"
    wanted = p.denoiser_training if denoiser else p.classifier_training
    assert plan.attack == p.attack
    assert plan.network == (p.unet if denoiser else p.classifier)
    assert plan.training == replace(wanted, workers=plan.training.workers)
    left_out = TrainingJob(data=job.data, run_dir=job.run_dir)
    same = replace(job, preset=left_out.preset, network=left_out.network)
    assert same == left_out, "what a notebook and a YAML file leave out means the same"


def test_sampling_and_evaluation_default_to_the_paper():
    from rcg.running.jobs import SamplingJob
    from rcg.running.presets import preset

    p = preset("imagenet128")
    job = job_of(SamplingJob, "sample.ipynb")
    assert job.scale == p.sampling.robust_scale
    assert job.steps in (None, p.sampling.steps)
    assert job.images in (None, 50_000) and p.sampling.images == 50_000
    assert job.sampler in (None, "ddpm")
    sets = {s["method"]: s["scale"] for s in parameters("evaluate.ipynb")["samples"]}
    assert sets == {
        "unguided": 0.0,
        "vanilla": p.sampling.vanilla_scale,
        "robust": p.sampling.robust_scale,
    }


def test_the_ablation_is_the_papers():
    from rcg.running.presets import preset

    p, q = preset("cifar10"), parameters("experiments/ablation_cifar10.ipynb")
    assert [p.attack.threat.eps, p.attack.steps] == q["robust"][1:]
    assert q["best"] == p.classifier_training.steps and q["best"] in q["checkpoints"]
    assert {p.sampling.robust_scale, q["table4_scale"]} <= set(q["scales"])
    assert len(q["threats"]) * len(q["attack_steps"]) == 15
