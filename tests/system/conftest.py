"""One demonstration run for all tests that look at its results; every service is started here, on loopback, with own ports."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xbat_process import xbat

DEMO_SECONDS = 30


@dataclass(frozen=True)
class DemoRun:
    """What the demonstration left behind."""

    folder: Path
    result: dict[str, Any]
    exit_code: int
    output: str

    @property
    def truth(self) -> list[dict[str, Any]]:
        """The twin's truth of every frame of the sample, in the order taken."""
        lines = (self.folder / "twin" / "truth.jsonl").read_text().splitlines()
        return [frame for frame in map(json.loads, lines) if frame["frame_type"] == "Normal"]

    @property
    def true_dose_gy(self) -> np.ndarray:
        """The twin's own dose integral, (ny, nx), Gy."""
        with np.load(self.folder / "twin" / "truth_dose.npz") as truth:
            return truth["dose_gy"]

    @property
    def frame_file(self) -> Path:
        (file,) = (self.folder / "frames").glob("*.h5")
        return file


@pytest.fixture(autouse=True, scope="module")
def connections_let_go() -> Iterator[None]:
    """Examples of the documentation leave their clients to the collector; its warnings are not those of the test that comes next."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory) -> DemoRun:
    """`xbat demo --seconds N --json`, run once."""
    directory = tmp_path_factory.mktemp("demo")
    process = xbat("demo", "--seconds", str(DEMO_SECONDS), "--json", "--directory", str(directory))
    try:
        output, errors = process.communicate(timeout=DEMO_SECONDS + 120)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    result = json.loads(output.splitlines()[-1])
    return DemoRun(Path(result["directory"]), result, process.returncode, errors)


@pytest.fixture(scope="session")
def demo_client(demo_run):
    """The demonstration's archive served again, as an analyst would the next day."""
    from tiled.client import from_uri

    from xbat_live.archive import TiledServer

    with TiledServer(demo_run.folder / "archive", readable_storage=[demo_run.folder / "frames"]) as server:
        server.wait_ready(timeout_s=90)
        client = from_uri(server.uri, api_key=server.api_key)
        yield client
        client.context.close()
