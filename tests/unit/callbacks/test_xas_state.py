"""What is missing before a cube can be analysed is said in plain words."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("xbat_live.spectra", reason="the package of the spectra is not there")

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
