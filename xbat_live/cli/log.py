"""Logging of the command: short on the terminal, everything with tracebacks in a file beside the experiment."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

_LOUD = ("bluesky", "ophyd", "caproto", "databroker", "tiled", "httpx")


def to_terminal(verbose: bool) -> None:
    """Show errors of this package on standard error; with `verbose` everything from INFO on, of all packages."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO if verbose else logging.ERROR)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    if not verbose:
        # Their tracebacks tell an operator nothing that the command's own last line does not; the file has them.
        handler.addFilter(lambda record: not record.name.startswith(_LOUD))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    # pyepics prints each reading that came late; what follows from it has an error of its own
    warnings.filterwarnings("ignore", message=r"ca\.get\(.* timed out", category=UserWarning)


def to_file(path: Path) -> None:
    """Append everything from INFO on to `path`; a file that cannot be written is told and left out."""
    try:
        handler = logging.FileHandler(path)
    except OSError as error:
        logging.getLogger(__name__).error("no log file: %s", error)
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
