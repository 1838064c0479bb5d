"""Short name of `rcg.running.jobs`."""

from .running.jobs import *

if __name__ == "__main__":
    from .running.jobs import main

    main()
