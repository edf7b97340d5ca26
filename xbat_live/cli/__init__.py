"""The ``xbat`` command."""
