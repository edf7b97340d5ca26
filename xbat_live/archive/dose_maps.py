"""The dose map of a sample as an analysis of a run: what the ledger held when the run ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xbat_live.archive.analyses import StoredArray, list_analyses, open_analysis
from xbat_live.archive.settings import ArchiveError

if TYPE_CHECKING:
    import xarray as xr

    from xbat_live.archive.run import Run
    from xbat_live.dose import DoseAccount

KIND = "dose"


def dose_arrays(account: DoseAccount) -> tuple[dict[str, StoredArray], dict[str, Any]]:
    """Return what `store_analysis` needs to keep the dose maps of `account`, of every tracked material and its layer.

    No arrays when the sample got nothing yet.
    """
    arrays: dict[str, StoredArray] = {}
    targets = []
    for target in account.targets:
        part = _part(target.layer, target.material)
        found = account.dose_map(target)
        if not found.dose_gy.size:
            continue  # nothing was exposed yet
        arrays |= {
            f"{part}/dose_gy": StoredArray(found.dose_gy, "Gy", ("y", "x"), "absorbed dose, everything so far"),
            f"{part}/y_um": StoredArray(found.y_um, "um", ("y",), "sample coordinate of the rows"),
            f"{part}/x_um": StoredArray(found.x_um, "um", ("x",), "sample coordinate of the columns"),
        }
        peak_gy = float(found.dose_gy.max())
        targets.append({"layer": target.layer, "material": target.material, "part": part, "peak_gy": peak_gy})
    metadata = {
        "model": account.model,
        "targets": targets,
        "ledger": str(account.ledger.path),
        "unsettled": len(account.unsettled),
        "coordinates": "sample: stage reading minus registered drift",
    }
    return arrays, metadata


def dose_map(run: Run, material: str | None, layer: str | None) -> xr.DataArray:
    """See `xbat_live.archive.Run.dose_map`."""
    import xarray as xr

    if not list_analyses(run.catalog, run.uid, KIND):
        ledger = run.start.get("dose", {}).get("ledger", "the sample's ledger")
        raise ArchiveError(
            f"run {run.uid[:8]} has no dose map in the archive (it was cut off, or used no beam); what the sample got is in "
            f"{ledger}: xbat dose export"
        )
    stored = open_analysis(run.catalog, run.uid, "last", KIND)
    known: list[Mapping[str, Any]] = stored.metadata["targets"]
    fitting = [t for t in known if material in (None, t["material"]) and layer in (None, t["layer"])]
    if not fitting:
        have = ", ".join(f"{t['material']} in {t['layer']}" for t in known)
        raise ArchiveError(
            f"run {run.uid[:8]}: no dose map of {material or 'any material'} {layer or ''}; there are {have}"
        )
    target = fitting[0]  # the limited material comes first
    part = target["part"]
    axis = {"units": "um", "long_name": "sample coordinate"}
    return xr.DataArray(
        stored[f"{part}/dose_gy"],
        dims=("y", "x"),
        coords={"y": ("y", stored[f"{part}/y_um"], axis), "x": ("x", stored[f"{part}/x_um"], axis)},
        name="dose_gy",
        attrs={
            "units": "Gy",
            "long_name": "absorbed dose",
            "material": target["material"],
            "layer": target["layer"],
            "model": stored.metadata["model"],
            "run": run.uid,
            "sample": str(run.start.get("sample", "")),
        },
    )


def _part(layer: str, material: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in f"{layer}_{material}")
