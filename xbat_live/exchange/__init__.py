"""Runs out of the archive into files that other programs read, and files into the archive as runs.

Submodules are imported where they are used: ``exchange.export``, ``exchange.importing``, ``exchange.scan_script``.
"""
