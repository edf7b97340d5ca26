"""What is missing before a cube can be analysed is said in plain words."""

from __future__ import annotations

import numpy as np
import pytest

from xbat_live.callbacks.xas_state import XasSettings, XasState


def state():
    return XasState(XasSettings(rate_masks=lambda *_: None, bin=2))


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda state: state.absorbance, "no I0 cube"),
        (lambda state: state.rates(), "no I0 cube"),
        (lambda state: state.calibrate(), "no foil cube"),
    ],
)
def test_without_references_nothing_is_computed(ask, told):
    with pytest.raises(ValueError, match=told):
        ask(state())


def test_a_foil_needs_i0_as_well():
    it = state()
    it.take_foil(np.ones((5, 4, 4), np.float32), np.arange(8330.0, 8335.0), anew=True)
    with pytest.raises(ValueError, match="no I0 cube"):
        it.calibrate()


def test_a_saturated_pixel_masks_its_bin_only():
    frame = np.full((4, 4), 1000, np.uint16)
    frame[0, 0] = 65535
    binned = state().binned(frame)
    assert np.isnan(binned[0, 0])
    assert np.isfinite(binned).sum() == 3


@pytest.mark.parametrize(
    ("later_ev", "told"),
    [
        (6.0, None),  # sweeps do not end at the same energy: what is beyond I0 is left out
        (80.0, "at 41 of the 80 energies of the foil"),
    ],
)
def test_a_foil_sweep_that_reaches_beyond_i0(later_ev, told):
    it, energy = state(), np.linspace(8260.0, 8420.0, 80)
    it.take_i0(np.full((80, 6, 6), 1e5 + 100, np.float32), energy, anew=True)
    foil_ev = energy + later_ev
    edge = 0.5 + np.arctan((foil_ev - 8333.4) / 1.0) / np.pi
    foil = 1e5 * np.exp(-edge)[:, None, None] * np.ones((80, 6, 6)) + 100
    it.take_foil(foil.astype(np.float32), foil_ev, anew=True)
    if told:
        with pytest.raises(ValueError, match=told):
            it.calibrate()
    else:
        assert np.median(it.calibrate().shift_ev) == pytest.approx(-0.4, abs=0.4)  # in steps of 2 eV
