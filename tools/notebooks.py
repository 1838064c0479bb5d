"""Work on the notebooks from a terminal.

python tools/notebooks.py run NOTEBOOK...            execute in place and clean
python tools/notebooks.py run -f small.yaml NOTEBOOK   with other parameters, which
                                                     leave no trace but the outputs
python tools/notebooks.py readme                     README.md from nbs/index.ipynb
"""

import argparse
import base64
import re
import sys
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbdev.clean import nbdev_clean

ROOT = Path(__file__).parent.parent


def bar_name(line: str) -> str | None:
    "What a progress bar is called; None for any other line."
    found = re.match(r"(?:(.*?): )? *\d+%\|", line)
    return found and (found[1] or "")


def without_bar(line: str) -> str:
    "A progress bar as a short line: what, how many, how long, and what it measured."
    pattern = r"(.*?:?) *\d+%\|[^|]*\| (\S+) \[([\d:]+)<[^,]*, *[^,\]]*(,.*)?\]"
    return re.sub(pattern, r"\1 \2 in \3\4", line).strip()


def tidy(cell: nbformat.NotebookNode):
    "One output per stream, each progress bar once, on one line; no live widgets."
    streams = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            streams.setdefault(output.name, output)
            if streams[output.name] is not output:
                streams[output.name].text += output.text
    for output in streams.values():
        lines = re.sub(r".*\r(?=[^\n])", "", output.text).splitlines()
        last = {bar_name(line): i for i, line in enumerate(lines)}
        shown = [
            without_bar(line)
            for i, line in enumerate(lines)
            if "\x1b[A" not in line
            and (bar_name(line) is None or last[bar_name(line)] == i)
        ]
        output.text = re.sub(r"\n{3,}", "\n\n", "\n".join(shown)).strip() + "\n"
    if "#| exec_doc" in cell.source:  # made anew whenever the site is
        cell.outputs = []
    keep = [s for s in streams.values() if s.text.strip()]
    live = "application/vnd.jupyter.widget-view+json"  # nothing without its kernel
    cell.outputs = keep + [
        o
        for o in cell.outputs
        if o.output_type != "stream" and live not in o.get("data", {})
    ]


def opening(notebook: nbformat.NotebookNode) -> bytes | None:
    "The figure of the cell tagged `opening`, as PNG; None if no cell is."
    for cell in notebook.cells:
        if "opening" in cell.metadata.get("tags", []):
            figures = [o.data for o in cell.outputs if "image/png" in o.get("data", {})]
            return base64.b64decode(figures[-1]["image/png"])


def keep_opening(path: Path, notebook: nbformat.NotebookNode):
    "Write the image that a page begins with, if it begins with one of its figures."
    if picture := opening(notebook):
        (ROOT / "nbs" / "images" / f"{path.stem}.png").write_bytes(picture)


def run(path: Path, parameters: dict):
    "Execute a notebook where it lies, and keep what a reader wants to see."
    notebook = nbformat.read(path, as_version=4)
    tagged = next(
        (
            i
            for i, cell in enumerate(notebook.cells)
            if "parameters" in cell.metadata.get("tags", [])
        ),
        None,
    )
    if parameters:
        values = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(tagged + 1, nbformat.v4.new_code_cell(values))
    NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    if parameters:
        del notebook.cells[tagged + 1]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tidy(cell)
    notebook.metadata.pop("widgets", None)
    keep_opening(path, notebook)
    nbformat.write(notebook, path)
    nbdev_clean(str(path))


SITE_ONLY = "<!-- From here on only on the site. -->"


def for_github(text: str) -> str:
    "A cell's text with links from the repository's root, and captions below images."
    image = r'!\[((?:[^]]|\]\()*?)\]\((\S+?)\)\{fig-alt="([^"]*)"\}'
    text = re.sub(image, r"![\3](\2)\n\n*\1*", text)
    text = re.sub(r"\]\((?!https?:|#|\.\./)", "](nbs/", text)
    return text.replace("](../", "](")


def readme() -> str:
    "The text of index.ipynb as a README: prose and code, no outputs."
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    parts = ["<!-- Written by tools/notebooks.py from nbs/index.ipynb: edit that. -->"]
    for cell in notebook.cells:
        if cell.source.startswith(SITE_ONLY):
            break
        if cell.cell_type == "markdown":
            parts.append(for_github(cell.source))
        elif cell.cell_type == "code":
            code = re.sub(r"^#\|.*\n", "", cell.source, flags=re.M)
            parts.append(f"```python\n{code}\n```")
    return "\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    execute = commands.add_parser("run")
    execute.add_argument("paths", nargs="+", type=Path)
    execute.add_argument("-f", type=Path, help="YAML file of parameters")
    commands.add_parser("readme")
    args = parser.parse_args()
    if args.command == "readme":
        (ROOT / "README.md").write_text(readme(), encoding="utf-8")
        return
    parameters = yaml.safe_load(args.f.read_text(encoding="utf-8")) if args.f else {}
    for path in args.paths:
        print(path, file=sys.stderr)
        run(path, parameters)


if __name__ == "__main__":
    main()
