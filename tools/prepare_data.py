"""`segdistill prepare-data` as a script."""

import sys

from segdistill.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare-data", *sys.argv[1:]]))
