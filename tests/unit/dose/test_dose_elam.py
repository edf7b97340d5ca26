"""The tables read without xraydb's imports are xraydb's tables."""

from __future__ import annotations

import numpy as np
import pytest
import xraydb

from xbat_live.dose import elam

ENERGIES_EV = np.concatenate([np.geomspace(250, 4e5, 1001), [8333.0, 8345.0, 8562.0, 27000.0]])


@pytest.mark.parametrize("number", range(1, 93))
def test_all_elements_agree_with_xraydb(number):
    tables = xraydb.get_xraydb()
    element = tables.symbol(number)
    assert elam.molar_mass(element) == tables.molar_mass(element)
    for kind in ("photo", "coh", "incoh"):
        wanted = tables.cross_section_elam(element, ENERGIES_EV, kind=kind)
        np.testing.assert_allclose(elam.cross_section_elam(element, ENERGIES_EV, kind), wanted, rtol=1e-12)


@pytest.mark.parametrize("formula", ["LiNi0.6Mn0.2Co0.2O2", "Mn(SO4)2(H2O)7", "C4H8O3"])
def test_formulas_are_read_as_xraydb_reads_them(formula):
    assert elam.chemparse(formula) == xraydb.chemparse(formula)


@pytest.mark.parametrize("element", ["Xx", "", "ni"])
def test_an_unknown_element_is_told(element):
    with pytest.raises(ValueError, match="no tables"):
        elam.molar_mass(element)
