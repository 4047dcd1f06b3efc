"""What a service is started with: its models and its limits. Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from picsnet.errors import UsageError

MIB = 2**20


@dataclass(frozen=True)
class Models:
    """What the workers load.

    Attributes:
        ckpt: sketch model, or None: the default that ships, and to decode with, all that ship.
        decoder: name, folder or hub id; "none" serves sketches alone; None is the default one.
        decoder_set: ``key=value`` settings of the decoder.
        sketcher: edge extractor, as `picsnet.sketch.load_sketcher` takes it.
        prompt_from: how prompts are made; None as suits the decoder.
        device: where models run.
        max_pixels: of a picture, checked before it is decoded.
        threads: of one worker; 0 leaves it to torch.
    """

    ckpt: str | None = None
    decoder: str | None = None
    decoder_set: tuple[str, ...] = ()
    sketcher: str = "bundled"
    prompt_from: str | None = None
    device: str = "auto"
    max_pixels: int = 2**24
    threads: int = 0


@dataclass(frozen=True)
class Limits:
    """What one request, one client and all of them may take.

    Attributes:
        max_body: bytes of a request's body.
        max_pixels: of a picture.
        max_candidates: drawn for one request, 1..32.
        body_timeout: seconds in which a body has to arrive.
        write_timeout: seconds in which a client has to take some more of its answer.
        max_wait: seconds in the queue.
        timeout: seconds of work; what takes longer is stopped.
        workers: processes that each hold the models.
        queue: requests that may wait beside those in work.
        max_connections: open at once.
        max_connections_per_client: open at once from one address; 0 is no limit.
        max_per_client: unfinished requests of one address; 0 is no limit.
        grace: seconds that work has to end in when the service is stopped.

    Raises:
        UsageError: a value that cannot work.
    """

    max_body: int = 32 * MIB
    max_pixels: int = 2**24
    max_candidates: int = 16
    body_timeout: float = 30
    write_timeout: float = 30
    max_wait: float = 120
    timeout: float = 120
    workers: int = 1
    queue: int = 16
    max_connections: int = 128
    max_connections_per_client: int = 64
    max_per_client: int = 8
    grace: float = 30

    def __post_init__(self) -> None:
        least = {
            "queue": 0,
            "max_connections_per_client": 0,
            "max_per_client": 0,
            "grace": 0,
            "max_pixels": 256,
        }
        for field in dataclasses.fields(self):
            value, low = getattr(self, field.name), least.get(field.name, 1)
            # `not >=` refuses NaN too.
            if field.type == "float" and field.name != "grace":
                if not 0 < value < float("inf"):
                    raise UsageError(f"{_flag(field.name)} {value:g}: must be above 0")
            elif not low <= value < float("inf"):
                raise UsageError(f"{_flag(field.name)} {value:g}: must be at least {low}")
        if self.max_candidates > 32:
            raise UsageError(f"--max-candidates {self.max_candidates}: must be 1 to 32")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
