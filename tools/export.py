"""`segdistill export` as a script."""

import sys

from segdistill.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
