"""Errors that people are meant to read end the command with a message and a documented exit code, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from xbat_live.config import ConfigError

EXIT_RUN_FAILED, EXIT_CONFIG, EXIT_BEAMLINE, EXIT_INTERRUPTED = 1, 2, 3, 130
EXIT_REFUSED, EXIT_USAGE, EXIT_NO_RUN = 1, 2, 3

EXIT_CODES = (
    ("xbat_live.preflight", "PreflightError", EXIT_CONFIG),
    ("xbat_live.forecast", "NoGoError", EXIT_CONFIG),
    ("xbat_live.devices", "BeamlineConnectionError", EXIT_BEAMLINE),
    ("xbat_live.devices", "BeamlineUnitError", EXIT_BEAMLINE),
    ("xbat_live.devices", "ChannelAccessError", EXIT_BEAMLINE),
    ("xbat_live.sim.server", "SimulatorError", EXIT_BEAMLINE),
    ("xbat_live.sim.environment", "PortTakenError", EXIT_BEAMLINE),
    ("xbat_live.dose", "DoseRefused", EXIT_RUN_FAILED),
    ("xbat_live.dose", "LedgerError", EXIT_RUN_FAILED),
    ("xbat_live.archive", "ArchiveError", EXIT_RUN_FAILED),
)
"""Package, class in it, exit code of the command; the first that fits counts."""


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
    """Return the exit code of an error that people are meant to read; None: it is a fault of the program.

    A class can only have been raised by a package that is loaded already: what reports a wrong key need not load Channel Access.
    """
    for package, name, code in EXIT_CODES:
        module = sys.modules.get(package)
        if module is not None and isinstance(error, getattr(module, name, ())):
            return code
    return None


def _leave(error: Exception, code: int) -> None:
    typer.echo(f"xbat: {error}", err=True)
    raise typer.Exit(code)
