#!/usr/bin/env python3
"""``python encode.py`` is ``picsnet encode``."""

from picsnet.cli import process

if __name__ == "__main__":
    process("encode")
