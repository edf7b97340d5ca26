"""Mean spectra of a field of view as NXxas and NXxasproc, for runs with several energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbat_live import __version__
from xbat_live.exchange import h5
from xbat_live.exchange.frame_set import DARK, FrameSet
from xbat_live.exchange.record import RunRecord

LEAST_ENERGIES = 3
SAME_ENERGY_EV = 0.5


@dataclass(frozen=True)
class Spectrum:
    """Which frames make one spectrum.

    Attributes
    ----------
    number, spot, field
        Which it is, from 0, and of which frames.
    energies_ev
        Increasing, shape (np,), eV.
    sample, flat
        Per energy the frames' numbers in the table of the frame set.
    """

    number: int
    spot: int
    field: str
    energies_ev: NDArray[np.float64]
    sample: tuple[NDArray[np.int64], ...]
    flat: tuple[NDArray[np.int64], ...]


def spectrum_numbers(energies_ev: Sequence[float]) -> list[int]:
    """Return the number of the spectrum each frame belongs to, from 0: an energy that was left and comes again begins the next one."""
    numbers, number = [], 0
    seen: list[float] = []
    for energy_ev in energies_ev:
        here = [abs(energy_ev - other) <= SAME_ENERGY_EV for other in seen]
        if any(here) and not here[-1]:
            number, seen = number + 1, [energy_ev]
        elif not any(here):
            seen.append(energy_ev)
        numbers.append(number)
    return numbers


def find_spectra(frames: FrameSet) -> list[Spectrum]:
    """Return the spectra of a run: each of the field of view with most accepted frames, at energies that have flats.

    Energies less than 0.5 eV apart are one. Fewer than three energies make no spectrum.
    """
    table = frames.table
    if "energy_ev" not in table:
        return []
    table = table.assign(number=np.arange(len(table)))
    samples, flats = table[table["image_key"] == 0], table[table["image_key"] == 1]
    samples = samples[np.isfinite(samples["energy_ev"].to_numpy(float))].sort_values("time", kind="stable")
    samples = samples.assign(spectrum=spectrum_numbers(samples["energy_ev"].to_numpy(float).tolist()))
    places = {name: samples[name] if name in samples else missing for name, missing in (("spot", 0), ("field", "A"))}
    samples = samples.assign(**places)
    found = []
    for number, part in samples.groupby("spectrum", sort=True):
        (spot, field), most = max(part.groupby(["spot", "field"]), key=lambda item: len(item[1]))
        spectrum = _spectrum(int(number), int(spot), str(field), part=most, flats=flats)
        if len(spectrum.energies_ev) >= LEAST_ENERGIES:
            found.append(spectrum)
    return found


def _spectrum(number: int, spot: int, field: str, *, part: Any, flats: Any) -> Spectrum:
    energies, sample, flat = [], [], []
    given = np.sort(part["energy_ev"].to_numpy(float))
    given = given[np.isfinite(given)]
    starts = np.flatnonzero(np.diff(given, prepend=-np.inf) > SAME_ENERGY_EV)
    flat_ev = flats["energy_ev"].to_numpy(float)
    for energy in given[starts]:
        here = np.abs(part["energy_ev"].to_numpy(float) - energy) <= SAME_ENERGY_EV
        open_beam = np.abs(flat_ev - energy) <= SAME_ENERGY_EV
        if open_beam.any():
            energies.append(float(part["energy_ev"].to_numpy(float)[here].mean()))
            sample.append(part["number"].to_numpy(np.int64)[here])
            flat.append(flats["number"].to_numpy(np.int64)[open_beam])
    return Spectrum(number, spot, field, np.array(energies), tuple(sample), tuple(flat))


@dataclass(frozen=True)
class Reduced:
    """A spectrum, per energy, shape (np,): counts with and without the sample, and the time they were counted, s."""

    spectrum: Spectrum
    incoming: NDArray[np.float64]
    absorbed: NDArray[np.float64]
    time_s: NDArray[np.float64]

    @property
    def title(self) -> str:
        """Which frames they are of."""
        return f"spectrum {self.spectrum.number + 1}, spot {self.spectrum.spot}, field {self.spectrum.field}"


def write_spectra(
    file: Any, record: RunRecord, frames: FrameSet, spectra: list[Spectrum], totals: NDArray[np.float64]
) -> None:
    """Write an NXxas and an NXxasproc entry per spectrum.

    `totals` are the sums of all pixels of each frame, counts. Incoming is the mean of the flats of an energy, brought to the sample's
    exposure; absorbed the mean of its sample frames; both without the mean dark. The absorption is ``ln(incoming / absorbed)`` of the
    whole field (Beer-Lambert); what each pixel says is in the frames.
    """
    exposure_s = frames.column("exposure_s")
    used = frames.table["image_key"].isin((0, 1)).to_numpy()
    if exposure_s is None or not np.isfinite(exposure_s[used]).all():
        exposure_s = np.ones(len(frames))  # of one frame it is not known: none is brought to another's
    dark = totals[frames.table["stream"].to_numpy(str) == DARK]
    offset = float(dark.mean()) if len(dark) else 0.0
    for number, spectrum in enumerate(spectra):
        name = "" if len(spectra) == 1 else f"_{number + 1}"
        absorbed = np.array([totals[rows].mean() - offset for rows in spectrum.sample])
        incoming = np.array(
            [
                ((totals[flat] - offset) / exposure_s[flat]).mean() * exposure_s[rows].mean()
                for rows, flat in zip(spectrum.sample, spectrum.flat, strict=True)
            ]
        )
        time_s = np.array([exposure_s[rows].sum() for rows in spectrum.sample])
        reduced = Reduced(spectrum, incoming, absorbed, time_s)
        _raw(h5.group(file, f"xas{name}", "NXentry"), record, frames, reduced)
        _processed(h5.group(file, f"xas_processed{name}", "NXentry"), f"/xas{name}", record, reduced)


def _raw(entry: Any, record: RunRecord, frames: FrameSet, reduced: Reduced) -> None:
    from xbat_live.exchange.nexus import iso, put_source, title_of

    spectrum, incoming, absorbed = reduced.spectrum, reduced.incoming, reduced.absorbed
    entry.attrs["default"] = "data"
    h5.put(entry, "definition", "NXxas")
    h5.put(entry, "title", f"{title_of(record)}: {reduced.title}, mean over the field of view")
    h5.put(entry, "start_time", iso(float(frames.table["time"].to_numpy(float)[spectrum.sample[0]].min())))
    instrument = h5.group(entry, "instrument", "NXinstrument")
    put_source(instrument, frames)
    mono = h5.group(instrument, "monochromator", "NXmonochromator")
    h5.put(mono, "energy", spectrum.energies_ev, "eV")
    h5.put(h5.group(instrument, "incoming_beam", "NXdetector"), "data", incoming.round().astype(np.int64), "counts")
    signal = h5.put(
        h5.group(instrument, "absorbed_beam", "NXdetector"), "data", absorbed.round().astype(np.int64), "counts"
    )
    signal.attrs["signal"] = 1
    h5.put(h5.group(entry, "sample", "NXsample"), "name", str(record.start.get("sample", "")))
    monitor = h5.group(entry, "monitor", "NXmonitor")
    h5.put(monitor, "mode", "timer")
    h5.put(monitor, "preset", float(reduced.time_s.mean()), "s")
    h5.put(monitor, "data", incoming.round().astype(np.int64), "counts")
    h5.put(entry, "mode", "Transmission")
    data = h5.group(entry, "data", "NXdata")
    data.attrs["signal"], data.attrs["axes"], data.attrs["energy_indices"] = "absorbed_beam", ["energy"], 0
    data["energy"] = mono["energy"]
    data["absorbed_beam"] = instrument["absorbed_beam/data"]
    data["incoming_beam"] = instrument["incoming_beam/data"]


def _processed(entry: Any, raw: str, record: RunRecord, reduced: Reduced) -> None:
    from xbat_live.exchange.nexus import title_of

    spectrum = reduced.spectrum
    entry.attrs["default"] = "data"
    h5.put(entry, "definition", "NXxasproc")
    h5.put(entry, "title", f"{title_of(record)}: {reduced.title}, absorption of the field of view")
    h5.put(h5.group(entry, "sample", "NXsample"), "name", str(record.start.get("sample", "")))
    process = h5.group(entry, "XAS_data_reduction", "NXprocess")
    h5.put(process, "program", "xbat_live")
    h5.put(process, "version", __version__)
    h5.put(process, "date", datetime.now(UTC).isoformat(timespec="seconds"))
    parameters = h5.group(process, "parameters", "NXparameters")
    h5.put(parameters, "raw_file", f"{raw} of this file")
    h5.put(parameters, "frames", np.array([len(rows) for rows in spectrum.sample], np.int64))
    h5.put(parameters, "flats", np.array([len(rows) for rows in spectrum.flat], np.int64))
    data = h5.group(entry, "data", "NXdata")
    data.attrs["signal"], data.attrs["axes"], data.attrs["energy_indices"] = "data", ["energy"], 0
    h5.put(data, "energy", spectrum.energies_ev, "eV")
    with np.errstate(divide="ignore", invalid="ignore"):
        absorption = np.log(reduced.incoming / reduced.absorbed)
    told = h5.put(data, "data", absorption, "1")
    told.attrs["signal"], told.attrs["long_name"] = 1, "ln(incoming / absorbed)"
