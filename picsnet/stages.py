"""Where a picture's seconds go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """A clock for stages: ``with stages("sketch"): ...``; what is entered twice adds up.

    Attributes:
        seconds: by stage, in the order in which they came.
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = dict(seconds or {})

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start

    def rounded(self) -> dict[str, float]:
        """Seconds by stage to the tenth of a millisecond, for people and JSON."""
        return {name: round(value, 4) for name, value in self.seconds.items()}
