"Notebooks refuse parameters that they do not know, or of the wrong type, at once."

import ast
from functools import cache

import pytest
from conftest import NBS, parameters, read


@cache
def cells(name: str) -> tuple:
    "The code cells of a notebook."
    return tuple(c for c in read(name).cells if c.cell_type == "code")


def place(name: str) -> int | None:
    "Which of a notebook's code cells holds its parameters."
    tagged = ("parameters" in c.metadata.get("tags", []) for c in cells(name))
    return next((k for k, tag in enumerate(tagged) if tag), None)


NAMES = [p.relative_to(NBS).as_posix() for p in sorted(NBS.rglob("*.ipynb"))]
NAMES = [n for n in NAMES if ".ipynb_checkpoints" not in n and place(n) is not None]


@cache
def looked_at(name: str) -> str:
    "The statements of a notebook from its imports to the look at its parameters."
    taken = []
    for cell in [c for k, c in enumerate(cells(name)) if k != place(name)]:
        for statement in ast.parse(cell.source).body:
            taken.append(ast.unparse(statement))
            if "notebook_parameters(" in taken[-1]:
                return "\n".join(taken)
            assert isinstance(statement, (ast.Import, ast.ImportFrom)), (
                f"{name} works before it has looked at its parameters: {taken[-1]}"
            )
    raise AssertionError(f"{name} does not call notebook_parameters")


def begin(name: str, **given):
    "What papermill does with these parameters, up to the look at them."
    defaults = cells(name)[place(name)].source
    injected = "# Parameters\n" + "".join(f"{k} = {v!r}\n" for k, v in given.items())
    values = {"In": ["", defaults, injected]}
    exec(f"{defaults}\n{injected}\n{looked_at(name)}", values)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_parameters_are_refused_at_once(name):
    begin(name)
    with pytest.raises(ValueError, match="no parameter 'epsilonn'|setting 'epsilonn'"):
        begin(name, epsilonn=0.5)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_the_wrong_type_are_refused_at_once(name):
    job = "Job)" in looked_at(name)  # which knows what else may stand for None
    for parameter, value in parameters(name).items():
        if isinstance(value, str) or value is None and not job:
            continue  # for a text, a number is one
        wrong = "text" if isinstance(value, dict) else {"a": "mapping"}
        with pytest.raises(ValueError, match=parameter):
            begin(name, **{parameter: wrong})
