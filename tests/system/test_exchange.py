"""Export and import against a real Tiled server: what goes out comes back the same; other programs find what they expect."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr
from archive_fixtures import connected, tiled_server  # noqa: F401 - a fixture
from exchange_runs import ABSORPTION, ENERGIES_EV, REJECTED, spectral_run
from nexus_definitions import NXTOMO, NXXAS, NXXASPROC, default_plot, violations, without_units
from scripts import scan_script
from test_docs_commands import blocks, commands
from test_scan_script import TEMPLATE
from typer.testing import CliRunner
from xradia_files import write_xrm

from xbat_live.archive import open_run
from xbat_live.cli.main import app
from xbat_live.exchange.errors import ExchangeError
from xbat_live.exchange.export import export_run
from xbat_live.exchange.foreign import ImportOptions
from xbat_live.exchange.importing import import_run, read_incoming
from xbat_live.exchange.record import record_of
from xbat_live.recordings import read_all

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(300)]

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
NAMES = {"nexus": "run.nxs", "dxchange": "run.h5", "tiff": "run.ome.tif", "zarr": "run.zarr"}


@pytest.fixture(scope="module")
def archive_client(tiled_server):  # noqa: F811
    with connected(tiled_server) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tiled_server):  # noqa: F811
    return tiled_server.settings.readable_storage[0]


@pytest.fixture(scope="module")
def run(archive_client, folder):
    """A run with rejected frames in the archive."""
    done = import_run(archive_client, spectral_run(folder), folder)
    return open_run(archive_client, done.uid)


@pytest.fixture(scope="module")
def exported(run, folder):
    """That run in every format; the files are where the server may read them."""
    out = folder / "exports"
    out.mkdir()
    for form, name in NAMES.items():
        export_run(run, out / name, form)
    return out


def numbers(run, stream):
    return run.frame_stack(stream)[:]


def test_the_commands_of_the_how_to_pages(tiled_server, folder, monkeypatch):  # noqa: F811
    """Every command of both pages in order, and their Python, against a served archive."""
    place = folder / "docs"
    (place / "beamtime").mkdir(parents=True)
    (place / "archive").symlink_to(tiled_server.settings.directory)
    for i in range(2):
        write_xrm(place / "beamtime" / f"cell_08340.0_eV_{i + 1:03}.xrm", np.full((8, 10), 1000 + i, "u2"))
    write_xrm(place / "beamtime" / "ref_08340.0_eV_001.xrm", np.full((8, 10), 4000, "u2"))
    with h5py.File(place / "stack.h5", "w") as file:
        file["measured/images"] = np.ones((2, 8, 10), "f4")
    tifffile.imwrite(place / "flats.tif", np.full((2, 8, 10), 2, "f4"), photometric="minisblack")
    (place / "scan-script.txt").write_text(scan_script([8320.0, 8345.0]))
    (place / "my-cell.toml").write_text(TEMPLATE)
    monkeypatch.chdir(place)
    monkeypatch.setenv("XBAT_ARCHIVE__URI", tiled_server.uri)
    monkeypatch.setenv("XBAT_ARCHIVE__API_KEY", tiled_server.api_key)
    take_in, hand_out = (commands(HOW_TO / f"{name}.md") for name in ("import", "export"))
    first = [take_in[0], *hand_out, ["export", "last", "-o", "run.nxs"], *take_in[1:]]
    for arguments in first:
        if arguments[0] == "run":
            continue  # by test_scan_script_run.py
        done = CliRunner().invoke(app, arguments, env={"NO_COLOR": "1"})
        assert done.exit_code == 0, f"xbat {arguments}: {done.output}"
    for page in ("import", "export"):
        for body in blocks(HOW_TO / f"{page}.md", "python"):
            told: dict = {}
            exec(compile(body, page, "exec"), told)
            if "run" in told:
                told["run"].catalog.context.close()


# --- out and in again -----------------------------------------------------------------------------------------------------------------


def test_what_is_exported_comes_back_as_the_same_run(archive_client, run, exported, folder):
    (incoming,) = read_incoming([exported / NAMES["nexus"]])
    done = import_run(archive_client, incoming, folder)
    again = open_run(archive_client, done.uid)
    assert again.uid != run.uid
    assert again.start["imported"]["run"] == run.uid
    told = {key: value for key, value in again.start.items() if key not in ("uid", "imported")}
    assert told == {key: value for key, value in run.start.items() if key not in ("uid", "imported")}
    assert again.stop["exit_status"] == run.stop["exit_status"]
    assert again.streams == run.streams
    for stream in ("primary", "flat", "dark"):
        np.testing.assert_array_equal(numbers(again, stream), numbers(run, stream), err_msg="frames, bit for bit")
    for stream in run.streams:
        before, after = run.events(stream), again.events(stream)
        moved = [name for name in before if name.startswith("camera_frame_")]
        xr.testing.assert_identical(before.drop(columns=moved).to_xarray(), after.drop(columns=moved).to_xarray())
        assert after.attrs["units"] == before.attrs["units"]
    again.client.validate(fix_errors=False, raise_on_error=True)
    assert done.copied_to is None, "NeXus is read in place"
    assert again.frame_stack("primary").file == exported / NAMES["nexus"]


@pytest.mark.parametrize("form", NAMES)
def test_every_format_holds_the_whole_run(run, exported, form):
    (incoming,) = read_incoming([exported / NAMES[form]])
    record = record_of(run)
    for stream in record.streams:
        found = incoming.record.stream(stream.name)
        assert found.descriptor == stream.descriptor
        assert list(found.columns) == list(stream.columns) or set(found.columns) == set(stream.columns)
        for name, values in stream.columns.items():
            assert found.columns[name].dtype == values.dtype
            np.testing.assert_array_equal(found.columns[name], values, err_msg=f"{stream.name} {name}")
    for stream, frames in incoming.frames.items():
        np.testing.assert_array_equal(list(read_all(frames)), numbers(run, stream), err_msg=stream)


def test_the_same_file_is_not_imported_twice(archive_client, folder, tmp_path):
    write_xrm(tmp_path / "a_08340.0_eV.xrm", np.ones((8, 8), "u2"))
    (incoming,) = read_incoming([tmp_path])
    first = import_run(archive_client, incoming, folder)
    with pytest.raises(ExchangeError, match=f"in the archive already, as run {first.uid}; --again"):
        import_run(archive_client, read_incoming([tmp_path])[0], folder)


# --- what other programs find ---------------------------------------------------------------------------------------------------------


def test_nexus_conforms_to_its_application_definitions(exported):
    with h5py.File(exported / NAMES["nexus"]) as file:
        assert violations(file["entry"], NXTOMO) == []
        assert violations(file["xas"], NXXAS) == []
        assert violations(file["xas_processed"], NXXASPROC) == []
        assert default_plot(file) == file["entry/instrument/detector/data"], "a viewer opens the frames"
        assert without_units(file) == []


def test_nexus_marks_rejected_frames_and_says_what_the_dose_is(run, exported):
    with h5py.File(exported / NAMES["nexus"]) as file:
        entry = file["entry"]
        key = entry["instrument/detector/image_key"][:]
        assert [(key == value).sum() for value in range(4)] == [10, 8, 3, 2]
        primary = entry["live_analysis/stream"].asstr()[:] == "primary"
        assert tuple(np.flatnonzero(key[primary] == 3)) == REJECTED
        assert set(entry["live_analysis/verdict"].asstr()[:][key == 3]) == {"blurred"}
        dose = entry["dose"]
        assert dose.attrs["NX_class"] == "NXcollection"
        assert [dose[name].asstr()[()] for name in ("model", "version", "material")] == ["attenuation", "1", "NMC622"]
        assert "Jousseaume" in dose["reference"].asstr()[()]
        np.testing.assert_array_equal(dose["after_frame"][:][primary], run.events()["point_dose_gy"])
        assert (dose["after_frame"].attrs["units"], dose["limit"][()]) == ("Gy", 1e6)


def test_nexus_spectrum_is_the_absorption_of_the_sample(exported):
    with h5py.File(exported / NAMES["nexus"]) as file:
        np.testing.assert_array_equal(file["xas_processed/data/energy"][:], ENERGIES_EV)
        # 20 000 counts x 768 pixels x 2 frames: 0.02 % each for sample and flat
        np.testing.assert_allclose(file["xas_processed/data/data"][:], ABSORPTION, atol=2e-3)


def test_data_exchange_has_what_tomopy_reads(run, exported):
    frames = numbers(run, "primary")
    good = [i for i in range(len(frames)) if i not in REJECTED]
    with h5py.File(exported / NAMES["dxchange"]) as file:
        np.testing.assert_array_equal(file["exchange/data"][:], frames[good])
        np.testing.assert_array_equal(file["exchange/data_white"][:], numbers(run, "flat"))
        np.testing.assert_array_equal(file["exchange/data_dark"][:], numbers(run, "dark"))
        np.testing.assert_array_equal(file["exchange/theta"][:], run.events()["stage_theta"][good])
        np.testing.assert_array_equal(file["rejected/data"][:], frames[list(REJECTED)])
        assert file["exchange/theta"].attrs["units"] == "deg"
        assert file["exchange/data"].attrs["axes"] == "theta:y:x"
        assert without_units(file) == []


def test_ome_tiff_is_valid_and_has_the_images(run, exported):
    with tifffile.TiffFile(exported / NAMES["tiff"]) as tiff:
        assert tiff.is_ome
        assert [series.name for series in tiff.series] == ["frames", "rejected", "flat", "dark"]
        np.testing.assert_array_equal(tiff.series[1].asarray(), numbers(run, "primary")[list(REJECTED)])
        assert 'PhysicalSizeX="0.0312" PhysicalSizeXUnit="µm"' in tiff.ome_metadata
        assert 'ExposureTime="0.5" ExposureTimeUnit="s"' in tiff.ome_metadata


def test_zarr_opens_with_labels(run, exported):
    with xr.open_zarr(exported / NAMES["zarr"]) as opened:
        np.testing.assert_array_equal(opened["counts"].values, numbers(run, "primary"))
        np.testing.assert_array_equal(opened["energy_ev"].values, np.repeat(ENERGIES_EV, 3))
        assert opened["energy_ev"].attrs["units"] == "eV"
        assert tuple(np.flatnonzero(opened["accepted"].values == 0)) == REJECTED


def test_csv_tables_name_their_units(run, tmp_path):
    export_run(run, tmp_path / "tables", "csv")
    with (tmp_path / "tables" / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert float(rows[0]["energy_ev (eV)"]) == ENERGIES_EV[0]
    assert [row["verdict"] for row in rows].count("blurred") == len(REJECTED)
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        *(f"{name}.csv" for name in (*run.streams, "frames")),
        "run.json",
    }


# --- foreign frames -------------------------------------------------------------------------------------------------------------------


def test_a_stack_of_xrm_files_is_one_run(archive_client, folder, tmp_path):
    rng = np.random.default_rng(2)
    images = {}
    minute = 0
    for energy in (8324.0, 8354.0):
        for kind, repeats, exposure, x in (("ref_", 2, 0.3, 8322.0), ("", 3, 0.5, -5178.0)):
            for i in range(repeats):
                minute += 1
                name = f"rep01_{kind}cell_{energy:07.1f}_eV_{i + 1:03}of{repeats:03}.xrm"
                images[kind, energy, i] = rng.integers(100, 4000, (16, 20), dtype="u2")
                write_xrm(
                    tmp_path / name,
                    images[kind, energy, i],
                    exposure_s=exposure,
                    position_um=(x, 5217.0, 3552.0),
                    dates=(f"05/29/16 15:{minute:02}:00",),
                )
    (incoming,) = read_incoming([tmp_path], ImportOptions(sample="NCA"))
    run = open_run(archive_client, import_run(archive_client, incoming, folder).uid)
    frames = run.frames()
    np.testing.assert_array_equal(frames.energy_ev, np.repeat([8324.0, 8354.0], 3))
    np.testing.assert_array_equal(frames.values[4], images["", 8354.0, 1])
    assert set(frames.exposure_s.values) == {0.5}
    assert set(frames.stage_x_um.values) == {-5178.0}
    assert set(frames.angle_deg.values) == {6.974469}
    assert set(frames.point.values) == {0}, "one spectrum"
    flats = run.frames("flat")
    assert flats.shape == (4, 16, 20)
    assert set(flats.exposure_s.values) == {0.3}
    assert (run.start["sample"], run.start["pixel_size_um"]) == ("NCA", 0.0312)
    assert run.events()["header_zoneplate_z"].iloc[0] == -1670.0531
    run.client.validate(fix_errors=False, raise_on_error=True)


def test_single_tiff_files_are_read_in_place(archive_client, folder):
    place = folder / "tiffs"
    place.mkdir()
    images = np.random.default_rng(3).integers(0, 4000, (3, 16, 20), dtype="u2")
    for image, name in zip(images, ("b_8340eV", "a_8333eV", "flat_8340eV"), strict=True):
        tifffile.imwrite(place / f"{name}.tif", image)
    (incoming,) = read_incoming([place])
    done = import_run(archive_client, incoming, folder)
    assert done.copied_to is None
    run = open_run(archive_client, done.uid)
    np.testing.assert_array_equal(numbers(run, "primary"), images[[1, 0]])
    np.testing.assert_array_equal(run.frames().energy_ev, [8333.0, 8340.0])
    assert len(list(run.client.documents())) > 5


def test_a_hdf5_stack_is_read_in_place_and_takes_what_the_file_does_not_tell(archive_client, folder):
    data = np.random.default_rng(4).random((5, 8, 10), "f4")
    with h5py.File(folder / "stack.h5", "w") as file:
        file["measured/images"] = data
    (incoming,) = read_incoming(
        [folder / "stack.h5"], ImportOptions(energy_ev=8333.0, exposure_s=0.1, pixel_size_um=0.03)
    )
    done = import_run(archive_client, incoming, folder)
    assert done.copied_to is None
    run = open_run(archive_client, done.uid)
    np.testing.assert_array_equal(numbers(run, "primary"), data)
    assert set(run.frames().energy_ev.values) == {8333.0}


# --- trouble --------------------------------------------------------------------------------------------------------------------------


def test_a_file_that_goes_bad_while_it_is_copied_leaves_nothing(archive_client, folder, tmp_path):
    write_xrm(tmp_path / "a.xrm", np.zeros((64, 64), "u2"))
    (incoming,) = read_incoming([tmp_path])
    (tmp_path / "a.xrm").write_bytes(b"gone")
    before, runs = set(folder.iterdir()), len(archive_client)
    with pytest.raises(ExchangeError, match=r"a\.xrm"):
        import_run(archive_client, incoming, folder)
    assert set(folder.iterdir()) == before
    assert len(archive_client) == runs


def test_frames_that_the_server_may_not_read_are_not_imported(archive_client, folder, tmp_path):
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["exchange/data"] = np.zeros((2, 8, 8), "u2")
    (incoming,) = read_incoming([tmp_path / "elsewhere.h5"])
    runs = len(archive_client)
    with pytest.raises(ExchangeError, match="outside the readable storage area"):
        import_run(archive_client, incoming, folder)
    assert len(archive_client) == runs
    assert import_run(archive_client, incoming, folder, copy=True).frames == {"primary": 2}


# --- the how-to pages -----------------------------------------------------------------------------------------------------------------


def test_a_place_that_is_taken_or_wrong_ends_with_its_exit_code(tiled_server, exported, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("XBAT_ARCHIVE__URI", tiled_server.uri)
    monkeypatch.setenv("XBAT_ARCHIVE__API_KEY", tiled_server.api_key)
    (tmp_path / "bad.xrm").write_text("no image")
    for arguments, code, told in (
        (["export", "last", "-o", str(exported / NAMES["nexus"])], 2, "exists; give --force"),
        (["export", "last", "--format", "png"], 2, "--format 'png': unknown"),
        (["export", "no-such-run", "-o", str(tmp_path / "a.nxs")], 1, "no-such-run"),
        (["import", str(tmp_path / "bad.xrm")], 1, "bad.xrm: cannot be read as .xrm frames"),
        (["import", str(tmp_path / "gone.h5")], 1, "gone.h5: no such file or directory"),
        (["import", str(tmp_path / "bad.xrm"), "--energy", "8333"], 2, "--energy '8333'"),
    ):
        done = CliRunner().invoke(app, arguments, env={"NO_COLOR": "1"})
        assert (done.exit_code, told in done.stderr) == (code, True), f"{arguments}: {done.output}"
    assert [path.name for path in tmp_path.iterdir()] == ["bad.xrm"]
