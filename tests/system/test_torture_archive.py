"""A few kills of `make torture-archive`, so that the torture itself cannot rot."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # importlib mode does not
import torture_archive

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(300)]

KILLS, SEED = 3, 1


def test_every_document_and_frame_is_there_once(tmp_path):
    chance, back_at_once = random.Random(SEED), []
    for _ in range(KILLS):
        chance.uniform(0.0, 3.5)
        back_at_once.append(chance.random() < 0.5)
    assert set(back_at_once) == {True, False}, "this seed has both: the writer mends one kind, repair the other"
    told = []
    torture_archive.torture(KILLS, SEED, tmp_path, told.append)
    assert [line.partition(" ")[0] for line in told] == [f"{number}/{KILLS}" for number in range(1, KILLS + 1)]
