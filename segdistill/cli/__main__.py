"""`python -m segdistill.cli`."""

import sys

from segdistill.cli import main

sys.exit(main())
