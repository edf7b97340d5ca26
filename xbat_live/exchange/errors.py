"""What goes wrong between archives and files."""

from __future__ import annotations

from xbat_live.archive.settings import ArchiveError
from xbat_live.config import ConfigError


class ExchangeError(ArchiveError):
    """An export or an import that failed; the message names file, reason and remedy. What was there before is as it was."""


class TargetError(ConfigError):
    """A place that cannot be written, found before any work is done."""
