"""``python -m picsnet`` is the ``picsnet`` command."""

from picsnet.cli import process

process()
