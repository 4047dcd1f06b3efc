"""Answers that are no: a status and one line."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818  it is an answer, and nothing has gone wrong
    """A request is not done.

    Attributes:
        status: of HTTP.
        message: one line for the client: what, and how to mend it.
        retry_after: seconds after which it may be tried again, or None.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


GONE = 499
"""The client went away before its answer; nobody sees this status but the metrics."""

STOPPING = "the server is stopping; try again later"
FAILED = "the server could not do this; its log says why"
