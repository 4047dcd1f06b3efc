#!/usr/bin/env python3
"""Evaluate codecs over a dataset: ``python evaluate.py --config eval_kodak.yaml``."""

import sys

from picsnet.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
