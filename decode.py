#!/usr/bin/env python3
"""``python decode.py`` is ``picsnet decode``."""

from picsnet.cli import process

if __name__ == "__main__":
    process("decode")
