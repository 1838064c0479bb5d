"""Opinion surveys: which of two images is better, and what the answers say."""

from importlib import import_module

_ROOMS = ("answers", "page", "making", "serving", "opinions")


def __getattr__(name: str):
    "Public names of the modules, imported when they are asked for."
    for room in () if name.startswith("_") else _ROOMS:
        module = import_module(f"{__name__}.{room}")
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
