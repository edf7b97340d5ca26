"""What the guard says: a log beside the experiment, lines on a terminal, or JSON lines for machines."""

from __future__ import annotations

import json
import logging
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

LOG_FILE = Path("xbat-guard.log")
_LOG_BYTES, _LOGS_KEPT = 5_000_000, 2
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

logger = logging.getLogger(__name__)


def log_to(path: Path) -> None:
    """Append everything from INFO on to `path`; old logs are kept up to 15 MB. A file that cannot be written is left out."""
    try:
        handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOGS_KEPT)
    except OSError as error:
        logger.error("no log file: %s", error)
        return
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


class Teller:
    """Tells events, each to the log and, where there is one, to a stream.

    Parameters
    ----------
    stream
        Gets a line per event; None: only the log.
    as_json
        One JSON object per line: ``time``, ``event``, ``text`` and the event's values, named with their units.
    """

    def __init__(self, stream: TextIO | None = None, *, as_json: bool = False) -> None:
        self._stream, self._as_json = stream, as_json
        self._told: dict[str, str] = {}

    def tell(self, event: str, text: str, *, level: int = logging.INFO, **values: Any) -> None:
        """Tell an event with its values."""
        logger.log(level, "%s", text)
        if self._stream is None:
            return
        if self._as_json:
            line = json.dumps({"time": round(time.time(), 3), "event": event, "text": text, **values})
        else:
            mark = {logging.WARNING: "warning: ", logging.ERROR: "ERROR: ", logging.CRITICAL: "ALARM: "}.get(level, "")
            line = f"{time.strftime('%H:%M:%S')}  {mark}{text}"
        try:
            print(line, file=self._stream, flush=True)
        except (OSError, ValueError):  # the terminal is gone; the guard is not
            self._stream = None

    def once(self, subject: str, event: str, text: str, *, level: int = logging.WARNING, **values: Any) -> None:
        """Tell the state of a subject when it has changed."""
        if self._told.get(subject) != event:
            self._told[subject] = event
            self.tell(event, text, level=level, **values)

    def forget(self, subject: str) -> bool:
        """Forget the state of a subject; return True when there was one."""
        return self._told.pop(subject, None) is not None


def standard_output() -> TextIO | None:
    """Return standard output when somebody looks at it."""
    return sys.stdout if sys.stdout is not None and sys.stdout.isatty() else None
