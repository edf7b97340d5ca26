"""Quantities in files: a unit on every number, and slips are told with the remedy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbat_live.units import format_si, parse_c_rate, parse_quantity


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("48 ms", "s", 0.048),  # the exposure of Sun et al.
        ("33.24 nm", "um", 0.03324),  # their pixel
        ("15 min", "s", 900.0),  # minutes are not milli-inches
        ("5 MGy", "Gy", 5e6),  # mega, not milli
        ("1e10 ph/s", "ph/s", 1e10),  # photons are counted
        ("8.562 keV", "eV", 8562.0),  # keV where eV is the unit
        ("0 s", "s", 0.0),
        (0, "s", 0.0),  # zero is zero in every unit
    ],
)
def test_quantities_convert(text, unit, expected):
    assert parse_quantity(text, unit) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "unit", "told"),
    [
        ("48", "s", "no unit"),  # 48 ms or 48 s? nobody can tell
        (48, "s", "no unit"),
        (True, "s", "not a quantity"),  # TOML has booleans
        ("5 kg", "Gy", "not convertible"),
        ("48 lightfoot", "s", "unknown unit"),
        ("nan s", "s", "not finite"),
        ("inf s", "s", "not finite"),
        ("", "s", "e.g."),
        ("ms 48 ms (", "s", "e.g."),
        ([1], "s", "not a quantity"),
    ],
)
def test_bad_quantities_are_refused_with_an_example(text, unit, told):
    with pytest.raises(ValueError, match=told):
        parse_quantity(text, unit)


def test_a_prefix_mix_up_is_guessed():
    with pytest.raises(ValueError, match=r"did you mean 8\.562 keV"):
        parse_quantity("8.562 eV", "eV", minimum=1000, maximum=150_000)


@given(st.floats(1e-6, 1e6))
def test_a_quantity_survives_writing_and_reading(value):
    assert parse_quantity(f"{value!r} um", "um") == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "per_hour"), [("C/12", 1 / 12), ("2C", 2.0), ("0.5 C", 0.5), ("C", 1.0), ("3C/4", 0.75)]
)
def test_c_rates(text, per_hour):
    assert parse_c_rate(text) == pytest.approx(per_hour)


@pytest.mark.parametrize("text", ["12", "C/0", "0C", "-C/2", "fast", 0.5])
def test_bad_c_rates(text):
    with pytest.raises(ValueError, match="C-rate"):
        parse_c_rate(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.2e5, "320 kGy"), (0.0, "0 Gy"), (1e6, "1 MGy"), (0.02, "20 mGy"), (999.9, "1 kGy"), (math.nan, "nan Gy")],
)
def test_si_prefixes(value, text):
    assert format_si(value, "Gy") == text
