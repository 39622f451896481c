"""`segdistill predict` as a script."""

import sys

from segdistill.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
