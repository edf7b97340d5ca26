"""What an experiment file may say about cell, beam and limits, and what becomes of it."""

from __future__ import annotations

import numpy as np
import pytest

from xbat_live.config import ConfigError, load_config
from xbat_live.dose_setup import make_beam, make_limits, make_stack

GOOD = """
[sample]
name = "cell-1"
{sample}
[beam]
flux = "1e10 ph/s"
{beam}
[dose]
limit = "300 kGy"
{dose}
{more}
"""

OWN_CELL = """
layer = "electrode"
material = "LFP"
tilt = "60 deg"
[[sample.layers]]
name = "window"
thickness = "125 um"
parts = [{ material = "Kapton", formula = "C22H10N2O5", density = "1.42 g/cm**3" }]
[[sample.layers]]
name = "electrode"
thickness = "50 um"
parts = [
  { material = "LFP", formula = "LiFePO4", density = "3.6 g/cm**3", fraction = 0.5 },
  { material = "electrolyte", formula = { C3H4O3 = 0.3, C4H8O3 = 0.6, LiPF6 = 0.1 }, density = "1.2 g/cm**3", fraction = 0.3 },
]
"""


def config_of(folder, **sections):
    file = folder / "exp.toml"
    file.write_text(GOOD.format(**{"sample": "", "beam": "", "dose": "", "more": ""} | sections))
    return load_config(file)


def test_a_cell_of_ones_own(tmp_path):
    stack = make_stack(config_of(tmp_path, sample=OWN_CELL))
    assert [layer.name for layer in stack.layers] == ["window", "electrode"]
    assert stack.tilt_deg == 60
    straight = make_stack(config_of(tmp_path, sample=OWN_CELL.replace("60 deg", "0 deg")))
    assert stack.transmission(8000.0) == pytest.approx(straight.transmission(8000.0) ** 2)  # 1 / cos 60 deg = 2


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        # (name, material, layer, limit_gy, rate_gy_s, window_s, advisory) of what is added to dose.limit
        (
            '[[dose.limits]]\npreset = "nmc_graphite_kinetics"',
            ("nmc_graphite_kinetics", "NMC622", "cathode", 11e6, None, None, False),
        ),
        ('[[dose.limits]]\nrate = "2 kGy/s"', ("dose.limits[0]", "NMC622", "cathode", None, 2e3, None, False)),
        (
            '[[dose.limits]]\nname = "slow"\nrate = "50 Gy/s"\nwindow = "15 min"',
            ("slow", "NMC622", "cathode", None, 50.0, 900.0, False),
        ),
        (
            '[[dose.limits]]\npreset = "electrolyte_radiolysis"\nadvisory = false',  # the user makes it a hard one
            ("electrolyte_radiolysis", "electrolyte", "cathode", 20e3, None, None, False),
        ),
        (
            '[[dose.limits]]\npreset = "nmc_graphite_safe"\nlimit = "70 kGy"',
            ("nmc_graphite_safe", "NMC622", "cathode", 70e3, None, None, False),
        ),
    ],
)
def test_further_limits(tmp_path, limits, expected):
    first, further = make_limits(config_of(tmp_path, more=limits))
    assert (first.name, first.limit_gy) == ("dose limit", 300e3)
    assert (
        further.name, further.material, further.layer, further.limit_gy, further.rate_gy_s, further.window_s, further.advisory,
    ) == expected  # fmt: skip


def test_a_measured_beam(tmp_path):
    flat = np.zeros((50, 60))
    flat[10:40, 20:40] = 100.0
    np.save(tmp_path / "flat.npy", flat)
    beam = make_beam(
        config_of(
            tmp_path, beam='profile = "measured"\nflat = "flat.npy"\nflat_pixel_size = "1 um"\nfraction_in_field = 0.9'
        )
    )
    assert beam.fwhm_um == pytest.approx((20, 30))
    assert beam.kernel(1.0).sum() * 1e-8 == pytest.approx(0.9)  # of the whole beam, on pixels of 1 um2


def describe(folder, sections):
    config = config_of(folder, **sections)
    return make_stack(config), make_limits(config), make_beam(config)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"beam": 'profile = "measured"'}, ["beam", "flat", ".npy"]),
        ({"beam": 'profile = "measured"\nflat = "none.npy"\nflat_pixel_size = "1 um"'}, ["none.npy"]),
        ({"more": '[[dose.limits]]\nname = "empty"'}, ["dose.limits.0", "preset", "rate"]),
        ({"more": '[[dose.limits]]\nlimit = "1 MGy"\nrate = "1 kGy/s"'}, ["dose.limits.0"]),
        ({"more": '[[dose.limits]]\nlimit = "1 MGy"\nwindow = "1 min"'}, ["dose.limits.0", "window"]),
        ({"more": '[[dose.limits]]\npreset = "nmc_grafite"'}, ["nmc_grafite", "nmc_graphite_safe"]),
        ({"more": '[[dose.limits]]\nlimitt = "1 MGy"'}, ["dose.limits.0.limitt", "did you mean 'limit'"]),
        ({"dose": 'policy = "pray"'}, ["dose.policy", "pray"]),
        ({"dose": 'lead_time = "60 s"'}, ["dose.lead_time", "60", "0.5"]),  # meant ms
        ({"dose": "lead_time = 0.06"}, ["dose.lead_time", "no unit"]),
        (
            {"sample": OWN_CELL.replace("1.42 g/cm**3", "1420 g/cm**3")},
            ["sample.layers.0.parts.0.density", "above the largest"],
        ),
        ({"sample": OWN_CELL.replace('"125 um"', "125")}, ["sample.layers.0.thickness", "no unit"]),
        ({"sample": 'forbidden = [["0 um", "1 um", "0 um"]]'}, ["sample.forbidden.0"]),
    ],
)
def test_mistakes_are_told(tmp_path, sections, told):
    with pytest.raises((ConfigError, ValueError)) as error:
        describe(tmp_path, sections)
    for part in told:
        assert part in str(error.value)
