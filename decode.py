#!/usr/bin/env python3
"""``python decode.py`` is ``picsnet decode``."""

import sys

from picsnet.cli import main

if __name__ == "__main__":
    sys.exit(main(["decode", *sys.argv[1:]]))
