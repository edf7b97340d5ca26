"""Full-field XAS after the run: what the paper's figures 5 to 8 and 10 to 14 show, as numbers and arrays.

The cubes go through the same state as live (`xbat_live.callbacks.xas_state`), one at a time; but with component spectra from all of them,
and with averages over the cubes of a phase, which the live maps cannot wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xbat_live import __version__
from xbat_live.analysis.protocol_cubes import FOIL, I0, Cube, ProtocolCubes
from xbat_live.analysis.run_frames import AnalysisError
from xbat_live.analysis.xas_results import IRRADIATED, CubeGroup, Evolution, XasRunAnalysis
from xbat_live.callbacks.xas_references import mask_spectra
from xbat_live.callbacks.xas_state import XasSettings, XasState
from xbat_live.dose import DoseMasks
from xbat_live.spectra import (
    DoseCurve,
    ShiftMap,
    Threshold,
    dose_threshold,
    edge_energy_map,
    fit_fractions,
    fraction_against_dose,
    normalise,
)

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

_LEAST_SIGMA = 1e-3  # of a fraction in one pixel
LAST_CUBES = 5
"""Cubes at the end of a charge that stand for it when there was no measurement after it."""


@dataclass
class _Sum:
    """Running sum of the cubes of a group, ascending in energy."""

    total: Float32
    energy_ev: Float
    shift: ShiftMap
    numbers: list[int] = field(default_factory=list)
    place_time_s: float = 0.0


@dataclass(frozen=True)
class _Row:
    """What a cube of the irradiated spot says of the pixels of low and of high dose rate: absorbance against true energy."""

    cube: Cube
    grid_ev: Float
    low: Float
    high: Float


@dataclass
class _Gathered:
    """What has been taken in so far."""

    wanted: dict[int, tuple[str, str]]
    notes: list[str]
    sums: dict[str, _Sum] = field(default_factory=dict)
    rows: list[_Row] = field(default_factory=list)


def analyse_xas(
    protocol: ProtocolCubes, settings: XasSettings, *, progress: Progress = lambda what, done, total: None
) -> XasRunAnalysis:
    """Work out maps, component spectra, their evolution, and the dose threshold of a protocol.

    Parameters
    ----------
    protocol
        From `protocol_cubes`.
    settings
        As for the live analysis, from `xbat_live.sweep_setup.xas_settings`.

    Raises
    ------
    AnalysisError
        I0 or foil cubes are missing, or nothing can be told from them.
    """
    state, notes = XasState(settings), [f"run {uid[:8]} is not in this archive" for uid in protocol.missing]
    notes += [
        f"run {uid[:8]} was cut off; `xbat archive repair` brings what its backup holds" for uid in protocol.unfinished
    ]
    if (dark := protocol.dark()) is not None:
        state.take_dark(dark)
    else:
        notes.append(f"no darks: {settings.dark_counts:g} counts are taken off")
    gathered, kind = _Gathered(_groups(protocol.cubes), notes), ""
    for done, cube in enumerate(protocol.cubes):
        progress("cubes", done, len(protocol.cubes))
        try:
            if cube.stream in (I0, FOIL):
                values = np.stack([state.binned(frame) for frame in cube.frames()])
                take = state.take_i0 if cube.stream == I0 else state.take_foil
                take(values, cube.energy_ev, anew=kind != cube.stream)
            else:
                _take_sample(state, cube, gathered)
        except ValueError as error:
            hint = "".join(f"; {note}" for note in notes)
            raise AnalysisError(
                f"run {protocol.run.uid[:8]}, cube {cube.number} ({cube.phase}): {error}{hint}"
            ) from error
        kind = cube.stream
    progress("cubes", len(protocol.cubes), len(protocol.cubes))
    if not gathered.rows:
        raise AnalysisError(f"run {protocol.run.uid[:8]} holds no cubes of the irradiated spot #{IRRADIATED}")
    known = state.references.known
    if known is None:
        notes.append("the spectra do not change enough for components to be told apart: no fractions")
    energies, components = known if known is not None else (np.empty(0), np.empty((0, 0)))
    masks = state.rates()
    places = dict(gathered.wanted.values())
    groups: list[CubeGroup] = []
    for name, total in gathered.sums.items():
        progress("maps", len(groups), len(gathered.sums))
        groups.append(_group(name, places[name], total, known, masks))
    progress("maps", len(groups), len(groups))
    low, high = state.extremes()
    evolution = _evolution(gathered.rows, known, settings, state.references.e0_ev)
    irradiated = next((group for group in reversed(groups) if group.place == IRRADIATED), None)
    curve, threshold = _curve(irradiated, masks)
    return XasRunAnalysis(
        run_uid=protocol.run.uid,
        run_uids=protocol.run_uids,
        masks=masks,
        low=low,
        high=high,
        shift=state.calibrate(),
        component_energy_ev=energies,
        components=components,
        groups=tuple(groups),
        evolution=evolution,
        curve=curve,
        threshold=threshold,
        notes=tuple(notes),
        parameters={
            "xbat_live": __version__,
            "bin": settings.bin,
            "pre_edge_ev": list(settings.pre_edge_ev),
            "post_edge_ev": list(settings.post_edge_ev),
            "foil_edge_ev": settings.foil_edge_ev,
            "components_given": settings.references is not None,
            "cubes": len(protocol.cubes),
        },
    )


def _groups(cubes: tuple[Cube, ...]) -> dict[int, tuple[str, str]]:
    """Return name and place of the group of every cube that is in one, by the cube's number."""
    samples = [cube for cube in cubes if cube.stream not in (I0, FOIL)]
    found = {cube.number: (cube.phase, cube.place) for cube in samples if cube.phase != "charge"}
    if not any(name == f"end {IRRADIATED}" for name, _ in found.values()):
        charged = [cube for cube in samples if cube.phase == "charge"][-LAST_CUBES:]
        found |= {cube.number: ("charge, last cubes", cube.place) for cube in charged}
    return dict(sorted(found.items()))


def _take_sample(state: XasState, cube: Cube, gathered: _Gathered) -> None:
    wanted, sums, notes = gathered.wanted, gathered.sums, gathered.notes
    images = list(_absorbance(state, cube))
    shape = next((image.shape for image in images if image is not None), None)
    if shape is None:
        notes.append(f"cube {cube.number}: none of its energies is among those of I0; left out")
        return
    order = np.argsort(cube.energy_ev)
    energies = cube.energy_ev[order]
    values = np.full((len(images), *shape), np.nan, np.float32)
    for place, number in enumerate(order):
        if (image := images[number]) is not None:
            values[place] = image
    seen = np.isfinite(values.reshape(len(values), -1)).any(axis=1)
    if not seen.all():
        values, energies = values[seen], energies[seen]
    shift = state.calibrate()
    state.learn(values, energies)
    if cube.place == IRRADIATED:
        low, high = state.extremes()
        grid, spectra, _ = mask_spectra(values, energies, state.rates().labels, shift.shift_ev)
        gathered.rows.append(_Row(cube, grid, spectra[low], spectra[high]))
    if cube.number not in wanted:
        return
    name, _ = wanted[cube.number]
    group = sums.get(name)
    if group is None:
        group = sums[name] = _Sum(values, energies, shift)
    elif group.total.shape == values.shape:
        n = len(group.numbers)
        group.total += values
        group.energy_ev = (group.energy_ev * n + energies) / (n + 1)
    else:
        notes.append(
            f"cube {cube.number}: {len(values)} energies, the others of {name} have {len(group.total)}; left out"
        )
        return
    group.numbers.append(cube.number)
    group.place_time_s += cube.place_time_s


def _absorbance(state: XasState, cube: Cube) -> Iterator[Float32 | None]:
    absorbance = state.absorbance
    for frame, energy_ev in zip(cube.frames(), cube.energy_ev, strict=True):
        yield absorbance(frame, float(energy_ev)) if absorbance.covers(float(energy_ev)) else None


def _group(name: str, place: str, total: _Sum, known: tuple[Float, Float] | None, masks: DoseMasks) -> CubeGroup:
    cube = total.total / np.float32(len(total.numbers))
    edges = edge_energy_map(cube, total.energy_ev, total.shift.shift_ev)
    shape = cube.shape[1:]
    fractions = sigma = np.empty((0, *shape))
    r_factor = np.full(shape, np.nan)
    if known is not None:
        maps = fit_fractions(cube, total.energy_ev, known[1], total.shift.shift_ev, references_energy_ev=known[0])
        fractions, sigma, r_factor = maps.fractions, maps.sigma, maps.r_factor
    place_time_s = total.place_time_s / len(total.numbers)
    lit = np.isfinite(edges.edge_ev)
    spectrum = np.nanmean(cube[:, lit], axis=1) if lit.any() else np.full(len(cube), np.nan)
    return CubeGroup(
        name,
        place,
        tuple(total.numbers),
        place_time_s,
        total.energy_ev,
        np.asarray(spectrum, np.float64),
        fractions,
        sigma,
        r_factor,
        edges.edge_ev,
        edges.sigma_ev,
        masks.rate_gy_s * place_time_s,
    )


def _evolution(rows: list[_Row], known: tuple[Float, Float] | None, settings: XasSettings, e0_ev: float) -> Evolution:
    cubes, grid = [row.cube for row in rows], rows[0].grid_ev
    low = np.stack([np.interp(grid, row.grid_ev, row.low) for row in rows])
    high = np.stack([np.interp(grid, row.grid_ev, row.high) for row in rows])
    normal, fractions = [], []
    for spectra in (low, high):
        column = np.asarray(spectra.T[:, None, :], np.float32)
        flat = normalise(column, grid, e0_ev, settings.pre_edge_ev, settings.post_edge_ev)
        normal.append(np.asarray(flat[:, 0, :].T, np.float64))
        if known is None:
            fractions.append(np.empty((len(rows), 0)))
        else:
            fitted = fit_fractions(column, grid, known[1], references_energy_ev=known[0])
            fractions.append(fitted.fractions[:, 0, :].T)
    time_s = np.array([cube.time_s for cube in cubes])
    return Evolution(
        np.array([cube.number for cube in cubes]),
        tuple(cube.phase for cube in cubes),
        time_s - time_s[0],
        np.array([cube.place_time_s for cube in cubes]),
        np.array([cube.voltage_v for cube in cubes]),
        np.array([cube.state_of_charge for cube in cubes]),
        grid,
        normal[0],
        normal[1],
        fractions[0],
        fractions[1],
    )


def _curve(group: CubeGroup | None, masks: DoseMasks) -> tuple[DoseCurve | None, Threshold]:
    if group is None or not len(group.fractions):
        why = "the components are not known" if group is not None else "the irradiated spot was not measured"
        return None, Threshold(np.nan, (np.nan, np.nan), why)
    lit = masks.rate_gy_s >= masks.edges_gy_s[0]
    curve = fraction_against_dose(group.fractions, group.dose_gy, mask=lit)
    if not curve.dose_gy.size:
        return None, Threshold(np.nan, (np.nan, np.nan), "too few pixels with a fraction and a dose")
    # fractions at 0 or 1 do not spread, but are no better known than the others
    pixel_sigma = float(np.nanmedian(group.fraction_sigma[-1]))
    sigma = np.maximum(curve.sigma[-1], max(pixel_sigma, _LEAST_SIGMA) / np.sqrt(np.maximum(curve.count[-1], 1)))
    return curve, dose_threshold(curve.dose_gy, curve.fraction[-1], sigma)
