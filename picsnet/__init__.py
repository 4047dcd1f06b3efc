"""picsnet: text and sketch image coding for ultra-low rates (after arXiv 2307.01944)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from picsnet.pics import PICS

__all__ = ["PICS", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`picsnet.PICS`, whose module brings torch, only where it is asked for."""
    if name == "PICS":
        from picsnet.pics import PICS

        return PICS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
