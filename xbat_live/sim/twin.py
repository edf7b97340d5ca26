"""The digital twin: one seeded physical model behind all process variables of the simulated beamline.

No Channel Access here. Methods may be called from any thread: short state changes hold one lock, rendering another,
so that reading a value never waits for an image.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xbat_live.sim.cell import Cell
from xbat_live.sim.chemistry import Electrode, Potentiostat, damage_rate_factor
from xbat_live.sim.clock import TwinClock
from xbat_live.sim.exposure import DoseTruth, ShutterLog, check_share
from xbat_live.sim.hindrance import HinderedReaction
from xbat_live.sim.imager import Shot, make_imager
from xbat_live.sim.instabilities import Vibration, beam_offset_um, drift_um, ring_current_ma, seeded, vibration_of_frame
from xbat_live.sim.optics import BeamProfile
from xbat_live.sim.render import SceneState
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.stage import AXES, NO_MOTION, StageModel
from xbat_live.sim.truth import Frame, FrameTruth, Roi, TruthLog

__all__ = ["AXES", "Twin"]

_KINETICS_STREAM = 67
_I0_STREAM = 71
_I0_NOISE_REL = 1e-3
_STEP_OF_GRID = 0.5  # longest way of the beam over the sample in one dose step, in pixels of the dose map
_MAX_STEPS = 400


class Twin:
    """Sample, instrument and electrochemistry.

    Parameters
    ----------
    settings
        What to simulate; with `settings.frames` the camera plays that recording, with its pixel size and sensor.
    clock
        Laboratory time in s, monotonic; the same clock stamps shutter and exposures.

    Raises
    ------
    ValueError
        `settings.frames` cannot be played; the message names the file and what was expected.
    """

    def __init__(self, settings: TwinSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.RLock()
        self._render_lock = threading.Lock()
        self._clock = clock
        self._cell = Cell(settings)
        self._beam = BeamProfile(settings)
        self.settings, self._imager = make_imager(settings, self._cell, self._beam)
        self._time = TwinClock(clock, settings.time_scale)
        self._stage = StageModel(self.settings)
        self._energy_ev = settings.energy_ev
        self._energy_at: Callable[[float], float] | None = None
        self._attenuation = 1.0
        self._ring_share = 1.0
        self._shutter = ShutterLog()
        self._settled_s = clock()
        self._dose = DoseTruth(settings, self._beam)
        self._damage: tuple[int, npt.NDArray[np.float64]] | None = None
        self._electrode = Electrode(
            settings.sample_size_um, settings.soc_cell_um, settings.initial_soc, seeded(settings.seed, _KINETICS_STREAM)
        )
        self._hindered = HinderedReaction(settings, self._dose.dose_gy.shape) if settings.scene == "rock" else None
        self._log = TruthLog()
        self._frames_taken = 0
        self._sample_frames = 0
        self._i0_rng = seeded(settings.seed, _I0_STREAM)
        self._request = (Roi(0, 0, *self.sensor_yx), (1, 1))
        self.potentiostat = Potentiostat(
            self._electrode, settings.capacity_mah, self.twin_time_s, self._rate_factor, self._lock
        )

    @property
    def sensor_yx(self) -> tuple[int, int]:
        """Rows and columns of the sensor."""
        return self.settings.sensor_yx

    @property
    def pixel_size_um(self) -> float:
        """Pixel at the sample, um."""
        return self.settings.pixel_size_um

    def twin_time_s(self) -> float:
        """Twin time in s: the integral of the time scale over laboratory time since the start."""
        with self._lock:
            return self._time.at(self._clock())

    def set_time_scale(self, scale: float) -> None:
        """Twin seconds per laboratory second from now on; see `TwinClock.set_scale`."""
        with self._lock:
            self._settle(self._clock())
            self.potentiostat.advance()
            self._local_state(exact=True)
            self._time.set_scale(scale)

    def set_stage(self, axis: str, position: float, moving: bool) -> None:
        """Take over the read-back of a stage axis ("x", "y", "z" in um, "theta" in deg).

        When an axis comes to rest, its repositioning error is drawn anew.
        """
        with self._lock:
            now_s = self._clock()
            before = self._stage.true_yx_um
            if self._stage.is_moving(axis):  # the beam walked over the sample since the last read-back
                self._stage.update(axis, position, moving, now_s)
                self._settle(now_s, before)
                if not moving:
                    self._stage.settle(axis)
            else:
                self._settle(now_s)
                self._stage.update(axis, position, moving, now_s)

    def set_energy(self, energy_ev: float) -> None:
        """Photon energy in eV from now on."""
        with self._lock:
            self._settle(self._clock())
            self._energy_ev = float(energy_ev)

    def follow_energy(self, energy_at: Callable[[float], float]) -> None:
        """Let frames take the energy, eV, that `energy_at` gives for the middle of their exposure (clock): the energy may be swept."""
        self._energy_at = energy_at

    def set_attenuation(self, transmission: float) -> None:
        """Transmission of the attenuator (0..1) from now on; see `check_share` for errors."""
        share = check_share("attenuator transmission", transmission)
        with self._lock:
            self._settle(self._clock())
            self._attenuation = share

    def set_ring_share(self, share: float) -> None:
        """Share of the ring's current (0..1) that is left from now on: 0 is a trip, back to 1 a refill. See `check_share` for errors."""
        share = check_share("share of the ring current", share)
        with self._lock:
            self._settle(self._clock())
            self._ring_share = share

    def open_shutter(self, at_s: float) -> None:
        """Note that the shutter was opened at clock time `at_s`."""
        with self._lock:
            if self._shutter.open(at_s):
                self._settled_s = at_s

    def close_shutter(self, at_s: float) -> None:
        """Note that the shutter was closed at clock time `at_s`."""
        with self._lock:
            if self._shutter.opened_at_s is not None:
                at_s = max(at_s, self._shutter.opened_at_s)
                self._settle(at_s)
                self._shutter.close(at_s)

    @property
    def shutter_open(self) -> bool:
        """Whether the shutter is open."""
        return self._shutter.opened_at_s is not None

    @property
    def open_time_s(self) -> float:
        """Time the shutter was open since the start, s."""
        with self._lock:
            return self._shutter.total_s(self._clock())

    def i0_na(self) -> float:
        """Ion chamber current in nA, upstream of the shutter, behind the attenuator; with 0.1 % noise."""
        with self._lock:
            flux = self.settings.flux_ph_s * self._relative_flux(self._clock())
            return flux * self.settings.i0_na_per_ph_s * (1.0 + _I0_NOISE_REL * float(self._i0_rng.standard_normal()))

    def ring_ma(self) -> float:
        """Ring current, mA."""
        return self._ring_share * ring_current_ma(self.settings, self.twin_time_s())

    def drift_um(self) -> tuple[float, float]:
        """Return the true drift (x, y), um."""
        y_um, x_um = drift_um(self.settings, self.twin_time_s())
        return x_um, y_um

    def position_um(self) -> tuple[float, float]:
        """Return the true sample coordinate (x, y) under the field centre, um."""
        with self._lock:
            y_um, x_um = self._sample_yx(self._stage.true_yx_um, self._clock())
            return x_um, y_um

    def peak_dose_gy(self) -> float:
        """Largest dose so far in the active material on the sample, Gy (attenuation model)."""
        with self._lock:
            self._settle(self._clock())
            return self._dose.peak_gy()

    def dose_map(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the true dose in Gy (ny, nx) and its axes y_um, x_um in sample coordinates."""
        with self._lock:
            self._settle(self._clock())
            return self._dose.dose_gy.copy(), self._dose.y_um, self._dose.x_um

    def soc_map(self) -> npt.NDArray[np.float64]:
        """Local state of charge, 0..1, on 2 um cells that divide the outline (rows, columns)."""
        with self._lock:
            self.potentiostat.advance()
            return self._electrode.soc.copy()

    def expose(
        self, start_s: float, end_s: float, roi: Roi, bin_yx: tuple[int, int] = (1, 1), frame_type: str = "Normal"
    ) -> Frame:
        """Return the frame of an exposure from `start_s` to `end_s` (clock): photons arrive while the shutter was open.

        Parameters
        ----------
        roi
            Region of the sensor in unbinned pixels.
        bin_yx
            Binning on the chip (rows, columns); the frame has ``size // bin`` pixels.
        frame_type
            areaDetector frame type, for the truth; what is seen follows from stage and shutter. Frames of type "Normal"
            with beam count as sample frames, whose number decides about vibration.

        Raises
        ------
        ValueError
            Region outside the sensor, or binning larger than it.
        """
        roi.check_on(self.sensor_yx, bin_yx)
        with self._lock:
            self._settle(self._clock())
            open_s = self._shutter.overlap_s(start_s, end_s)
            is_sample = frame_type == "Normal" and open_s > 0
            index = self._sample_frames if is_sample else -1
            self._sample_frames += is_sample
            stage_yx, motion = self._stage.motion(start_s, end_s)
            vibration = vibration_of_frame(self.settings, index) if is_sample else NO_MOTION
            if motion.extent_px > vibration.extent_px:
                vibration = motion
            shot = self._shot((roi, bin_yx), (start_s, end_s), open_s, vibration)
            state = self._scene_state(self._sample_yx(stage_yx, end_s), max(index, 0))
            if self._energy_at is not None:
                state = replace(state, energy_ev=self._energy_at((start_s + end_s) / 2))
            truth = self._frame_truth(shot, state, (frame_type, index), stage_yx, end_s)
            self._frames_taken += 1
            self._request = (roi, bin_yx)
        with self._render_lock:
            image, photons = self._imager.expose(state, shot)
        truth = replace(truth, photons_per_px=photons)
        with self._lock:
            self._log.append(truth)
        return Frame(image, truth)

    def expected_counts(
        self, roi: Roi, open_s: float = 1.0, bin_yx: tuple[int, int] = (1, 1)
    ) -> npt.NDArray[np.float32]:
        """Return noise-free counts without dark of an exposure of `open_s` s at the present state, float32."""
        roi.check_on(self.sensor_yx, bin_yx)
        with self._lock:
            now_s = self._clock()
            shot = self._shot((roi, bin_yx), (now_s - open_s, now_s), open_s, NO_MOTION)
            state = self._scene_state(self._sample_yx(self._stage.true_yx_um, now_s), self._sample_frames)
        with self._render_lock:
            return self._imager.expected_counts(state, shot)

    def prepare(self) -> None:
        """Render the noise-free image at the present position: the next exposure of the same region is quick then."""
        self._cell.dose_per_fluence(self._energy_ev)  # the first call imports the cross sections: not under the lock
        with self._lock:
            now_s = self._clock()
            shot = self._shot(self._request, (now_s - 1.0, now_s), 1.0, NO_MOTION)
            state = self._scene_state(self._sample_yx(self._stage.true_yx_um, now_s), self._sample_frames)
        with self._render_lock:
            self._imager.prepare(state, shot)

    def write_truth(self, directory: Path) -> None:
        """Write ``truth.jsonl`` and ``truth_dose.npz`` (dose_gy, peak_rate_gy_s, local_state, soc; x_um, y_um) into `directory`.

        Raises
        ------
        OSError
            The directory cannot be written.
        """
        with self._lock:
            self._settle(self._clock())
            self.potentiostat.advance()
            maps = {
                "dose_gy": self._dose.dose_gy.copy(),
                "peak_rate_gy_s": self._dose.peak_rate_gy_s.copy(),
                "x_um": self._dose.x_um,
                "y_um": self._dose.y_um,
                "soc": self._electrode.soc.copy(),
                "local_state": self._local_state(exact=True).copy(),
            }
        self._log.write(Path(directory), maps)

    def _sample_yx(self, stage_yx: tuple[float, float], clock_s: float) -> tuple[float, float]:
        """Sample coordinate (y, x) under the field centre: true stage position minus drift."""
        drift_y, drift_x = drift_um(self.settings, self._time.at(clock_s))
        return stage_yx[0] - drift_y, stage_yx[1] - drift_x

    def _relative_flux(self, clock_s: float) -> float:
        ring_ma = self._ring_share * ring_current_ma(self.settings, self._time.at(clock_s))
        return self._attenuation * ring_ma / self.settings.ring_ma

    def _settle(self, now_s: float, from_yx: tuple[float, float] | None = None) -> None:
        """Deposit the dose since the last call, along a straight way from `from_yx` where the stage moved."""
        start_s, self._settled_s = self._settled_s, now_s
        if self._shutter.opened_at_s is None or now_s == start_s:
            return
        to_yx = self._stage.true_yx_um
        ends = [self._sample_yx(from_yx or to_yx, start_s), self._sample_yx(to_yx, now_s)]
        gy_cm2 = self._cell.dose_per_fluence(self._energy_ev)
        way_um = math.dist(*ends)
        steps = min(max(1, math.ceil(way_um / (_STEP_OF_GRID * self.settings.dose_grid_um))), _MAX_STEPS)
        for i in range(steps):
            share = (i + 0.5) / steps
            at_s = start_s + share * (now_s - start_s)
            beam = beam_offset_um(self.settings, self._time.at(at_s))
            centre = [a + share * (b - a) + o for a, b, o in zip(*ends, beam, strict=True)]
            flux = self.settings.flux_ph_s * self._relative_flux(at_s)
            self._dose.deposit((centre[0], centre[1]), (now_s - start_s) / steps, flux, gy_cm2)

    def _local_state(self, *, exact: bool = False) -> npt.NDArray[np.float64]:
        """Local state of charge, or the progress of a reaction that dose delays."""
        if self._hindered is None:
            return self._electrode.soc
        return self._hindered.at(self._time, self._clock(), self._electrode.mean_soc, self._dose.dose_gy, exact=exact)

    def _rate_factor(self) -> npt.NDArray[np.float64]:
        if self._hindered is not None:  # the irradiated part is small: the cell does not notice
            return np.ones(self._electrode.shape)
        if self._damage is None or self._damage[0] != self._dose.version:
            dose_gy = self._dose.on_cells(self._electrode.shape)
            self._damage = (self._dose.version, damage_rate_factor(dose_gy, self.settings.damage_threshold_gy))
        return self._damage[1]

    def _shot(
        self, region: tuple[Roi, tuple[int, int]], interval_s: tuple[float, float], open_s: float, vibration: Vibration
    ) -> Shot:
        """Exposure of `region` (with binning) within `interval_s` (clock) at the present flux."""
        middle_s = sum(interval_s) / 2
        beam = beam_offset_um(self.settings, self._time.at(middle_s))
        return Shot(
            self._frames_taken,
            *region,
            max(interval_s[1] - interval_s[0], 0.0),
            open_s,
            self._relative_flux(middle_s),
            beam,
            vibration,
        )

    def _scene_state(self, position_yx_um: tuple[float, float], sample_index: int) -> SceneState:
        self.potentiostat.advance()
        return SceneState(
            position_yx_um,
            self._energy_ev,
            self._local_state(),
            self._electrode.mean_soc,
            self._electrode.throughput,
            self._stage.readback["z"],
            self._stage.readback["theta"],
            sample_index,
        )

    def _frame_truth(
        self, shot: Shot, state: SceneState, kind: tuple[str, int], stage_yx: tuple[float, float], end_s: float
    ) -> FrameTruth:
        """Truth of a frame of type and sample index `kind`; its photons are known after rendering."""
        twin_s = self._time.at(end_s)
        drift_y, drift_x = drift_um(self.settings, twin_s)
        return FrameTruth(
            frame_number=shot.number,
            sample_index=kind[1],
            time_unix=time.time(),
            twin_time_s=twin_s,
            frame_type=kind[0],
            x_um=state.position_yx_um[1],
            y_um=state.position_yx_um[0],
            stage_x_um=self._stage.readback["x"],
            stage_y_um=self._stage.readback["y"],
            drift_x_um=drift_x,
            drift_y_um=drift_y,
            jitter_x_um=stage_yx[1] - self._stage.readback["x"],
            jitter_y_um=stage_yx[0] - self._stage.readback["y"],
            blur_extent_px=float(shot.vibration.extent_px),
            blur_angle_deg=float(shot.vibration.angle_deg),
            blurred=shot.vibration.extent_px > 0,
            soc_mean=state.soc_mean,
            energy_ev=state.energy_ev,
            open_time_s=shot.open_s,
            photons_per_px=0.0,
        )
