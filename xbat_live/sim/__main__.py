"""``python -m xbat_live.sim``: serve the simulated beamline until it is told to stop."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from .environment import PortTakenError
from .server import run_simulator
from .settings import TwinSettings


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Instead of ``sys.argv[1:]``.

    Returns
    -------
    int
        Exit code: 0 ended cleanly, 1 a wrong setting or a missing file, 3 the port is taken.
    """
    parser = argparse.ArgumentParser(prog="python -m xbat_live.sim", description=__doc__)
    parser.add_argument("--prefix", default="XBAT:", help="prefix of all PVs (%(default)s)")
    parser.add_argument("--port", type=int, default=26064, help="Channel Access port on 127.0.0.1 (%(default)s)")
    parser.add_argument("--work-directory", type=Path, default=Path("xbat-sim"), help="for truth files (%(default)s)")
    parser.add_argument("--settings", type=Path, help="TOML file of the twin; defaults if not given")
    parser.add_argument("--ready-file", type=Path, help="written once Channel Access answers")
    parser.add_argument("--parent-pid", type=int, help="end when this process is no longer the parent")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = TwinSettings() if options.settings is None else TwinSettings.load(options.settings)
        run_simulator(
            settings,
            prefix=options.prefix,
            port=options.port,
            work_directory=options.work_directory,
            ready_file=options.ready_file,
            parent_pid=options.parent_pid,
        )
    except PortTakenError as error:
        sys.stderr.write(f"error: {error}\n")
        return 3
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
