"""Soft records: plain values, fixed types, units, and no field that nobody knows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbat_live.devices import AnalysisRecord, DecisionRecord, PointRecord


@pytest.mark.parametrize("cls", [PointRecord, AnalysisRecord, DecisionRecord])
def test_units_follow_the_names(cls):
    """The suffix of a name is its unit: a plot or a table needs no other source."""
    suffixes = {"um": "um", "gy": "Gy", "s": "s", "px": "px", "deg": "deg", "ms": "ms", "min": "um/min", "ph_s": "ph/s"}
    for key, described in cls(name="r").describe().items():
        suffix = "ph_s" if key.endswith("_ph_s") else key.rsplit("_", 1)[-1]
        if suffix in suffixes:
            assert described["units"] == suffixes[suffix], key


@pytest.mark.parametrize(
    ("field", "given_value", "stored", "reason"),
    [
        ("accepted", True, 1, "a table has no column of booleans and integers"),
        ("seq_num", np.int64(7), 7, "numpy scalars are no JSON"),
        ("shift_y_px", np.float32(0.5), 0.5, ""),
        ("shift_y_px", 2, 2.0, "a column of floats stays one"),
        ("reason", "blurred", "blurred", ""),
    ],
)
def test_values_become_plain_and_keep_the_type_of_the_column(field, given_value, stored, reason):
    record = AnalysisRecord(name="analysis")
    record.fill(**{field: given_value})
    value = getattr(record, field).get()
    assert value == stored, reason
    assert type(value) is type(stored), reason


def test_what_is_not_known_is_nan():
    record = AnalysisRecord(name="analysis")
    record.fill(confidence=None)
    assert math.isnan(record.confidence.get())
    assert record.describe()["analysis_confidence"]["dtype"] == "number"


def test_an_unknown_field_is_refused_and_nothing_is_set():
    record = DecisionRecord(name="decision")
    with pytest.raises(ValueError, match="unknown field cause; known: action"):
        record.fill(action="retake", cause="typo")
    assert record.action.get() == ""


def test_a_value_of_the_wrong_kind_names_the_field_and_nothing_is_set():
    record = PointRecord(name="point")
    with pytest.raises(ValueError, match="spot = 'left'"):
        record.fill(attempt=3, spot="left")
    assert record.attempt.get() == 0


@given(
    st.dictionaries(
        st.sampled_from(["shift_y_px", "shift_x_px", "dose_gy", "confidence"]),
        st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_what_was_filled_is_what_is_read(values):
    record = AnalysisRecord(name="a")
    record.fill(**values)
    assert {key: record.read()[f"a_{key}"]["value"] for key in values} == values
