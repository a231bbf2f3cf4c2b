"""Lets `python -m wizard_edge` do what `wizard-edge` does."""

from wizard_edge.cli import main

if __name__ == "__main__":
    main()
