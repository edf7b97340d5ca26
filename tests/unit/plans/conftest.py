"""Message tests walk a plan some hundred times over."""

from __future__ import annotations

import traceback
from functools import partial
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def short_stacks(monkeypatch):
    """bluesky formats the whole stack at each call of a stub, for a warning if it is never iterated: a third of the time here."""
    short = SimpleNamespace(**vars(traceback) | {"format_stack": partial(traceback.format_stack, limit=5)})
    monkeypatch.setattr("bluesky.utils.traceback", short)
