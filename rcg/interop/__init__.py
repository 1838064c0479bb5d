"""Networks, denoisers and pipelines of diffusers; needs the extra `rcg[diffusers]`."""

try:
    import diffusers  # noqa: F401
except ImportError:
    raise ModuleNotFoundError(
        'rcg.interop needs diffusers: pip install "rcg[diffusers]"', name="diffusers"
    ) from None

from rcg.running import on_demand

__getattr__ = on_demand(__name__, "networks", "denoisers", "pipeline")
