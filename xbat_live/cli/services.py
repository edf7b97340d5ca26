"""The processes that belong to a run: the archive server and the guard, existing ones or started for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xbat_live.cli.display import Display
from xbat_live.config import ConfigError, ExperimentConfig

if TYPE_CHECKING:
    from xbat_live.watchdog import GuardProcess


@contextmanager
def archive_for(config: ExperimentConfig, display: Display) -> Iterator[ExperimentConfig]:
    """Yield `config` with the address and key of a Tiled server; start one when the configuration names none."""
    section = config.archive
    if not section.enabled or section.uri is not None:
        yield config
        return
    from xbat_live.archive import TiledServer

    frame_folders = sorted({config.path(config.camera.directory), config.optical_directory})
    for folder in frame_folders:
        folder.mkdir(parents=True, exist_ok=True)
    server = TiledServer(config.path(section.directory), port=free_tcp_port(), readable_storage=frame_folders)
    display.say(f"Tiled starts at {server.ui_url}   API key in {server.settings.key_file}")
    with server:
        yield with_archive(config, server.uri, server.api_key)
        display.say(f"look at the results later: xbat serve {section.directory}")


@contextmanager
def watched(config: ExperimentConfig) -> Iterator[GuardProcess | None]:
    """Have a guard process watch the shutter; it outlives this one, however that ends. None: switched off.

    It takes a second or two to start: begin this early, and wait for it (`tell_guard`) just before the beam is used.

    Raises
    ------
    ConfigError
        It cannot be started.
    """
    if not config.watchdog.enabled:
        yield None
        return
    from xbat_live.watchdog import start_guard

    try:
        guard = start_guard(config)
    except OSError as error:
        raise ConfigError(
            f"the guard process cannot be started: {error}; watchdog.enabled = false runs without it"
        ) from error
    with guard:
        yield guard


def tell_guard(guard: GuardProcess | None, display: Display) -> None:
    """Wait until the guard watches, and say so when it does not: the shutter's own MaxOpen is then all there is."""
    if guard is not None and not guard.wait_ready():
        display.say(f"no guard process watches the shutter: {guard.note or 'it did not answer'}", style="bold red")


def free_tcp_port() -> int:
    """Return a TCP port that nobody listens on at 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def with_archive(config: ExperimentConfig, uri: str, api_key: str) -> ExperimentConfig:
    """Return `config` with the archive at `uri`."""
    return config.model_copy(update={"archive": config.archive.model_copy(update={"uri": uri, "api_key": api_key})})
