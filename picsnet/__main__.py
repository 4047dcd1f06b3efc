"""``python -m picsnet`` is the ``picsnet`` command."""

import sys

from picsnet.cli import main

sys.exit(main())
