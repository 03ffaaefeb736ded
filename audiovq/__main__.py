"""`python -m audiovq`."""

import sys

from audiovq.cli.main import main

sys.exit(main())
