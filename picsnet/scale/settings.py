"""What the file of a picture depends on beside the picture."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from picsnet import __version__, shipped
from picsnet.stamps import forget
from picsnet.weights import stamp_weights


@dataclass(frozen=True)
class EncodeSettings:
    """How pictures are coded, by names and numbers; None is what suits model and decoder.

    Attributes:
        mode: "sketch", "pics" or "pic".
        ckpt, quality, effort: sketch model, and how it codes (`picsnet.codec.SketchCodec`).
        sketcher: of the edges; "map" where inputs are maps already (mode "sketch").
        decoder, decoder_set: as `picsnet.pics.PICS.from_pretrained` takes them.
        prompt_from, candidates, judge, clip, captioner: likewise.
        tokens, inversion_steps, restarts, seed: of `picsnet.prompt.inversion.InversionConfig`.
    """

    mode: str = "sketch"
    ckpt: str = shipped.DEFAULT
    quality: float | None = None
    effort: int = 0
    sketcher: str = "bundled"
    decoder: str | None = None
    decoder_set: tuple[str, ...] = ()
    prompt_from: str | None = None
    candidates: int | None = None
    judge: str | None = None
    clip: str | None = None
    captioner: str | None = None
    tokens: int | None = None
    inversion_steps: int | None = None
    restarts: int | None = None
    seed: int | None = None

    def resolved(self) -> EncodeSettings:
        """With the decoder's name where this machine would choose one."""
        if self.mode == "sketch" or self.decoder is not None:
            return self
        from picsnet.decoder.choice import default_decoder

        return replace(self, decoder=default_decoder())

    @property
    def inversion(self) -> dict[str, int]:
        """What is set of the inversion, by the names of its configuration."""
        given = {
            "tokens": self.tokens,
            "steps": self.inversion_steps,
            "restarts": self.restarts,
            "seed": self.seed,
        }
        return {key: value for key, value in given.items() if value is not None}

    def digest(self) -> str:
        """Of all settings, picsnet's version and the local weights they name: 16 hex digits.

        Made once a run, by one process: another machine may have its weights at other times.

        Raises:
            ConfigError: there is no such decoder.
        """
        forget()
        names = [self.ckpt, self.clip, self.captioner]
        files = stamp_weights(names, self.sketcher, self.decoder)
        depends = {"picsnet": __version__, **asdict(self), "files": files}
        return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]


def content_key(digest: str, data: bytes, prompt: str | None) -> str:
    """Names all that a coded file depends on: two files of one key are alike.

    Args:
        digest: of the settings.
        data: the picture's file.
        prompt: text that is sent; None where it is made.
    """
    key = hashlib.sha256(f"{digest} {json.dumps(prompt)} ".encode())
    key.update(data)
    return key.hexdigest()
