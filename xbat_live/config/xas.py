"""The section of full-field XAS imaging: sweeps, references, and what the live analysis is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from xbat_live.config.sections import EnergyEv, Micrometres, PositiveSeconds, _Section
from xbat_live.units import Quantity

DoseRateStep = Annotated[float, Quantity("Gy/s", minimum=1e-6)]
Spacing = Annotated[float, Quantity("um", minimum=1e-5, maximum=1e-2)]


class XasSection(_Section):
    """Energy sweeps ("cubes") of plan ``operando_ffi_xas``, and their live analysis."""

    start_ev: EnergyEv = Field(8266.0, alias="start")
    """Energy of the first frame of a sweep."""
    stop_ev: EnergyEv = Field(8878.0, alias="stop")
    n_frames: int = Field(580, ge=2, le=100_000)
    """Frames of a sweep; the Bragg angle advances evenly from one to the next."""
    sweep_s: PositiveSeconds = Field(580 / 53, alias="sweep")
    """Time for all frames of a sweep."""
    both_ways: bool = False
    """Every other sweep goes back; otherwise the monochromator returns with the shutter closed."""
    spacing_um: Spacing = Field(3.1356e-4, alias="crystal_spacing")
    """Lattice spacing of the monochromator's crystal; Si(111) is 3.1356 angstrom."""
    n_i0: int = Field(20, ge=1, le=10_000)
    """Cubes without sample; without them there is no absorbance."""
    n_foil: int = Field(20, ge=1, le=10_000)
    """Cubes of the foil; without them no pixel has an energy."""
    repeat_references: bool = True
    """Take them anew in the charged state."""
    foil_um: tuple[Micrometres, Micrometres] = Field((0.0, -5000.0), alias="foil")
    """Stage position with the foil in the beam; with nothing in it: ``plan.reference``."""
    fresh_um: dict[str, tuple[Micrometres, Micrometres]] = Field(default_factory=dict, alias="fresh")
    """Sample coordinates of fresh spots by label; those left out are searched for."""
    cubes_per_file: int = Field(20, ge=1, le=10_000)
    on_alarm: Literal["none", "stop", "relocate", "attenuate"] = "none"
    """What happens when the threshold is passed, or pixels of high and low dose diverge."""

    foil_edge_ev: EnergyEv = Field(8333.0, alias="foil_edge")
    """First inflection of the foil."""
    pre_edge_ev: tuple[EnergyEv, EnergyEv] = Field((8270.0, 8318.0), alias="pre_edge")
    post_edge_ev: tuple[EnergyEv, EnergyEv] = Field((8410.0, 8870.0), alias="post_edge")
    bin: int = Field(4, ge=1, le=64)
    """Pixels of a frame that are added along each axis before anything is computed."""
    components: int = Field(3, ge=2, le=8)
    """Number of component spectra."""
    references: Path | None = None
    """Component spectra: a text file, energy in eV and a column for each. Left out: found from the data while the run goes on."""
    mask_step_gy_s: DoseRateStep = Field(300.0, alias="mask_step")
    """Width of the intervals of dose rate."""
    mask_start_gy_s: DoseRateStep = Field(100.0, alias="mask_start")
    """One of their edges: 100 Gy/s gives the intervals 0.7 .. 1.0 and 6.7 .. 7.0 kGy/s of the LiNiO2 paper."""

    @model_validator(mode="after")
    def _edges_inside(self) -> XasSection:
        low, high = sorted((self.start_ev, self.stop_ev))
        for name, (first, last) in (("pre_edge", self.pre_edge_ev), ("post_edge", self.post_edge_ev)):
            if not low <= first < last <= high:
                raise ValueError(
                    f"{name} {first:g} .. {last:g} eV: must rise and lie within the sweep, {low:g} .. {high:g} eV (xas.start, xas.stop)"
                )
        if not self.pre_edge_ev[1] < self.foil_edge_ev < self.post_edge_ev[0]:
            raise ValueError(
                f"foil_edge {self.foil_edge_ev:g} eV must lie between pre_edge (to {self.pre_edge_ev[1]:g} eV) and post_edge "
                f"(from {self.post_edge_ev[0]:g} eV)"
            )
        return self
