#!/usr/bin/env python3
"""Evaluate codecs over a dataset: ``python evaluate.py --config eval_kodak.yaml``."""

from picsnet.cli import process

if __name__ == "__main__":
    process("evaluate")
