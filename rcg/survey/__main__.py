"""The command `python -m rcg.survey make|serve|export|remove`."""

from rcg.survey.serving import main

if __name__ == "__main__":
    main()
