"""The archive server that belongs to a run: an existing one, or one started for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from xbat_live.cli.display import Display
from xbat_live.config import ExperimentConfig


@contextmanager
def archive_for(config: ExperimentConfig, display: Display) -> Iterator[ExperimentConfig]:
    """Yield `config` with the address and key of a Tiled server; start one when the configuration names none."""
    section = config.archive
    if not section.enabled or section.uri is not None:
        yield config
        return
    from xbat_live.archive import TiledServer

    frame_folder = config.path(config.camera.directory)
    frame_folder.mkdir(parents=True, exist_ok=True)
    server = TiledServer(config.path(section.directory), port=free_tcp_port(), readable_storage=[frame_folder])
    display.say(f"Tiled starts at {server.ui_url}   API key in {server.settings.key_file}")
    with server:
        yield with_archive(config, server.uri, server.api_key)
        display.say(f"look at the results later: xbat serve {section.directory}")


def free_tcp_port() -> int:
    """Return a TCP port that nobody listens on at 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def with_archive(config: ExperimentConfig, uri: str, api_key: str) -> ExperimentConfig:
    """Return `config` with the archive at `uri`."""
    return config.model_copy(update={"archive": config.archive.model_copy(update={"uri": uri, "api_key": api_key})})
