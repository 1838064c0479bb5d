"""Short name of `rcg.running.checkpoints` and `rcg.running.downloads`."""

from rcg.running.checkpoints import *
from rcg.running.downloads import *

if __name__ == "__main__":
    from rcg.running.checkpoints import main

    main()
