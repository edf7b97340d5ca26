"""What is wrong with a configuration."""

from __future__ import annotations


class ConfigError(Exception):
    """A configuration that cannot be used; the message names file, key, value, unit and remedy."""
