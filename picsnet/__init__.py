"""picsnet: text and sketch image coding for ultra-low rates (after arXiv 2307.01944)."""

__version__ = "0.1.0"
