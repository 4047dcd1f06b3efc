"""picsnet: text and sketch image coding for ultra-low rates (after arXiv 2307.01944)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from picsnet.pics import PICS

__all__ = ["PICS", "__version__"]
__version__ = "0.1.0"

# compressai imports torch_geometric, which scripts a class as it is imported. Nobody who codes a
# picture can mend that.
warnings.filterwarnings(
    "ignore", message="`torch.jit.script` is deprecated", category=FutureWarning
)


def __getattr__(name: str) -> Any:
    """`picsnet.PICS`, whose module brings torch, only where it is asked for."""
    if name == "PICS":
        from picsnet.pics import PICS

        return PICS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
