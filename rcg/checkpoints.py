"""Short name of `rcg.running.checkpoints` and `rcg.running.downloads`."""

from .running.checkpoints import *
from .running.downloads import *

if __name__ == "__main__":
    from .running.checkpoints import main

    main()
