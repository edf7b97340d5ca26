"""Dose-aware acquisition and live analysis for operando X-ray imaging of batteries."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("xbat-live")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
