"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# What lands is decided on the same examples every time; look for new ones with XBAT_HYPOTHESIS=explore.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", max_examples=1000)
settings.load_profile(os.environ.get("XBAT_HYPOTHESIS", "same"))
