"""The checks the other tests rely on find what is wrong; damaged exports are named."""

import h5py
import numpy as np
import pytest
from exchange_runs import spectral_run
from nexus_definitions import NXTOMO, violations

from xbat_live.exchange.errors import ExchangeError
from xbat_live.exchange.record import VERSION, pack, read_record, unpack, write_record
from xbat_live.exchange.reimport import exported_run


@pytest.fixture
def tomo(tmp_path):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        for path, kind in (
            ("entry", "NXentry"),
            ("entry/instrument", "NXinstrument"),
            ("entry/instrument/detector", "NXdetector"),
            ("entry/sample", "NXsample"),
            ("entry/data", "NXdata"),
        ):
            file.create_group(path).attrs["NX_class"] = kind
        entry = file["entry"]
        entry["definition"] = "NXtomo"
        entry["sample/name"] = "cell"
        entry["sample/rotation_angle"] = np.zeros(3)
        entry["sample/rotation_angle"].attrs["units"] = "deg"
        entry["instrument/detector/data"] = np.zeros((3, 4, 5), "u2")
        entry["instrument/detector/image_key"] = [2, 1, 0]
        for name, target in (("data", "instrument/detector/data"), ("image_key", "instrument/detector/image_key")):
            entry[f"data/{name}"] = entry[target]
        entry["data/rotation_angle"] = entry["sample/rotation_angle"]
        yield file


def test_the_structural_check_accepts_what_conforms(tomo):
    assert violations(tomo["entry"], NXTOMO) == []


@pytest.mark.parametrize(
    "path", ["definition", "sample/name", "sample/rotation_angle", "instrument/detector/image_key", "data"]
)
def test_the_structural_check_misses_nothing_that_is_missing(tomo, path):
    del tomo["entry"][path]
    assert any("missing" in told for told in violations(tomo["entry"], NXTOMO))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda e: e["sample/rotation_angle"].attrs.__setitem__("units", "s"), "unit 's'"),
        (lambda e: e.attrs.__setitem__("NX_class", "NXdata"), "NX_class is not NXentry"),
        (lambda e: (e.__delitem__("definition"), e.__setitem__("definition", "NXxas")), "'NXxas', expected"),
        (
            lambda e: (
                e["instrument/detector"].__delitem__("image_key"),
                e["instrument/detector"].__setitem__("image_key", [0, 1]),
            ),
            "nFrames is 2, elsewhere 3",
        ),
    ],
)
def test_the_structural_check_sees_what_is_wrong(tomo, change, told):
    change(tomo["entry"])
    assert any(told in line for line in violations(tomo["entry"], NXTOMO))


def test_a_record_survives_both_ways_of_writing(tmp_path):
    run = spectral_run(tmp_path)
    places = {"primary": (["/a"] * 12, list(range(12)))}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write_record(file.create_group("bluesky"), run.record, places)
        from_hdf5 = read_record(file["bluesky"])
    for record, found in (from_hdf5, unpack(pack(run.record, places), "test")):
        assert (record.start, record.stop, found) == (run.record.start, run.record.stop, places)
        for stream in run.record.streams:
            again = record.stream(stream.name)
            assert again.descriptor == stream.descriptor
            assert again.image_key == stream.image_key
            for name, values in stream.columns.items():
                assert again.columns[name].dtype == values.dtype
                np.testing.assert_array_equal(again.columns[name], values)


def test_a_record_of_a_later_version_is_refused(tmp_path):
    run = spectral_run(tmp_path)
    with h5py.File(tmp_path / "later.nxs", "w") as file:
        write_record(file.create_group("entry/bluesky"), run.record, {})
        file["entry/bluesky"].attrs["version"] = VERSION + 1
    with pytest.raises(ExchangeError, match=r"later\.nxs: record of version 2, this xbat_live reads version 1"):
        exported_run(tmp_path / "later.nxs")


def test_a_damaged_record_is_refused(tmp_path):
    run = spectral_run(tmp_path)
    with h5py.File(tmp_path / "bad.nxs", "w") as file:
        write_record(file.create_group("entry/bluesky"), run.record, {})
        del file["entry/bluesky/start"]
    with pytest.raises(ExchangeError, match=r"bad\.nxs: the record of the run is damaged"):
        exported_run(tmp_path / "bad.nxs")
    with pytest.raises(ExchangeError, match="record of the run is damaged"):
        unpack(pack(run.record, {})[:200], "run.zarr")
