"""`python -m audiovq`."""

import sys

from audiovq.cli import main

sys.exit(main())
