"""databroker over the archive: the catalog that the profile makes known, and the interface of old; the how-to page is what runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bluesky import RunEngine
from ophyd.sim import motor

sys.path.append(str(Path(__file__).parent))  # importlib mode does not
from archive_fixtures import (
    FileCamera,
    client,
    frame_plan,
    frames_directory,
    frames_of_events,
    tiled_server,
)

from xbat_live.archive import ArchiveError, ArchiveWriter, broker

__all__ = ["client", "frames_directory", "tiled_server"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "use-databroker.md"
SEQUENCE = ["flat", "primary", "primary!", "primary", "primary"]

TOLD = """
import json
import numpy as np
print("TOLD", json.dumps({
    "profiles": list(databroker.catalog),
    "uid": header.uid,
    "scan": db[header.start["scan_id"]].uid,
    "short": db[header.uid[:8]].uid,
    "streams": sorted(header.stream_names),
    "seq_num": table.index.tolist(),
    "motor": table["motor"].tolist(),
    "frames": np.squeeze(np.stack(frames)).astype(int).sum(axis=(1, 2)).tolist(),
    "of_sample": of_sample,
    "documents": [name for name, _ in documents].count("event"),
}))
"""


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "databroker", None)
    with pytest.raises(ArchiveError, match=r"install it: pip install 'xbat-live\[databroker\]'"):
        broker(object())


@pytest.mark.long
def test_the_page_works_with_the_profile_alone(tiled_server, client, frames_directory, tmp_path, monkeypatch):
    pytest.importorskip("databroker", reason="the extra is not installed: pip install 'xbat-live[databroker]'")
    from xbat_live.archive import install_profile

    camera = FileCamera(frames_directory, name="camera")
    writer = ArchiveWriter(tiled_server.uri, tiled_server.api_key, backup_directory=tmp_path)
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    md = {"sample": "cell-of-databroker", "scan_id": 77001}
    (uid,) = engine(frame_plan(camera, SEQUENCE, readables=[motor], md=md))
    assert writer.close(timeout_s=60).complete
    if "analyses" not in client:
        client.create_container(key="analyses")  # stands in the catalog of every archive and is no run

    import tiled.profiles

    monkeypatch.setattr(tiled.profiles, "paths", [tmp_path])
    install_profile(tiled_server.uri, tiled_server.api_key, directory=tmp_path)
    tiled.profiles.load_profiles.cache_clear()
    script = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)) + TOLD
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TILED_PROFILES": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.partition("TOLD")[2])
    assert told["profiles"] == ["xbat"]
    assert [told["uid"], told["scan"], told["short"]] == [uid, uid, uid]
    assert told["of_sample"] == [uid]
    assert told["streams"] == ["flat", "primary"]
    assert told["seq_num"] == [1, 2, 3]
    assert told["motor"] == [0, 0, 0]
    expected = frames_of_events(camera.path, SEQUENCE, "primary").astype(int)
    assert told["frames"] == expected.sum(axis=(1, 2)).tolist(), "of the Events, not the orphan"
    assert told["documents"] == 4
