"""Recordings from frames alone (Xradia, TIFF, HDF5, Zarr), of any beamline: what the headers do not tell is inferred, and said."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from xbat_live.recordings import Recording as Frame
from xbat_live.recordings import RecordingError, find_all, read_all
from xbat_live.recordings.model import FrameKind
from xbat_live.replay.recording import Exposure, FramePlace, Recording, ReplayError

FRAMES = "frames.h5"
STREAM_OF: dict[FrameKind, str] = {"sample": "primary", "flat": "flat", "dark": "dark"}
DEFAULT_EXPOSURE_S = 0.1
REFERENCE_UM = (-250.0, 0.0)


def load_frames(
    path: Path,
    *,
    scratch: Path,
    config_file: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *told: None,
) -> Recording:
    """Read frames as a recording: a XANES series when they have several energies, else a series in time.

    Parameters
    ----------
    path
        A file or a folder.
    scratch
        Folder that gets the frames as HDF5.
    config_file
        Experiment file for sample, beam and dose; None: an assumed one, which the notes say.

    Raises
    ------
    ReplayError
        The frames cannot be read, or there are no frames of the sample or no references among them.
    """
    try:
        found = [frame for frame in find_all([path]) if frame.valid]
        groups: dict[FrameKind, list[Frame]] = {
            kind: [frame for frame in found if frame.kind == kind] for kind in STREAM_OF
        }
        if not groups["sample"]:
            raise ReplayError(f"{path}: no frames of the sample there, only references")
        if not groups["flat"]:
            raise ReplayError(
                f"{path}: no reference frames there (files with 'ref' or 'flat' in their names), which every series takes"
            )
        places = dict(copied(found, read_all(found), scratch / FRAMES, progress))
    except RecordingError as error:
        raise ReplayError(str(error)) from error
    return replace(of_frames(groups, places, config_file=config_file, base=path.parent), source=f"frames of {path}")


def of_frames(
    groups: Mapping[FrameKind, list[Frame]], places: dict[Frame, FramePlace], *, config_file: Path | None, base: Path
) -> Recording:
    """Return frames of the sample, flats and darks as a recording.

    Parameters
    ----------
    groups
        By kind; there are samples and flats.
    places
        Where their pixels are.
    config_file
        As in `load_frames`.
    base
        Folder that relative paths start from, when there is no experiment file.

    Raises
    ------
    ReplayError
        The experiment file cannot be read.
    """
    series = _Series(groups["sample"], groups["flat"], groups["dark"])
    content, notes = _content(series, config_file, base)
    flux = str(content["beam"]["flux"])
    exposures = tuple(series.exposures(places, flux_ph_s=_photons(flux)))
    start = {
        "uid": "",
        "plan_name": content["plan"]["name"],
        "sample": content["sample"]["name"],
        "config": content,
        "time": min(e.time_s for e in exposures),
        "pixel_size_um": series.pixel_size_um,
    }
    return Recording(start, {}, exposures, (), notes=tuple(notes), frames_alone=True)


def _photons(text: str) -> float:
    from xbat_live.units import parse_quantity

    return parse_quantity(text, "ph/s")


def copied(
    frames: Sequence[Frame], images: Iterable[Any], file: Path, progress: Callable[[str, int, int], None]
) -> Iterator[tuple[Frame, FramePlace]]:
    """Write the pixels of the frames, `images`, as counts of 16 bits into one file, and yield where each is."""
    import h5py

    with h5py.File(file, "w") as store:
        stack = store.create_dataset("frames", (len(frames), *frames[0].shape), "u2", chunks=(1, *frames[0].shape))
        for number, (frame, pixels) in enumerate(zip(frames, images, strict=True)):
            stack[number] = np.clip(np.rint(np.nan_to_num(np.asarray(pixels, np.float64))), 0, 65535)
            yield frame, FramePlace(file, "frames", number)
            progress("frames read", number + 1, len(frames))


@dataclass
class _Series:
    """The frames as a series would have taken them: at every point each energy once, with its share of the references."""

    samples: list[Frame]
    flats: list[Frame]
    darks: list[Frame]

    def __post_init__(self) -> None:
        self.energies_ev = list(dict.fromkeys(f.energy_ev for f in self.samples if f.energy_ev is not None))
        self.points = max(self._count(self.samples, energy) for energy in self._energies)
        counts = [self._count(self.flats, energy) for energy in self._energies]
        self.flats_per_point = max(1, min(counts) // self.points)
        self.origin_um = next((f.position_um[:2] for f in self.samples if f.position_um), (0.0, 0.0))
        self.pixel_size_um = next((f.pixel_size_um for f in self.samples if f.pixel_size_um), 1.0)
        self.exposure_s = next((f.exposure_s for f in self.samples if f.exposure_s), DEFAULT_EXPOSURE_S)

    @property
    def _energies(self) -> list[float | None]:
        return [*self.energies_ev] or [None]

    @staticmethod
    def _count(frames: Sequence[Frame], energy_ev: float | None) -> int:
        known = [f for f in frames if f.energy_ev is not None]
        return sum(f.energy_ev == energy_ev for f in known) if energy_ev is not None and known else len(frames)

    def place_um(self, frame: Frame) -> tuple[float, float]:
        """Return the stage position, the first frame of the sample being at 0, um; there as well when the header does not tell."""
        if frame.position_um is None:
            return (0.0, 0.0) if frame.kind == "sample" else REFERENCE_UM
        return frame.position_um[0] - self.origin_um[0], frame.position_um[1] - self.origin_um[1]

    def exposures(self, places: dict[Frame, FramePlace], *, flux_ph_s: float) -> Iterator[Exposure]:
        """Yield the exposures in the order in which the plan takes them; times are those of the headers where they ascend."""
        rows = [(0, "dark", frame) for frame in self.darks]
        for energy_ev in self._energies:
            fitting = [f for f in self.flats if energy_ev is None or f.energy_ev in (None, energy_ev)]
            rows += [(min(i // self.flats_per_point, self.points - 1), "flat", f) for i, f in enumerate(fitting)]
            mine = [f for f in self.samples if energy_ev is None or f.energy_ev == energy_ev]
            rows += [(i, "primary", f) for i, f in enumerate(mine)]
        energies: dict[float | None, int] = {energy: number for number, energy in enumerate(self.energies_ev)}
        order = {"dark": 0, "flat": 1, "primary": 2}
        rows.sort(key=lambda row: (row[0], energies.get(row[2].energy_ev, 0), order[row[1]]))
        now_s, counts = 0.0, dict.fromkeys(order, 0)
        for number, (point, stream, frame) in enumerate(rows):
            now_s = max(now_s + 1.0, frame.time_s or 0.0) if number else (frame.time_s or 1.0)
            counts[stream] += 1
            place, energy_ev = self.place_um(frame), math.nan if frame.energy_ev is None else frame.energy_ev
            # a reference of another exposure was whole as well: the plan knows one exposure, and would call it cut short
            exposure_s = (frame.exposure_s if stream == "primary" else None) or self.exposure_s
            yield Exposure(
                number=number,
                stream=stream,
                seq_num=counts[stream],
                time_s=now_s,
                point=point,
                field={"primary": "A", "flat": "reference", "dark": "dark"}[stream],
                spot=0,
                attempt=0,
                stage_um=place,
                setpoint_um=(0.0, 0.0) if stream == "primary" else place,
                energy_ev=energy_ev,
                exposure_s=exposure_s,
                open_time_s=0.0 if stream == "dark" else exposure_s,
                flux_ph_s=0.0 if stream == "dark" else flux_ph_s,
                frame=places[frame],
                data={"mono_energy": 0.0 if math.isnan(energy_ev) else energy_ev, "point_exposure_s": exposure_s},
            )


def _content(series: _Series, config_file: Path | None, base: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration, as an experiment file would say it, and what was assumed."""
    if config_file is None:
        content = tomllib.loads(files("xbat_live.cli").joinpath("experiment.toml").read_text())
        content["sample"]["name"] = "recorded"
        notes = [
            f"the headers tell no flux and no sample: doses are those of {content['beam']['flux']} on "
            f"{content['sample'].get('cell', 'the default cell')} with a limit of "
            f"{content['dose']['limit']}; name yours with --config or --set"
        ]
    else:
        try:
            content, notes = tomllib.loads(config_file.read_text()), []
        except (OSError, ValueError) as error:  # no TOML, or no text, is a ValueError
            raise ReplayError(f"{config_file}: cannot be read as an experiment file: {error}") from error
    if not any(frame.position_um for frame in series.samples):
        notes.append("the headers tell no positions: all frames are taken to be of one field of view")
    reference = series.place_um(series.flats[0])
    plan: dict[str, Any] = {
        "name": "xanes_series" if series.energies_ev else "operando_txm_series",
        "n_points": series.points,
        "period": "0 s",
        "spot": ["0 um", "0 um"],
        "fields": [["0 um", "0 um"]],
        "reference": [f"{reference[0]} um", f"{reference[1]} um"],
        "n_flats": series.flats_per_point,
        "n_darks": len(series.darks),
        "max_retakes": 0,
    }
    if series.energies_ev:
        plan["energies"] = [f"{energy_ev} eV" for energy_ev in series.energies_ev]
        content.setdefault("beam", {})["energy"] = plan["energies"][0]
    content["plan"], content["protocol"] = plan, []
    camera = {"pixel_size": f"{series.pixel_size_um} um", "exposure": f"{series.exposure_s} s"}
    content["camera"] = {
        **{key: value for key, value in content.get("camera", {}).items() if key != "roi"},
        **camera,
    }
    content.setdefault("base_directory", str((config_file.parent if config_file else base).resolve()))
    return content, notes
