"""`audiovq generate` as a script, for batch systems and torchrun."""

import sys

from audiovq.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
