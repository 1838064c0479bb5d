"""The laboratory: views of gradients, attacks and guidance, and explorers of them."""

from rcg.running import on_demand

__getattr__ = on_demand(__name__, "views", "worker", "widgets")
