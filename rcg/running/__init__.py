"""What surrounds the method: settings, files, images, presets, runs, checkpoints, jobs.

Public names are imported from their modules when they are asked for: most of these need
torch, but `rcg.running.files` does not.
"""

from importlib import import_module


def on_demand(package: str, *modules: str):
    "A `__getattr__` for a package that finds public names in these modules of it."

    def find(name: str):
        for module in () if name.startswith("_") else modules:
            found = import_module(f"{package}.{module}")
            if name in found.__all__:
                return getattr(found, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


__getattr__ = on_demand(
    __name__,
    *("settings", "files", "images", "presets", "runs"),
    *("downloads", "checkpoints", "commands", "jobs", "sweeps"),
)
