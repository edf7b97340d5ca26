"""The backstop closes the shutter first and ends the run by RequestStop."""

import pytest
from bluesky import RunEngine
from bluesky.utils import RequestStop

from xbat_live.callbacks import DoseBackstop


def event(dose_gy):
    return {"data": {"point_dose_gy": dose_gy}}


def test_below_the_limit_nothing_happens():
    closed = []
    DoseBackstop(lambda: closed.append(1), limit_gy=100.0).event(event(100.0))
    assert closed == []


def test_above_the_limit_it_closes_and_stops():
    closed = []
    with pytest.raises(RequestStop, match="above the limit"):
        DoseBackstop(lambda: closed.append(1), limit_gy=100.0).event(event(100.1))
    assert closed == [1]


def test_it_ends_a_real_run():
    import bluesky.plan_stubs as bps
    import bluesky.preprocessors as bpp
    from ophyd import Signal

    dose = Signal(name="point_dose_gy", value=0.0)
    taken = []

    @bpp.run_decorator()
    def plan():
        for value in range(10):
            yield from bps.abs_set(dose, float(value), wait=True)
            yield from bps.create()
            yield from bps.read(dose)
            yield from bps.save()
            taken.append(value)

    engine = RunEngine({}, context_managers=[])
    stops = []
    engine.subscribe(DoseBackstop(lambda: None, limit_gy=3.0))
    engine.subscribe(lambda name, doc: stops.append(doc["exit_status"]), "stop")
    engine(plan())
    assert taken[-1] <= 4
    assert stops == ["success"]
