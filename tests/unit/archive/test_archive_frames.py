"""Which rows of a dataset Tiled is told to serve."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbat_live.archive.frames import EventFramesConsolidator, one_chunk_per_frame

DESCRIPTOR = {"data_keys": {"image": {"shape": [1, 4, 5], "dtype": "array", "dtype_numpy": "<u2", "external": "FILE:"}}}


def consolidator(indices, *, uri="file://localhost/tmp/x.h5", descriptor=DESCRIPTOR, **parameters):
    parameters = {"dataset": "/entry/data/data", "chunk_shape": [1], "multiplier": 1} | parameters
    made = EventFramesConsolidator(
        {"data_key": "image", "mimetype": "application/x-hdf5", "uri": uri, "parameters": parameters, "uid": "r"},
        descriptor,
    )
    consume(made, indices)
    return made


def consume(made, indices):
    for index in indices:
        made.consume_stream_datum(
            {"indices": {"start": index, "stop": index + 1}, "seq_nums": {"start": index + 1, "stop": index + 2}}
        )


@pytest.mark.parametrize(
    ("indices", "rows"),
    [
        pytest.param([0, 1, 2], "0:3", id="no gap: a slice, so an orphan frame at the end stays outside"),
        pytest.param([0, 1, 3], [0, 1, 3], id="orphan in the middle"),
        pytest.param([2], "2:3", id="orphans at the beginning"),
        pytest.param([0, 0, 1], [0, 0, 1], id="two Events about one frame"),
        pytest.param([1, 0], [1, 0], id="out of order"),
        pytest.param([], None, id="no Event yet"),
    ],
)
def test_rows(indices, rows):
    made = consolidator(indices)
    assert made.adapter_parameters().get("slice") == rows
    assert made.shape == (len(indices), 1, 4, 5)


@given(indices=st.lists(st.integers(0, 30), max_size=20))
def test_rows_are_the_indices_of_the_events(indices):
    rows = consolidator(indices).adapter_parameters().get("slice", [])
    if isinstance(rows, str):
        start, stop = rows.split(":")
        rows = list(range(int(start), int(stop)))
    assert rows == indices


def test_several_frames_per_event():
    made = consolidator([0, 2], multiplier=3)
    assert made.adapter_parameters()["slice"] == [0, 1, 2, 6, 7, 8]
    assert made.shape == (2, 3, 4, 5)


def test_rows_that_the_document_brings_along_are_kept():
    """E.g. a run's documents() written again: indices count within its slice."""
    assert consolidator([0, 1], slice="[5, 7]").adapter_parameters()["slice"] == "[5, 7]"


def test_layout_we_cannot_interpret_is_left_to_the_plugin():
    """Several frames per Event and no multiplier: the file may be (n, k, y, x) or (n * k, y, x)."""
    descriptor = {"data_keys": {"image": DESCRIPTOR["data_keys"]["image"] | {"shape": [3, 4, 5]}}}
    assert "slice" not in consolidator([0, 2], multiplier=None, descriptor=descriptor).adapter_parameters()


def test_second_file_counts_from_the_end_of_the_first_with_its_orphans(tmp_path):
    path = tmp_path / "first.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["/entry/data/data"] = np.zeros((3, 4, 5), "u2")
    made = consolidator([0, 1], uri=f"file://localhost{path}")
    made.update_from_stream_resource(
        {
            "data_key": "image",
            "mimetype": "application/x-hdf5",
            "uri": "file://localhost/tmp/second.h5",
            "parameters": {"dataset": "/entry/data/data", "chunk_shape": [1], "multiplier": 1},
            "uid": "r2",
        }
    )
    consume(made, [0, 1])
    assert made.adapter_parameters()["slice"] == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("resource", "patched"),
    [
        pytest.param(
            {"spec": "AD_HDF5", "resource_kwargs": {"frame_per_point": 1}},
            {"frame_per_point": 1, "chunk_shape": [1]},
            id="primary",
        ),
        pytest.param(
            {"spec": "HDF5", "resource_kwargs": {"dataset": "/f"}}, {"dataset": "/f", "chunk_shape": [1]}, id="flat"
        ),
        pytest.param(
            {"spec": "HDF5", "resource_kwargs": {"chunk_shape": [8]}}, {"chunk_shape": [8]}, id="device knows better"
        ),
        pytest.param({"spec": "AD_TIFF", "resource_kwargs": {}}, {}, id="no HDF5"),
    ],
)
def test_one_chunk_per_frame(resource, patched):
    before = {**resource["resource_kwargs"]}
    assert one_chunk_per_frame(resource)["resource_kwargs"] == patched
    assert resource["resource_kwargs"] == before, "other callbacks get the same document"
