"""The command `python -m rcg.survey`."""

from .serving import main

if __name__ == "__main__":
    main()
