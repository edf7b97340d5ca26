"""A run as NeXus: all frames as NXtomo, spectra as NXxas and NXxasproc where several energies were measured, dose beside them.

Definitions: nexusformat.org, application definitions NXtomo 2.0, NXxas 1.0, NXxasproc 1.0.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from xbat_live import __version__
from xbat_live.exchange import h5
from xbat_live.exchange.frame_set import FLAT, INVALID, FrameSet, Progress
from xbat_live.exchange.nexus_xas import find_spectra, write_spectra
from xbat_live.exchange.record import RunRecord, write_record

SUFFIXES = (".nxs", ".h5", ".hdf5")
DOSE_REFERENCES = {
    "attenuation": "Jousseaume et al. 2023: fluence times mass attenuation; see docs/explanation/dose-model.md",
    "energy": "fluence times mass energy-absorption; see docs/explanation/dose-model.md",
    "photo": "fluence times photoelectric cross section; see docs/explanation/dose-model.md",
    "legacy_jousseaume": "Jousseaume et al. 2023, as printed; see docs/explanation/dose-model.md",
}
_MOTION = {
    "shift_y_px": (
        "px",
        "registered shift of the content against the first accepted frame of its field and energy, rows",
    ),
    "shift_x_px": ("px", "the same along the columns"),
    "sample_y_um": ("um", "sample coordinate in the middle of the frame"),
    "sample_x_um": ("um", "sample coordinate in the middle of the frame"),
}


def write_nexus(path: Path, record: RunRecord, frames: FrameSet, progress: Progress | None = None) -> None:
    """Write a run into a new file; see the module for what is where.

    Raises
    ------
    ExchangeError
        No room on the disk.
    """
    with h5.new_file(path, frames.nbytes) as file:
        file.attrs["default"] = "entry"
        file.attrs["creator"] = f"xbat_live {__version__}"
        entry = h5.group(file, "entry", "NXentry")
        entry.attrs["default"] = "data"
        h5.put(entry, "definition", "NXtomo").attrs["version"] = "2.0"
        _about(entry, record)
        data = _instrument(entry, record, frames)
        _sample(entry, record, frames)
        _control(entry, frames)
        _default_plot(entry, frames)
        _verdicts(entry, frames)
        _dose(entry, record, frames)
        places = np.arange(len(frames))
        streams = frames.table["stream"].to_numpy(str)
        rows = frames.table["row"].to_numpy(np.int64)
        targets = {name: [(data, rows[streams == name], places[streams == name])] for name in frames.stacks}
        write_record(h5.group(entry, "bluesky"), record, h5.places_of(targets))
        spectra = find_spectra(frames)
        totals = np.zeros(len(frames)) if spectra else None
        h5.put_frames(targets, frames, progress, totals=totals)
        if totals is not None:
            write_spectra(file, record, frames, spectra, totals)


def iso(time_s: float) -> str:
    """Return a Unix time as NeXus has it, UTC."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")


def title_of(record: RunRecord) -> str:
    """Return a title: plan and sample."""
    start = record.start
    return " ".join(str(start[key]) for key in ("plan_name", "sample", "scan_id") if start.get(key) not in (None, ""))


def _about(entry: Any, record: RunRecord) -> None:
    start, stop = record.start, record.stop
    h5.put(entry, "title", title_of(record) or start["uid"])
    h5.put(entry, "start_time", iso(start["time"]))
    if stop:
        h5.put(entry, "end_time", iso(stop["time"]))
        h5.put(entry, "exit_status", str(stop.get("exit_status", "")))
    h5.put(entry, "entry_identifier", str(start["uid"]))
    h5.put(entry, "program_name", "xbat_live").attrs["version"] = str(
        start.get("versions", {}).get("xbat_live", __version__)
    )
    if start.get("operator"):
        h5.put(h5.group(entry, "user", "NXuser"), "name", str(start["operator"]))


def _instrument(entry: Any, record: RunRecord, frames: FrameSet) -> Any:
    instrument = h5.group(entry, "instrument", "NXinstrument")
    put_source(instrument, frames)
    if (energy := frames.column("energy_ev")) is not None:
        mono = h5.group(instrument, "monochromator", "NXmonochromator")
        h5.put(mono, "energy", energy, "eV")
    detector = h5.group(instrument, "detector", "NXdetector")
    h5.put(detector, "image_key", frames.table["image_key"].to_numpy(np.int32))
    data = h5.empty_stack(detector, "data", len(frames), frames)
    if (exposure := frames.column("exposure_s")) is not None:
        h5.put(detector, "count_time", exposure, "s")
    if frames.pixel_size_um is not None:
        h5.put(detector, "x_pixel_size", frames.pixel_size_um, "um")
        h5.put(detector, "y_pixel_size", frames.pixel_size_um, "um")
    return data


def put_source(instrument: Any, frames: FrameSet) -> None:
    """Write the NXsource that the definitions ask for."""
    source = h5.group(instrument, "source", "NXsource")
    h5.put(source, "type", "Synchrotron X-ray Source")
    h5.put(source, "name", "")
    h5.put(source, "probe", "x-ray")
    if (ring := frames.column("ring_current_ma")) is not None:
        h5.put(source, "current", ring, "mA")


def _sample(entry: Any, record: RunRecord, frames: FrameSet) -> None:
    sample = h5.group(entry, "sample", "NXsample")
    h5.put(sample, "name", str(record.start.get("sample", "")))
    if record.start.get("material"):
        h5.put(
            sample, "description", f"{record.start['material']} in {record.start.get('cell') or 'a cell of its own'}"
        )
    angle = frames.column("angle_deg")
    told = h5.put(sample, "rotation_angle", np.zeros(len(frames)) if angle is None else np.nan_to_num(angle), "deg")
    if angle is None:
        told.attrs["comment"] = "not recorded: 0 stands for all frames"
    for axis in "xyz":
        if (position := frames.column(f"stage_{axis}_um")) is not None:
            h5.put(sample, f"{axis}_translation", position, "um")


def _control(entry: Any, frames: FrameSet) -> None:
    current, open_s = frames.column("i0_current_na"), frames.column("open_time_s")
    if current is None:
        return
    control = h5.group(entry, "control", "NXmonitor")
    h5.put(control, "mode", "timer")
    if open_s is None:
        h5.put(control, "data", current, "nA")
    else:
        h5.put(control, "data", current * open_s, "nC").attrs["long_name"] = "ion chamber times shutter-open time"
        h5.put(control, "count_time", open_s, "s")


def _default_plot(entry: Any, frames: FrameSet) -> None:
    """Make the NXdata that viewers open: the stack with time, and distances on the sample, as axes."""
    data = h5.group(entry, "data", "NXdata")
    data.attrs["signal"] = "data"
    data.attrs["axes"] = ["elapsed_time", "y", "x"]
    data["data"] = entry["instrument/detector/data"]
    data["image_key"] = entry["instrument/detector/image_key"]
    data["rotation_angle"] = entry["sample/rotation_angle"]
    time_s = frames.table["time"].to_numpy(float)
    first = float(np.nanmin(time_s)) if np.isfinite(time_s).any() else 0.0
    h5.put(data, "elapsed_time", time_s - first, "s").attrs["start"] = iso(first)
    for axis, n in zip("yx", frames.shape_yx, strict=True):
        middle = np.arange(n) - (n - 1) / 2
        size_um = frames.pixel_size_um
        h5.put(data, axis, middle * (size_um or 1.0), "px" if size_um is None else "um")
    for name, indices in {"elapsed_time": 0, "rotation_angle": 0, "image_key": 0, "y": 1, "x": 2}.items():
        data.attrs[f"{name}_indices"] = indices


def _verdicts(entry: Any, frames: FrameSet) -> None:
    quality = h5.group(entry, "live_analysis", "NXcollection")
    quality.attrs["description"] = f"verdict on every frame; those with image_key {INVALID} are not fit for analysis"
    h5.put(quality, "stream", frames.table["stream"].to_numpy(object))
    h5.put(quality, "seq_num", frames.table["seq_num"].to_numpy(np.int64))
    h5.put(quality, "verdict", frames.table["verdict"].fillna("").to_numpy(object))
    for name, (unit, meaning) in _MOTION.items():
        if (values := frames.column(name)) is not None:
            h5.put(quality, name, values, unit).attrs["long_name"] = meaning


def _dose(entry: Any, record: RunRecord, frames: FrameSet) -> None:
    told = record.start.get("dose")
    if not isinstance(told, dict):
        return
    model = str(told.get("model", record.start.get("dose_model", "")))
    dose = h5.group(entry, "dose", "NXcollection")
    h5.put(dose, "model", model)
    h5.put(dose, "version", str(told.get("model_version", "")))
    h5.put(dose, "reference", DOSE_REFERENCES.get(model, "docs/explanation/dose-model.md"))
    h5.put(dose, "program", f"xbat_live {record.start.get('versions', {}).get('xbat_live', '')}".strip())
    h5.put(dose, "material", str(told.get("material", "")))
    h5.put(dose, "layer", str(told.get("layer", "")))
    if record.start.get("dose_limit_gy") is not None:
        h5.put(dose, "limit", float(record.start["dose_limit_gy"]), "Gy")
    if told.get("sigma_rel") is not None:
        h5.put(dose, "relative_uncertainty", float(told["sigma_rel"]), "1")
    h5.put(dose, "definition", json.dumps(told)).attrs["description"] = "layers, beam, limits; JSON, units in the names"
    for name, column, meaning in (
        ("after_frame", "dose_gy", "highest dose in the footprint after the frame, reservations included"),
        ("reserved", "dose_reserved_gy", "rise of it that was reserved before the exposure"),
        ("delivered", "dose_delivered_gy", "highest dose added by the exposure"),
    ):
        if (values := frames.column(column)) is not None:
            h5.put(dose, name, values, "Gy").attrs["long_name"] = meaning
    flat = frames.table["stream"].to_numpy(str) == FLAT
    if flat.any():
        dose.attrs["comment"] = "flats are counted at their own stage position, not on the sample"
