"""The shutter's open-time counter: what a dose ledger relies on."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from xbat_live.sim.iocs.shutter import Shutter


class Worker:
    """Takes what is posted to the twin, and does nothing."""

    def post(self, *_):
        pass


@pytest.mark.parametrize("how", ["timed opening", "watchdog"])
def test_the_counter_never_goes_back_however_late_the_event_loop_is(how):
    """A counter that goes back means a restarted IOC, and all openings of its life would be counted again: `make torture` found it.

    The loop is held up over the end of the opening, and the counter is published before the shutter is closed.
    """

    async def scenario():
        shutter = Shutter("T:", twin=SimpleNamespace(open_shutter=None, close_shutter=None), worker=Worker())
        seen = []
        if how == "watchdog":
            await shutter.max_open.write(0.03)
            await shutter._open()
        else:
            await shutter._open(for_s=0.03)
        time.sleep(0.08)
        await shutter.update()
        seen.append(shutter.open_time.value)
        await asyncio.sleep(0.02)
        assert not shutter.is_open
        seen.append(shutter.open_time.value)
        return seen

    published_s, final_s = asyncio.run(scenario())
    assert 0 < published_s <= final_s == pytest.approx(0.03)
