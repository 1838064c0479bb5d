"""Short name of `rcg.running.jobs`."""

if __name__ == "__main__":  # the command line, which needs no torch to be read
    from .running.commands import main

    main()
else:
    from .running.jobs import *
