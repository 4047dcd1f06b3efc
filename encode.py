#!/usr/bin/env python3
"""``python encode.py`` is ``picsnet encode``."""

import sys

from picsnet.cli import main

if __name__ == "__main__":
    sys.exit(main(["encode", *sys.argv[1:]]))
