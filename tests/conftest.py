"""Settings of all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

# Tests must not write the Tiled profiles of whoever runs them. Set before anything imports tiled, which reads it once.
os.environ["TILED_PROFILES"] = tempfile.mkdtemp(prefix="xbat-tiled-profiles-")
atexit.register(shutil.rmtree, os.environ["TILED_PROFILES"], ignore_errors=True)

# What lands is decided on the same examples every time, and not by how busy the machine is; look for new ones with XBAT_HYPOTHESIS=explore.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("XBAT_HYPOTHESIS", "same"))
