"""`python -m fundops`."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the `fundops` command, as `fundops.cli.app.main`."""
    try:
        from fundops.cli.app import main as run
    except KeyboardInterrupt:  # the imports are a third of the time of a short command
        sys.stderr.write("fundops: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
