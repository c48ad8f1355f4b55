"""`python -m rlvr` and the entry point of the command: Ctrl-C is one line from the first import on."""

import sys


def main() -> None:
    """Runs the `rlvr` command and ends the process with its exit code."""
    try:
        from rlvr.cli import main as command
    except KeyboardInterrupt:
        print("\nrlvr: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    command()


if __name__ == "__main__":
    main()
