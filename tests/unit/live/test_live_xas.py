"""Energy sweeps for those who watch: what the stream ``xas`` says, and the maps beside the frames, from real files and documents."""

from __future__ import annotations

import base64
import json

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import live_fixtures
import numpy as np
import pytest
from live_fixtures import until
from pretend_run import PretendRun
from pretend_sweeps import cube, maps_of

from xbat_live.callbacks.xas_products import XasProducts
from xbat_live.devices.cube_records import XasRecord
from xbat_live.engine import make_run_engine
from xbat_live.live.model import RunModel
from xbat_live.live.store import LiveStore
from xbat_live.live.terminal import line
from xbat_live.live.xas_maps import LARGEST_PX, XasMaps, thumbnail

feed, folder = live_fixtures.feed, live_fixtures.folder


def test_every_cube_is_a_row_and_the_last_one_a_value():
    run, store = PretendRun(), LiveStore()
    model = RunModel(store)
    for name, doc in run.begin():
        model.take(name, doc)
    for data in (cube(1), cube(2, threshold_gy=21e6)):
        model.take(*run.event("xas", data))
    columns = store.columns["xas"]
    rows = [dict(zip(columns, row, strict=True)) for row in store.series["xas"].rows]
    assert [(row["n"], row["threshold_gy"], row["alarm"]) for row in rows] == [(1, None, ""), (2, 21e6, "threshold")]
    assert store.state["xas"]["low_fractions"] == [0.8, 0.2]
    assert store.state["xas"]["threshold_high_gy"] == pytest.approx(27.3e6)
    assert line(store, run.t0)


def test_an_event_that_says_less_is_no_trouble():
    run, store = PretendRun(), LiveStore()
    model = RunModel(store)
    for name, doc in (*run.begin(), run.event("xas", {"xas_number": 3, "xas_low_fractions": "nonsense"})):
        model.take(name, doc)
    assert store.state["xas"]["n"] == 3
    assert store.state["xas"]["low_fractions"] == []


def test_maps_and_curve_come_from_the_file_that_the_documents_name(folder, feed, tmp_path):
    shower, products = maps_of(tmp_path, PretendRun(), feed, cube(1), cube(2))
    until(lambda: (feed.store.state.get("xas_maps") or {}).get("number") == 2)
    shown = feed.store.state["xas_maps"]
    assert [item["name"] for item in shown["maps"]] == ["fractions 1", "fractions 2", "edge_ev"]
    assert len(shown["curves"]["dose_gy"]) == len(shown["curves"]["edge_ev"]) == 20  # padding is left out
    edge = shown["maps"][2]
    levels = np.frombuffer(base64.b64decode(edge["levels"]), np.uint8).reshape(edge["ny"], edge["nx"])
    assert edge["unit"] == "eV"
    assert 8346.0 <= edge["low"] < edge["high"] <= 8347.0  # of the second cube
    assert (levels[:10] == 0).all()  # what is not known has no colour
    assert levels[20, 5:35].tolist() == sorted(levels[20, 5:35])
    json.dumps(shown)
    shower.close()
    products.close()


def test_a_file_that_is_gone_costs_the_pictures_only(folder, feed, tmp_path, caplog):
    shower, products = maps_of(tmp_path, PretendRun(), feed, cube(1))
    until(lambda: feed.store.state.get("xas_maps"))
    shower._datasets = {
        uid: type(item)(item.key, tmp_path / "gone.h5", item.name) for uid, item in shower._datasets.items()
    }
    uid = next(iter(shower._datasets))
    shower("stream_datum", {"stream_resource": uid, "indices": {"start": 1, "stop": 2}})
    shower(*PretendRun().event("xas", cube(2)))
    shower("event", {"nonsense": True})
    until(lambda: sum("cannot be shown" in record.message for record in caplog.records) == 2)
    shower.close()
    products.close()


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((8, 9), (8, 9)), ((96, 50), (96, 50)), ((97, 50), (48, 25)), ((512, 2048), (23, 93)), ((1, 1), (1, 1))],
)
def test_a_picture_is_never_larger_than_a_thumb(shape, shown):
    made = thumbnail("edge_ev", np.random.default_rng(1).random(shape), "eV")
    assert (made["ny"], made["nx"]) == shown
    assert max(shown) <= LARGEST_PX
    assert len(base64.b64decode(made["levels"])) == made["ny"] * made["nx"]


@pytest.mark.parametrize(("value", "made"), [(np.nan, False), (np.inf, False), (0.0, True)])
def test_a_map_of_one_value_or_none(value, made):
    assert (thumbnail("r_factor", np.full((5, 5), value), "") is not None) == made


def test_by_the_documents_of_a_real_run_engine(feed, tmp_path):
    """As `operando_ffi_xas` records a result: whatever order bluesky gives the documents, the maps of this Event are shown."""
    record, products, shower = XasRecord(name="xas"), XasProducts(tmp_path), XasMaps(feed)
    run_engine = make_run_engine()
    run_engine.subscribe(feed)
    run_engine.subscribe(shower)

    @bpp.run_decorator()
    def results():
        for number in (1, 2):
            row = products.write({"edge_ev": np.full((6, 8), 8345.0 + number), "curve_dose_gy": np.arange(3.0)})
            record.fill(number=number, threshold_gy=21e6 * number, alarm="threshold")
            yield from bps.create(name="xas")
            yield from bps.read(record)
            yield from bps.read(products.select(row))
            yield from bps.save()
            yield from bps.sleep(0.01)

    run_engine(results())
    until(lambda: (feed.store.state.get("xas_maps") or {}).get("number") == 2)
    assert feed.store.state["xas_maps"]["maps"][0]["low"] == 8347.0
    assert feed.store.state["xas"]["threshold_gy"] == 42e6
    shower.close()
    products.close()
