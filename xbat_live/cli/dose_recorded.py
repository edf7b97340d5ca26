"""The account of a ledger by itself: stack, beam and materials as its last exposure was recorded with."""

from __future__ import annotations

import json
from typing import Any

from xbat_live.dose import Beam, DoseAccount, DoseTarget, Layer, LayerStack, Ledger, LedgerError, Material
from xbat_live.dose.profiles import profile_from_record
from xbat_live.dose.records import COLUMNS, record_from_row
from xbat_live.dose.tracks import targets_of


def recorded_account(ledger: Ledger) -> DoseAccount:
    """Return the account with stack, definition, materials and beam of the last exposure; limits and outline are not recorded.

    Raises
    ------
    LedgerError
        The ledger holds no exposure, so nothing says what the doses are of.
    """
    for row in ledger.rows_backwards(COLUMNS):
        entry = record_from_row(row).entry
        if entry.model_id is not None and entry.profile_id is not None:
            break
    else:
        raise LedgerError(
            f"{ledger.path}: no exposure is recorded, so it does not say of which cell; give the experiment file"
        )
    model = json.loads(ledger.definition(entry.model_id)[0])
    profile = profile_from_record(*ledger.definition(entry.profile_id))
    beam = Beam(max(entry.flux_ph_s or 1.0, 1.0), profile)
    also = [DoseTarget(layer, material) for layer, material, _ in json.loads(entry.also_gy_cm2 or "[]")]
    primary, *others = targets_of(DoseTarget(model["layer"], model["material"]), also)
    return DoseAccount(
        ledger,
        stack=stack_from(model["stack"]),
        beam=beam,
        limits=(),
        layer=primary.layer,
        material=primary.material,
        model=model["model"],
        also=others,
        grid_um=min(1.0, min(beam.fwhm_um) / 5),
    )


def stack_from(content: dict[str, Any]) -> LayerStack:
    """Return the layer stack of `LayerStack.as_dict`."""
    layers = []
    for layer in content["layers"]:
        parts = {
            Material(part["name"], part["formula"], part["density_g_cm3"]): part["volume_fraction"]
            for part in layer["parts"]
        }
        # recorded as it was used: a thin film was confirmed then
        layers.append(Layer(layer["name"], layer["thickness_um"], parts, thin_film=True))
    return LayerStack(layers, tilt_deg=content["tilt_deg"])
