"""What surrounds the method: files, images, presets, runs, downloads, checkpoints, jobs, sweeps."""

from importlib import import_module

_ROOMS = ("files", "images", "presets", "runs", "downloads", "checkpoints", "jobs", "sweeps")


def __getattr__(name: str):
    "Public names of the rooms, imported when they are asked for, since most rooms need torch and `files` does not."
    for room in () if name.startswith("_") else _ROOMS:
        module = import_module(f"{__name__}.{room}")
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
