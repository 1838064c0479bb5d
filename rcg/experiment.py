"""Short name of `rcg.running.presets` and `rcg.running.runs`."""

from .running.presets import *
from .running.runs import *
