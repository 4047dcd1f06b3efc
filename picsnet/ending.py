"""How a command ends that could not do what it was to do."""

from __future__ import annotations

import sys

from picsnet.errors import PicsnetError
from picsnet.terminal import print_error


def ended(error: PicsnetError | KeyboardInterrupt, debug: bool) -> int:
    """The status of a command that an error or Ctrl-C ended, told in one line.

    Args:
        error: what was caught.
        debug: raise it on, for its traceback.
    """
    if debug:
        raise error
    if isinstance(error, KeyboardInterrupt):
        print("picsnet: interrupted; what was written is whole", file=sys.stderr)
        return 130
    print_error(error)
    return error.exit_status
