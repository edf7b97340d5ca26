"""Fixtures of the live view."""

from conftest_live import feed, folder, hub

__all__ = ["feed", "folder", "hub"]
