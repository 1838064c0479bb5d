"""Opinion surveys: which of two images is better, and what the answers say."""

from rcg.running import on_demand

__getattr__ = on_demand(__name__, "answers", "page", "making", "serving", "opinions")
