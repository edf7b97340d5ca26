"""Errors that people are meant to read end the command with a message and a documented exit code, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from xbat_live.config import ConfigError

EXIT_RUN_FAILED, EXIT_CONFIG, EXIT_BEAMLINE, EXIT_INTERRUPTED = 1, 2, 3, 130
EXIT_REFUSED, EXIT_USAGE, EXIT_NO_RUN = 1, 2, 3


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn known errors into a message on standard error and an exit code."""
    try:
        yield
    except ConfigError as error:
        _leave(error, EXIT_CONFIG)
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
        _leave(error, code)


def _code(error: Exception) -> int | None:
    # Imported here: these modules load Channel Access and bluesky, which `xbat config` has no use for.
    from xbat_live.archive import ArchiveError
    from xbat_live.devices import BeamlineConnectionError, BeamlineUnitError, ChannelAccessError
    from xbat_live.dose import DoseRefused, LedgerError
    from xbat_live.forecast import NoGoError
    from xbat_live.preflight import PreflightError
    from xbat_live.sim.environment import PortTakenError
    from xbat_live.sim.server import SimulatorError

    if isinstance(error, PreflightError | NoGoError):
        return EXIT_CONFIG
    if isinstance(
        error, BeamlineConnectionError | BeamlineUnitError | ChannelAccessError | SimulatorError | PortTakenError
    ):
        return EXIT_BEAMLINE
    if isinstance(error, DoseRefused | LedgerError | ArchiveError):
        return EXIT_RUN_FAILED
    return None


def _leave(error: Exception, code: int) -> None:
    typer.echo(f"xbat: {error}", err=True)
    raise typer.Exit(code)
