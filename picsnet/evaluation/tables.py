"""What a run's folder holds of all its pictures together, and when that has to go.

Who reads a run takes it for finished where these files are. So they are of the pictures that are
there: they go before any of those does, and the summary, which is written last, goes first.
"""

from __future__ import annotations

from pathlib import Path

from picsnet.errors import OutputError

ROWS = "rows.csv"
SUMMARY = "summary.json"
COMPRESSAI = "compressai"


def withdraw_tables(run: Path) -> None:
    """Take away what an earlier start made of all pictures.

    Raises:
        OutputError: a file cannot be removed.
    """
    for path in (run / SUMMARY, run / ROWS, *(run / COMPRESSAI).glob("*.json")):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be removed ({error.strerror or error}), but would tell of other "
                "pictures; change the folder's rights, or set name=NAME"
            ) from None
