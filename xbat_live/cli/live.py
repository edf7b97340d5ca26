"""The live page beside a run: hub and feed, and the checklist of what is starting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xbat_live.cli.display import Display
from xbat_live.live.following import SUFFIX
from xbat_live.live.runtime import RuntimeFolderError, runtime_directory

if TYPE_CHECKING:
    from xbat_live.config import LiveSection
    from xbat_live.live.feed import LiveFeed
    from xbat_live.live.hub.launch import HubProcess


GUARD_DETAIL = "counts every opening of the shutter"
TILED_DETAIL = "archive of documents"


class Checklist:
    """What is starting, for those who watch."""

    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed
        self._items: dict[str, dict[str, str]] = {}

    def tell(self, name: str, state: str, detail: str = "") -> None:
        """Say that something is ``starting``, ``ok``, ``off`` or has ``failed``."""
        self._items[name] = {"name": name, "state": state, "detail": detail}
        self._feed.show(services=list(self._items.values()))


@contextmanager
def live_page(section: LiveSection, display: Display, *, name: str = "") -> Iterator[LiveFeed]:
    """Serve the live page while the context lasts, if it is wanted; yield what the run tells those who watch with.

    A page that cannot be served costs the run nothing: the reason is told.
    """
    path: Path | None = None
    hub: HubProcess | None = None
    try:
        folder = runtime_directory()
        path = folder / f"run-{os.getpid()}{SUFFIX}"
        if section.enabled:
            from xbat_live.live.hub.launch import HubProcess

            hub = HubProcess(
                folder,
                host=section.host,
                port=section.port,
                feed=path,
                origins=section.origins,
                tell=display.say,
            )
    except (OSError, ValueError, RuntimeFolderError) as error:
        display.say(
            f"{'no live page' if section.enabled else 'this run cannot be watched from elsewhere'}: {error}", "yellow"
        )
    with ExitStack() as stack:
        if hub is not None:
            stack.enter_context(hub)  # starts while this process loads what it needs itself
        from xbat_live.live.feed import LiveFeed

        if hub is not None:
            hub.wait_ready()
            display.say(f"Live page  {hub.url_with_token()}", style="bold")
            if not hub.on_loopback:
                display.say(f"it asks for a token: {folder}/operator.token steers, {folder}/viewer.token only looks")
        yield stack.enter_context(LiveFeed(path, name=name))
