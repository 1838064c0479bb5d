"""What surrounds the method: settings, files, images, presets, runs, checkpoints, jobs.

Public names are imported from their modules when they are asked for: most of these need
torch, but `rcg.running.files` does not.
"""

from importlib import import_module

_MODULES = (
    *("settings", "files", "images", "presets", "runs"),
    *("downloads", "checkpoints", "commands", "jobs", "sweeps"),
)


def __getattr__(name: str):
    for module in () if name.startswith("_") else _MODULES:
        found = import_module(f"{__name__}.{module}")
        if name in found.__all__:
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
