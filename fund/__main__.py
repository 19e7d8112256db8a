"""`python -m fundops`."""

from fundops.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
