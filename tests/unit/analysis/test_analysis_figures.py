"""Figures are written whole, say units, and never over what is there."""

from __future__ import annotations

import sys

import pytest

from xbat_live.analysis import AnalysisError, RunFrames, analyse_motion
from xbat_live.analysis.figures import FiguresUnavailable, check_matplotlib, figure_files, write_motion_figures


@pytest.fixture(scope="module")
def analysis(opening_run):
    return analyse_motion(RunFrames(opening_run).select(), [(1, 24)])


def test_names_are_known_before():
    assert figure_files([]) == ["motion-path.png", "motion-path.pdf"]
    assert "deformation-3-13.pdf" in figure_files([(3, 13)])


def test_without_matplotlib_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(FiguresUnavailable, match=r"pip install 'xbat-live\[figures\]'"):
        check_matplotlib()


def test_all_figures_are_written_and_nothing_else(analysis, tmp_path):
    pytest.importorskip("matplotlib")
    written = write_motion_figures(analysis, tmp_path / "new")
    assert sorted(path.name for path in written) == sorted(figure_files([(1, 24)]))
    assert sorted((tmp_path / "new").iterdir()) == sorted(written)
    for path in written:
        head = path.read_bytes()[:8]
        assert head.startswith(b"\x89PNG" if path.suffix == ".png" else b"%PDF")


def test_a_file_that_is_there_stays_unless_forced(analysis, tmp_path):
    pytest.importorskip("matplotlib")
    kept = tmp_path / "motion-path.pdf"
    kept.write_text("mine")
    with pytest.raises(AnalysisError, match=r"motion-path\.pdf exists; give --force"):
        write_motion_figures(analysis, tmp_path)
    assert kept.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [kept]


def labels(figure):
    return [
        text
        for axes in figure.axes
        for text in (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left"))
        if text
    ]


def test_axes_have_units_and_images_have_scale_bars(analysis):
    pytest.importorskip("matplotlib")
    from xbat_live.analysis.figures.deformation import deformation_figure
    from xbat_live.analysis.figures.path import path_figure

    path = " | ".join(labels(path_figure(analysis)))
    for part in ("displacement (µm)", "time (h)", "frames", "µm/min", "jitter σ"):
        assert part in path
    figure = deformation_figure(analysis.pairs[0])
    text = " | ".join(labels(figure))
    for part in ("amplitude (nm)", "(deg)", "side of the box (µm)", "optical density"):
        assert part in text
    bars = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text().endswith((" µm", " nm"))]
    assert len(bars) >= 6
