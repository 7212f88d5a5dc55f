"""One Ray cluster out of a few Macs and a Linux box, every node built from one lock."""

__version__ = "0.1.0"
