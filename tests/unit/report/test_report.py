"""The report of a run: all parts of a full one, something sensible of a poor one, nothing from elsewhere, nothing unescaped."""

import re
import zlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xbat_live.archive import ArchiveError
from xbat_live.report import make_report
from xbat_live.report.page import _compact, half_height_ev
from xbat_live.report.png import colours, png, thumbnail
from xbat_live.report.svg import Trace, chart, ticks

PARTS = (
    *("Dose per spot", "Dose map", "Dose of each frame", "Cell and relocations", "Blur", "Rejected frames", "Drift"),
    *("Edge against state of charge", "Decisions", "Operator log", "Configuration", "Versions", "Formulas and sources"),
)


def a_run(n=24, *, energies=(8340.0,), cell=True, rejected=True, streams=None, sample="cell-7"):
    """A run of `n` frames as `xb.open` gives it, one scan per `len(energies)` frames, with relocation halfway."""
    seq, rng = np.arange(1, n + 1), np.random.default_rng(1)
    energy = np.resize(energies, n)
    bad = (seq % 7 == 0) & rejected
    primary = pd.DataFrame({"seq_num": seq, "time": 1000.0 + 60 * seq, "mono_energy": energy})
    primary = primary.assign(
        point_index=(seq - 1) // len(energies), point_spot=(seq > n / 2).astype(int), point_dose_gy=2e3 * seq
    )
    if cell:
        soc = seq / max(n, 1)
        primary = primary.assign(
            potentiostat_soc=soc, potentiostat_voltage_v=3.5 + soc, potentiostat_current_ma=np.full(n, 1.8)
        )
    verdicts = np.where(bad, "blurred", "accepted")
    analysis = pd.DataFrame({"seq_num": seq, "time": 1001.0 + 60 * seq, "analysis_seq_num": seq})
    analysis = analysis.assign(
        analysis_accepted=(~bad).astype(int),
        analysis_verdict=verdicts,
        analysis_reason=np.where(bad, "blurred by 9.2 px (limit 3.8 px)", ""),
        analysis_blur_extent_px=np.where(bad, 9.2, 1.0 + rng.random(n)),
        **{f"analysis_{kind}_{axis}_um": rng.normal(size=n) for kind in ("drift", "jitter") for axis in "xy"},
    )
    decision = pd.DataFrame(
        [(1000.0, "start", "series"), (1000.0 + 30 * n, "relocate", "limit"), (1000.0 + 60 * n, "end", "completed")],
        columns=["time", "decision_action", "decision_reason"],
    )
    operator = pd.DataFrame(
        [
            (1100.0, "pause", "eva", "cli", 1, "shutter told to close", "PAUSING"),
            (1100.0, "state", "", "", 1, "", "PAUSED"),
        ],
        columns=["time", *(f"operator_{name}" for name in ("command", "who", "via", "ok", "message", "state"))],
    )
    spots = pd.DataFrame([(0, "A", 0.0, 0.0, n, 1.5, 4e4)])
    spots.columns = [f"spot_{k}" for k in ("number", "label", "x_um", "y_um", "exposures", "open_time_s", "dose_gy")]
    tables = {"primary": primary, "analysis": analysis, "decision": decision, "operator": operator, "spots": spots}

    def frames(*, accepted=False, normalised=False):
        keep = ~bad if accepted else np.ones(n, bool)
        values = rng.random((n, 8, 9))
        if normalised:
            values = values * 1e-3 + 1 / (1 + np.exp(-(energy - 8345.0)))[:, None, None]
        return xr.DataArray(values[keep], dims=("frame", "y", "x"), coords={"frame": seq[keep]})

    def dose_map():
        dose = np.zeros((12, 16))
        dose[3:6, 3:7] = 4e4
        return xr.DataArray(dose, dims=("y", "x"), coords={"y": np.arange(12.0), "x": np.arange(16.0)})

    start = {"time": 1000.0, "sample": sample, "plan_name": "operando_txm_series", "dose_limit_gy": 1e5}
    start |= {"versions": {"xbat_live": "0.1.0"}, "plan_args": {"n_points": n}, "dose": {"model": "attenuation"}}
    return SimpleNamespace(
        uid="0123456789abcdef",
        start=start,
        stop={"exit_status": "success", "time": 1000.0 + 60 * n},
        streams=tuple(tables) if streams is None else streams,
        events=lambda stream: tables[stream],
        frames=frames,
        dose_map=dose_map,
    )


def section(page, title):
    return page.partition(f"<h2>{title}</h2>")[2].partition("<h2>")[0]


def test_a_full_run_shows_all_parts():
    page = make_report(a_run(energies=(8335.0, 8340.0, 8344.0, 8350.0, 8355.0, 8360.0)))
    assert [title for title in PARTS if not section(page, title)] == []
    assert "could not be made" not in page
    assert "within the limit" in page
    assert "48 kGy, 48 % of the limit 100 kGy" in page
    assert section(page, "Cell and relocations").count("<svg") == 3
    assert "to spot 2" in section(page, "Cell and relocations")
    assert "threshold 3.8 px" in section(page, "Blur")
    assert section(page, "Rejected frames").count("<figure>") == 3
    assert section(page, "Drift").count("<svg") == 3
    assert "<circle" in section(page, "Edge against state of charge")
    assert "pause (eva, cli)" in section(page, "Operator log")
    assert "PAUSED" not in section(page, "Operator log")


def test_it_is_one_file_without_scripts_and_asks_nobody():
    page = make_report(a_run())
    assert not re.search(r"<script|<link|@import|url\(", page)
    assert set(re.findall(r'(?:src|href)="([a-z]+:)', page)) <= {"data:"}


@pytest.mark.parametrize(
    ("run", "title", "words"),
    [
        (a_run(rejected=False), "Rejected frames", "No frame was rejected"),
        (a_run(rejected=False), "Blur", "threshold, which is learnt in the run"),
        (a_run(cell=False), "Cell and relocations", "No electrochemistry"),
        (a_run(), "Edge against state of charge", "Energies were not scanned"),
        (a_run(streams=()), "Decisions", "None."),
        (a_run(n=0), "Drift", "No drift was registered"),
        (a_run(n=1), "Dose of each frame", "<svg"),
    ],
)
def test_what_is_not_there_is_said(run, title, words):
    page = make_report(run)
    assert words in section(page, title)
    assert "could not be made" not in page


def test_a_run_that_was_cut_off_is_not_called_a_success():
    run = a_run(n=1, streams=("primary",))
    run.stop = {}

    def no_map():
        raise ArchiveError("no map of this run")

    run.dose_map = no_map
    page = make_report(run)
    assert "verdict bad" in page
    assert "not closed" in page
    assert "no map of this run" in section(page, "Dose map")


def test_a_run_aborted_at_its_first_frame_without_cell_blur_or_relocation_gives_every_part():
    """What is there is shown, what is not is said, nothing is taken for well."""
    run = a_run(n=1, cell=False, rejected=False, streams=("primary", "analysis", "spots"))
    run.stop = {"exit_status": "abort", "time": 1061.0, "reason": "aborted by the operator"}
    page = make_report(run)
    assert [title for title in PARTS if not section(page, title)] == []
    assert "could not be made" not in page
    assert "verdict bad" in page
    assert "The run ended: abort" in page
    assert "1 frames of the sample, 1 of 1 judged ones accepted, 0 relocations" in page
    assert "<svg" in section(page, "Blur")
    for title, words in (
        ("Cell and relocations", "No electrochemistry"),
        ("Rejected frames", "No frame was rejected"),
        ("Decisions", "None."),
        ("Operator log", "Nobody steered this run"),
    ):
        assert words in section(page, title)


def test_a_run_aborted_before_its_first_frame_gives_every_part():
    run = a_run(n=0, cell=False, streams=())
    run.stop = {"exit_status": "abort", "time": 1001.0}
    page = make_report(run)
    assert [title for title in PARTS if not section(page, title)] == []
    assert "could not be made" not in page
    assert "No dose is recorded" in page


def test_a_changed_limit_is_told_at_the_top():
    run = a_run()
    log = run.events("operator")
    log.loc[len(log)] = [1200.0, "limit", "eva", "cli", 1, "tightened", "RUNNING"]
    assert "Limits were changed 1 time in the run" in make_report(run)
    log.loc[len(log) - 1, "operator_ok"] = 0  # a refused one changes nothing
    assert "Limits were changed" not in make_report(run)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ({"spot_um": [1.5, 2.0]}, '{"spot_um": [1.5, 2.0]}'),
        ({"a": "x" * 60, "b": ["y" * 60, 1]}, f'{{\n "a": "{"x" * 60}",\n "b": ["{"y" * 60}", 1]\n}}'),
        ([["z" * 60, "z" * 60]], f'[\n [\n  "{"z" * 60}",\n  "{"z" * 60}"\n ]\n]'),
    ],
)
def test_a_configuration_takes_no_more_lines_than_it_needs(value, text):
    assert _compact(value) == text


def test_one_part_that_fails_leaves_the_others():
    run = a_run()

    def broken(**_):
        raise OSError("frame file is gone")

    run.frames = broken
    page = make_report(run)
    assert "frame file is gone" in section(page, "Rejected frames")
    assert "<svg" in section(page, "Drift")


def test_text_of_a_run_is_not_markup():
    page = make_report(a_run(sample="<img src=x onerror=alert(1)>"))
    assert "<img src=x" not in page


def test_a_picture_is_a_png_with_its_pixels():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = png(pixels)
    assert content.startswith(b"\x89PNG")
    start = content.index(b"IDAT") + 4
    rows = zlib.decompress(content[start : content.index(b"IEND") - 8])
    assert np.frombuffer(rows, np.uint8).reshape(3, 5)[:, 1:].tolist() == pixels.tolist()
    assert colours(np.array([np.nan, 0.0])).tolist() == [[255, 255, 255], [68, 1, 84]]


@pytest.mark.parametrize(
    "frame", [np.zeros((500, 400)), np.full((5, 7), np.nan), np.random.default_rng(0).random((300, 900))]
)
def test_a_thumbnail_is_small_whatever_the_frame(frame):
    small = thumbnail(frame)
    assert small.dtype == np.uint8
    assert max(small.shape) <= 180


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 880), (1e-9, 2e-9), (8333.0, 8333.5)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 9
    assert all(low - 1e-12 <= tick <= high * (1 + 1e-9) + 1e-12 for tick in found)


def test_a_chart_of_nothing_says_so():
    assert "Nothing of this was recorded" in chart([Trace([], [])], "x", "y")
    assert "Nothing of this was recorded" in chart([Trace([1.0], [np.nan])], "x", "y")


def test_edge_at_half_height():
    energy = np.linspace(8330, 8360, 61)
    assert half_height_ev(energy, 1 / (1 + np.exp(-(energy - 8345.2)))) == pytest.approx(8345.2, abs=0.05)
    assert np.isnan(half_height_ev(energy[:3], energy[:3]))
    assert np.isnan(half_height_ev(energy, np.linspace(1, 0, 61)))
