"""The live page beside a run: hub and feed, and the checklist of what is starting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xbat_live.cli.display import Display
from xbat_live.config import LiveSection

if TYPE_CHECKING:
    from xbat_live.live.feed import LiveFeed


GUARD_DETAIL = "counts every opening of the shutter"
TILED_DETAIL = "archive of documents"


class Checklist:
    """What is starting, on the page; on none when there is no feed."""

    def __init__(self, feed: LiveFeed | None) -> None:
        self._feed = feed
        self._items: dict[str, dict[str, str]] = {}

    def tell(self, name: str, state: str, detail: str = "") -> None:
        """Say that something is ``starting``, ``ok``, ``off`` or has ``failed``."""
        self._items[name] = {"name": name, "state": state, "detail": detail}
        if self._feed is not None:
            self._feed.show(services=list(self._items.values()))


@contextmanager
def live_page(section: LiveSection, display: Display, *, name: str = "") -> Iterator[LiveFeed | None]:
    """Serve the live page while the context lasts; yield what the run tells it with, None when there is none.

    A page that cannot be served costs the run nothing: the reason is told.
    """
    if not section.enabled:
        yield None
        return
    from xbat_live.live.hub.launch import HubProcess
    from xbat_live.live.runtime import RuntimeFolderError, runtime_directory

    try:
        folder = runtime_directory()
        hub = HubProcess(
            folder,
            host=section.host,
            port=section.port,
            feed=folder / f"run-{os.getpid()}.feed",
            origins=section.origins,
            tell=display.say,
        )
    except (OSError, ValueError, RuntimeFolderError) as error:
        display.say(f"no live page: {error}", style="yellow")
        yield None
        return
    with hub:  # starts while this process loads what it needs itself
        from xbat_live.live.feed import LiveFeed

        hub.wait_ready()
        display.say(f"Live page  {hub.url_with_token()}", style="bold")
        if not hub.on_loopback:
            display.say(f"it asks for a token: {folder}/operator.token steers, {folder}/viewer.token only looks")
        with LiveFeed(name=name) as feed:
            yield feed
