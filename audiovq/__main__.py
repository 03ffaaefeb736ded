"""`python -m audiovq`."""

import sys

from audiovq.cli.main import program

sys.exit(program())
