"""Short name of `rcg.running.checkpoints` and `rcg.running.downloads`."""

if __name__ == "__main__":  # the command line, which needs no torch to be read
    from .running.commands import checkpoints_main

    checkpoints_main()
else:
    from .running.checkpoints import *
    from .running.downloads import *
