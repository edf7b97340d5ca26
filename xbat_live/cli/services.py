"""The archive server that belongs to a run: an existing one, or one started for it."""

from __future__ import annotations

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

    directory = config.path(section.directory)
    with TiledServer(directory, readable_storage=[config.path(config.camera.directory)]) as server:
        display.say(f"Tiled starts at {server.ui_url}")
        server.wait_ready(timeout_s=90)
        yield with_archive(config, server.uri, server.api_key)
        display.say(f"look at the results later: xbat serve {section.directory}")


def with_archive(config: ExperimentConfig, uri: str, api_key: str) -> ExperimentConfig:
    """Return `config` with the archive at `uri`."""
    return config.model_copy(update={"archive": config.archive.model_copy(update={"uri": uri, "api_key": api_key})})
