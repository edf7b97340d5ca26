"""A cube of frames as a flyer: the monochromator sweeps the energy while the camera takes frame after frame."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from event_model import compose_stream_resource

from xbat_live.devices.bragg import SI111_SPACING_ANGSTROM, bragg_deg, energy_of_bragg_ev
from xbat_live.devices.completion import completed_after

if TYPE_CHECKING:
    from ophyd.status import Status

    from xbat_live.devices.camera import TxmCamera
    from xbat_live.devices.file_store import FrameRows
    from xbat_live.devices.monochromator import Monochromator

logger = logging.getLogger(__name__)

ENCODER_DATASET = "/entry/instrument/NDAttributes/MonoBragg"
TIME_DATASET = "/entry/instrument/NDAttributes/NDArrayTimeStamp"
LEAD_S = 0.15
"""Time of the motor before the first frame and after the last one: ramps, and the camera's start."""
_MIMETYPE = "application/x-hdf5"
_ENCODER_LAG_S = 1.0
_POLL_S = 0.01


class SweepError(RuntimeError):
    """A sweep cannot be used: energies are missing or make no sense. The message names file, dataset and remedy."""


class EnergySweep:
    """One cube: a move of the Bragg axis at constant angular velocity, `n_frames` frames meanwhile.

    A flyer for `guarded_flight`, and something to read into an Event afterwards: the key ``<camera>_image`` is external
    (StreamResource and StreamDatum, shape (n_frames, ny, nx)), ``<name>_energy_ev`` and ``<name>_time_s`` (n_frames,) say at
    which energy and when each frame was taken. Energies come from the encoder value that the detector's IOC keeps with every
    frame (an NDAttribute ``MonoBragg``, deg), never from the commanded motion; that lies in the same file as the frames and
    survives whatever happens to this process.

    Parameters
    ----------
    camera
        Takes the frames; the plan has staged it.
    mono
        Its ``bragg`` is swept: a motor record.
    name
        Prefix of the keys.
    n_frames
        Frames of a cube.
    exposure_s, period_s
        Exposure of a frame, s, and from the start of one to that of the next; None: without a gap.
    start_ev, stop_ev
        Energies of the first and the last frame, eV, in either order.
    spacing_angstrom
        Lattice spacing of the crystal.
    encoder_dataset
        Dataset of the encoder values in the frame file, deg.

    Raises
    ------
    ValueError
        Less than two frames, an exposure that is not positive or longer than the period, equal energies.
    """

    parent = None

    def __init__(
        self,
        camera: TxmCamera,
        mono: Monochromator,
        *,
        name: str = "cube",
        n_frames: int = 580,
        exposure_s: float = 0.018,
        period_s: float | None = None,
        start_ev: float = 8266.0,
        stop_ev: float = 8878.0,
        spacing_angstrom: float = SI111_SPACING_ANGSTROM,
        encoder_dataset: str = ENCODER_DATASET,
    ) -> None:
        if n_frames < 2:
            raise ValueError(f"{name}: {n_frames} frames; a cube has at least two energies")
        if not exposure_s > 0:
            raise ValueError(f"{name}: exposure {exposure_s:g} s is not positive")
        if period_s is not None and period_s < exposure_s:
            raise ValueError(f"{name}: period {period_s:g} s is shorter than the exposure of {exposure_s:g} s")
        if not abs(start_ev - stop_ev) > 0:
            raise ValueError(f"{name}: it begins and ends at {start_ev:g} eV; a sweep has two different energies")
        self.camera, self.mono, self.name = camera, mono, name
        self.n_frames, self.exposure_s = n_frames, exposure_s
        self.frame_time_s = exposure_s if period_s is None else period_s
        self.spacing_angstrom, self.encoder_dataset = spacing_angstrom, encoder_dataset
        self.ends_deg = float(bragg_deg(start_ev, spacing_angstrom)), float(bragg_deg(stop_ev, spacing_angstrom))
        self.reverse = False
        """The next cube goes from `stop_ev` to `start_ev`."""
        self.started: Callable[[FrameRows], None] = lambda rows: None
        """Called when the camera has been started, with the place of the frames to come."""
        self.rows: FrameRows | None = None
        """Place of the frames of the cube taken last."""
        self.energy_ev: npt.NDArray[np.float64] = np.full(n_frames, np.nan)
        """Encoder energies of that cube."""
        self._time_s: npt.NDArray[np.float64] = np.full(n_frames, np.nan)
        self._resource: tuple[str, Any] | None = None
        self._status: Any = None
        self._moved: Any = None

    # -- what is planned

    @property
    def beam_time_s(self) -> float:
        """Time of the beam for one cube, s."""
        return self.n_frames * self.frame_time_s + LEAD_S

    @property
    def velocity_deg_s(self) -> float:
        """Speed of the Bragg axis during a sweep, deg/s."""
        first, last = self.ends_deg
        return abs(last - first) / (self.n_frames * self.frame_time_s)

    @property
    def way_deg(self) -> tuple[float, float]:
        """Where the move of the next cube begins and ends, deg: a little beyond the energies, for the ramps."""
        first, last = self.ends_deg[::-1] if self.reverse else self.ends_deg
        beyond = LEAD_S * self.velocity_deg_s * (1 if last > first else -1)
        return first - beyond / 2, last + beyond

    @property
    def energies_ev(self) -> tuple[float, ...]:
        """Energies that the sweep is planned to have, eV: equal steps of the angle. For the reservation of its dose."""
        angles = np.linspace(*self.ends_deg, self.n_frames)
        return tuple(energy_of_bragg_ev(angles, self.spacing_angstrom).tolist())

    @property
    def moving(self) -> bool:
        """True while the move of the last cube goes on: it reaches beyond the energies, and may outlast the frames."""
        return self._moved is not None and not self._moved.done

    @property
    def covered(self) -> float:
        """Part of the planned range of energies that the last cube has by its encoder."""
        first, last = energy_of_bragg_ev(np.array(self.ends_deg), self.spacing_angstrom)
        return float(np.ptp(self.energy_ev) / abs(last - first))

    # -- flyer

    def kickoff(self) -> Status:
        """Start the move and the camera."""
        self.energy_ev = np.full(self.n_frames, np.nan)
        self._time_s = np.full(self.n_frames, np.nan)
        self.rows = None
        self._moved = self.mono.bragg.set(self.way_deg[1])
        self._status, rows = self.camera.acquire_rows(self.n_frames)
        self.started(rows)
        from ophyd.status import Status  # not at the top: a forecast walks plans without ophyd

        begun = Status(obj=self)
        begun.set_finished()
        return begun

    def complete(self) -> Status:
        """Return the status that is done when all frames are on disk and their energies are known.

        Raises
        ------
        RuntimeError
            Nothing was kicked off.
        """
        if self._status is None:
            raise RuntimeError(f"{self.name}: kick it off before completing it")
        acquisition, self._status = self._status, None

        def keep() -> None:
            self.rows = self.camera.last_rows
            self._read_encoder()

        return completed_after(self, acquisition, keep)

    def stop(self, *, success: bool = False) -> None:
        """Stop the camera and the motor."""
        self.camera.stop(success=success)
        self.mono.bragg.stop(success=success)

    # -- what an Event of a cube holds

    @property
    def image_key(self) -> str:
        """Name of the frames in the Event."""
        return f"{self.camera.name}_image"

    def describe(self) -> dict[str, Any]:
        """Return the data keys."""
        image = self.camera.make_data_key()
        shape = [self.n_frames, *tuple(image["shape"])[1:]]
        own = {"source": f"{self.camera.prefix}{self.encoder_dataset}", "dtype": "array", "shape": [self.n_frames]}
        return {
            self.image_key: {**image, "shape": shape, "external": "STREAM:", "dtype_numpy": "<u2"},
            f"{self.name}_energy_ev": {**own, "units": "eV", "dtype_numpy": "<f8"},
            f"{self.name}_time_s": {**own, "units": "s", "dtype_numpy": "<f8"},
        }

    def read(self) -> dict[str, Any]:
        """Return energies and times of the frames of the last cube."""
        now = time.time()
        return {
            f"{self.name}_energy_ev": {"value": self.energy_ev.tolist(), "timestamp": now},
            f"{self.name}_time_s": {"value": self._time_s.tolist(), "timestamp": now},
        }

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield a StreamResource for a new file, and the StreamDatum of the last cube.

        Raises
        ------
        SweepError
            The cube does not begin at a multiple of its length: frames of another acquisition lie before it in the same file.
        """
        del index
        rows, self.rows = self.rows, None
        if rows is None:
            return
        number, rest = divmod(rows.first, self.n_frames)
        if rest:
            raise SweepError(
                f"{rows.file}: a cube of {self.n_frames} frames begins at row {rows.first} of {rows.dataset}; stage the camera anew after "
                "a cube that was cut short"
            )
        where = f"{rows.file}:{rows.dataset}"
        if self._resource is None or self._resource[0] != where:
            document, compose_datum = compose_stream_resource(
                mimetype=_MIMETYPE,
                uri=f"file://localhost{rows.file}",
                data_key=self.image_key,
                parameters={
                    "dataset": rows.dataset,
                    "swmr": True,
                    "multiplier": self.n_frames,
                    "chunk_shape": [1],
                },
            )
            self._resource = where, compose_datum
            yield "stream_resource", dict(document)
        datum = self._resource[1](indices={"start": number, "stop": number + 1})
        yield "stream_datum", dict(datum)

    # -- inside

    def _read_encoder(self) -> None:
        """Read the encoder values of the frames from their file.

        Raises
        ------
        SweepError
            They are not there, or did not change.
        """
        import h5py

        rows = self.rows
        assert rows is not None  # `complete` has just set it
        which = slice(rows.first_captured, rows.first_captured + rows.count)
        deadline = time.monotonic() + _ENCODER_LAG_S
        while True:
            with h5py.File(rows.file, "r", libver="latest", swmr=True) as file:
                if self.encoder_dataset not in file:
                    raise SweepError(
                        f"{rows.file} has no {self.encoder_dataset}: give the camera an NDAttribute MonoBragg with the encoder's value, deg"
                    )
                angles = np.asarray(file[self.encoder_dataset][which], dtype=np.float64)
                times = np.asarray(file[TIME_DATASET][which], dtype=np.float64) if TIME_DATASET in file else None
            if angles.size == rows.count or time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        if angles.size != rows.count:
            raise SweepError(f"{rows.file}: {angles.size} of {rows.count} encoder values in {self.encoder_dataset}")
        if rows.count > 1 and not np.ptp(angles) > 0:
            raise SweepError(
                f"{self.encoder_dataset} of {rows.file} stayed at {angles[0]:g} deg during the sweep: did the monochromator move, and is "
                "the attribute updated with every frame?"
            )
        self.energy_ev = energy_of_bragg_ev(angles, self.spacing_angstrom)
        if times is not None and times.size == rows.count:
            self._time_s = times
