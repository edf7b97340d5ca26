"""A simulated beamline, an archive and a session for benchmarks; everything in a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xbat_live.config import ChannelAccess, make_config
from xbat_live.devices import configure_channel_access
from xbat_live.sim.environment import free_port

PORT = free_port()
configure_channel_access(ChannelAccess(port=PORT).environment())  # ophyd reads it once, when it is imported below

from xbat_live.archive import TiledServer  # noqa: E402
from xbat_live.cli.services import free_tcp_port, with_archive  # noqa: E402
from xbat_live.session import Session, open_session  # noqa: E402
from xbat_live.sim.server import SimulatorProcess  # noqa: E402
from xbat_live.sim.settings import TwinSettings  # noqa: E402

CONTENT = {
    "sample": {"name": "benchmark"},
    "beam": {"flux": "1e10 ph/s"},
    "camera": {"exposure": "1 ms", "roi": [185, 173, 654, 678]},
    "dose": {"limit": "100 GGy"},
}


@contextmanager
def session(*, archive: bool = True) -> Iterator[Session]:
    """Yield a session on a simulated beamline of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = CONTENT | {"base_directory": name, "beamline": {"channel_access": {"port": PORT}}}
        config = make_config(content | {"archive": {"enabled": archive}})
        (folder / "frames").mkdir()
        with SimulatorProcess(TwinSettings(), "XBAT:", PORT, folder / "twin"):
            if not archive:
                with open_session(config) as running:
                    yield running
                return
            with TiledServer(folder / "archive", port=free_tcp_port(), readable_storage=[folder / "frames"]) as server:
                with open_session(with_archive(config, server.uri, server.api_key)) as running:
                    yield running
