"""The processes that belong to a run: the archive server and the guard, existing ones or started for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from xbat_live.cli.display import Display
from xbat_live.config import ConfigError

if TYPE_CHECKING:
    from xbat_live.archive import TiledServer
    from xbat_live.config import ExperimentConfig
    from xbat_live.watchdog import GuardProcess


@contextmanager
def archive_for(config: ExperimentConfig, display: Display) -> Iterator[ExperimentConfig]:
    """Yield `config` with the address and key of a Tiled server: the one it names, the one that serves its folder, or one started here.

    It is not waited for: documents go to the backup until it answers.
    """
    section = config.archive
    if not section.enabled or section.uri is not None:
        yield config
        return
    from xbat_live.archive import running_uri

    server = archive_server(config, port=free_tcp_port())
    if (uri := running_uri(server.settings.directory)) is not None:
        display.say(f"Tiled serves {section.directory} already at {uri}")
        yield with_archive(config, uri, server.api_key)
        return
    server.start()
    display.say(f"Tiled starts at {server.ui_url}   API key in {server.settings.key_file}")
    try:
        with profile_for(server, section.profile, display):
            yield with_archive(config, server.uri, server.api_key)
        if reason := server.why_ended:
            display.say(reason, style="bold red")
        display.say(f"look at the results later: xbat serve {section.directory}")
    finally:
        server.stop()


def archive_server(config: ExperimentConfig, *, port: int, host: str = "127.0.0.1") -> TiledServer:
    """Return the server of the configured archive, not started; the folders of the frames are made."""
    from xbat_live.archive import TiledServer

    section = config.archive
    frame_folders = sorted({config.path(config.camera.directory), config.optical_directory})
    for folder in frame_folders:
        folder.mkdir(parents=True, exist_ok=True)
    return TiledServer(
        config.path(section.directory),
        port=port,
        host=host,
        readable_storage=frame_folders,
        catalog=section.catalog,
        streaming_cache=section.streaming_cache,
        arrays=None if section.arrays is None else config.path(section.arrays),
    )


@contextmanager
def profile_for(server: TiledServer, name: str, display: Display) -> Iterator[None]:
    """Have the Tiled profile `name` point to `server` for the time being; somebody else's profile is left alone, and said so."""
    from xbat_live.archive import ArchiveError, temporary_profile

    with ExitStack() as stack:
        if name:
            try:
                stack.enter_context(
                    temporary_profile(server.uri, server.api_key, directory=server.settings.directory, name=name)
                )
            except ArchiveError as error:  # a convenience: never a reason not to measure
                display.say(str(error), style="yellow")
        yield


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
