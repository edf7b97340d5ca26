"""Settings of all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# Tests must not write the Tiled profiles of whoever runs them. Set before anything imports tiled, which reads it once.
os.environ["TILED_PROFILES"] = tempfile.mkdtemp(prefix="xbat-tiled-profiles-")
atexit.register(shutil.rmtree, os.environ["TILED_PROFILES"], ignore_errors=True)

# What lands is decided on the same examples every time, and not by how busy the machine is; look for new ones with XBAT_HYPOTHESIS=explore.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("XBAT_HYPOTHESIS", "same"))


class _OneDemoScheduling(LoadFileScheduling):
    """A file's tests run in one process; files that look at the demonstration share one, so that it runs once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        path = self.config.rootpath / file
        return "demonstration" if path.is_file() and "demo_run" in path.read_text() else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Group tests as ``--dist loadfile`` does, and the demonstration's together."""
    return _OneDemoScheduling(config, log) if config.getvalue("dist") == "loadfile" else None
