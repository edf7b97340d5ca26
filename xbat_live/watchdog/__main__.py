"""``python -m xbat_live.watchdog FILE.guard.json``: the guard process that `start_guard` starts."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from xbat_live.watchdog.config_file import read_config
from xbat_live.watchdog.process import run_guard


def main() -> int:
    """Run the guard with the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m xbat_live.watchdog", description=__doc__)
    parser.add_argument("file", type=Path, help="file that start_guard wrote")
    parser.add_argument("--parent", type=int, help="pid of the process whose end it waits for")
    parser.add_argument("--ready-fd", type=int, help="file descriptor that gets a line when it watches")
    options = parser.parse_args()
    return run_guard(read_config(options.file), parent_pid=options.parent, ready_fd=options.ready_fd)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # everything is closed; taking libca down in order would take longer than a run waits for its guard
