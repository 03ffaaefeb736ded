"""The program: `audiovq`, and `python -m audiovq`."""

import sys


def program() -> int:
    """The command line as a whole process. Ctrl-C ends it without a traceback while it loads, too."""
    try:
        from audiovq.cli import main
    except KeyboardInterrupt:
        print("audiovq: stopped before it began", file=sys.stderr)
        return 130
    return main.program()


if __name__ == "__main__":
    sys.exit(program())
