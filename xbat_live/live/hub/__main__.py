"""``python -m xbat_live.live.hub FD FOLDER``: the hub as the child of a run; ends when its standard input does."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from xbat_live.live.hub.serving import serve


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("fd", type=int, help="listening socket")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--feed", type=Path)
    parser.add_argument("--origin", action="append", default=[])
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the run ends, and then its hub
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    with socket.socket(fileno=options.fd) as listening:
        serve(listening, options.folder, feed=options.feed, origins=options.origin, ready=_say_ready)


def _say_ready() -> None:
    with contextlib.suppress(OSError):
        sys.stdout.write("ready\n")
        sys.stdout.flush()


def _end_with_stdin() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


main()
