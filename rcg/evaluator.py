"""Short name of `rcg.running.evaluator`."""

if __name__ == "__main__":  # the command line, which needs no torch to be read
    from runpy import run_module

    run_module("rcg.running.evaluator", run_name="__main__")
else:
    from .running.evaluator import *
