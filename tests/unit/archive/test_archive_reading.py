"""Indexing of frames and of runs, without a server."""

import numpy as np
import pytest

from xbat_live.archive import ArchiveError, Frames, Run, open_run

STACK = np.arange(5 * 3 * 4, dtype="u2").reshape(5, 1, 3, 4)


@pytest.mark.parametrize("stack", [STACK, STACK[:, 0]], ids=["(n, 1, y, x)", "(n, y, x)"])
@pytest.mark.parametrize(
    ("index", "shape"),
    [
        pytest.param(3, (3, 4), id="one"),
        pytest.param(-1, (3, 4), id="last"),
        pytest.param(slice(1, 4), (3, 3, 4), id="some"),
        pytest.param(slice(None), (5, 3, 4), id="all"),
        pytest.param((slice(None), slice(0, 2), 1), (5, 2), id="part of each"),
        pytest.param((2, slice(0, 2)), (2, 4), id="part of one"),
    ],
)
def test_frames_are_indexed_like_an_array(stack, index, shape):
    frames = Frames(shape=(5, 3, 4), dtype=stack.dtype, _array=stack, _run=None)
    assert frames[index].shape == shape
    np.testing.assert_array_equal(frames[index], STACK[:, 0][index])
    assert len(frames) == 5


def test_frames_end_like_a_sequence():
    frames = Frames(shape=(5, 3, 4), dtype=STACK.dtype, _array=STACK, _run=None)
    with pytest.raises(IndexError, match="frame 5: there are 5"):
        frames[5]
    assert len(list(frames)) == 5


class EmptyCatalog:
    uri = "http://here"

    def __getitem__(self, key):
        raise KeyError(f"No match for {key}")

    def search(self, query):
        return self

    sort = values = lambda self, *_: self

    def first(self):
        raise IndexError(0)


def test_missing_runs_are_told():
    with pytest.raises(ArchiveError, match="has no runs yet"):
        open_run(EmptyCatalog())
    with pytest.raises(ArchiveError, match="no single run 'abc'"):
        open_run(EmptyCatalog(), "abc")


def test_missing_stream_is_told_with_those_there_are():
    view = Run(uid="0123456789", start={}, stop={}, streams=("dark", "flat"), client=None)
    with pytest.raises(ArchiveError, match="run 01234567 has no stream 'primary'; it has dark, flat"):
        view.frames()
    assert view.analysis().empty
    assert view.decisions().empty
