"""The short form of ``make torture``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system]
KILLS = 4


@pytest.mark.timeout(240)
def test_the_ledger_holds_what_the_sample_got_whenever_the_run_is_killed():
    """In a process of its own: libca reads its addresses once."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "torture.py"), "--kills", str(KILLS), "--seed", "7"],
        env=os.environ | {"PYTHONPATH": str(here)},
        capture_output=True,
        text=True,
        check=False,
        timeout=220,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    tally = json.loads(done.stdout)
    assert tally["kills"] == KILLS
    assert tally["exposures"] > KILLS  # it did expose
    assert 0.97 <= tally["least_ledger_over_twin"]
    assert tally["peak_over_limit"] <= 1
