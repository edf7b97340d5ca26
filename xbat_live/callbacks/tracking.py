"""Where the sample is: registered image shifts and stage readings joined into drift, jitter and sample coordinates."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xbat_live.dose.position import CarriedPosition, SamplePosition
from xbat_live.imaging import DriftModel, FrameVerdict

Vector = NDArray[np.float64]
WRONG_WAY, SIDEWAYS = 0.25, 0.6
"""Part of a stage move that the image may seem to have gone backwards or aside, because of jitter and drift."""


@dataclass(frozen=True)
class TrackedPosition:
    """Registered place of one frame.

    Attributes
    ----------
    sample_yx_um
        Sample coordinate in the centre of the frame, shape (2,), um.
    drift_yx_um, jitter_yx_um
        Slow and random part of the sample's displacement against the stage, shape (2,), um.
    rate_yx_um_per_min
        Rate of the slow part, shape (2,), um/min.
    jitter_rms_yx_um
        Standard deviation of the random part over the last frames, shape (2,), um.
    """

    sample_yx_um: Vector
    drift_yx_um: Vector
    jitter_yx_um: Vector
    rate_yx_um_per_min: Vector
    jitter_rms_yx_um: Vector


@dataclass(frozen=True)
class Recognised:
    """A frame that was found to show what an earlier run has seen.

    Attributes
    ----------
    sample_yx_um
        Sample coordinate in the centre of the frame, in the coordinates of that run, shape (2,), um.
    sigma_um
        Its standard uncertainty, um.
    """

    sample_yx_um: Vector
    sigma_um: float


@dataclass
class _Reference:
    stage_yx_um: Vector
    displacement_yx_um: Vector


@dataclass
class FeedbackCheck:
    """Watches that a stage move shifts the image as `image_to_stage` says, so that a sign error cannot run away.

    The content of the image must move by minus the stage's move. The check compares both over all moves made so far, weighted
    by their size and for each direction that the stage has moved in by itself: a camera that is mirrored in x only is right in y. It
    speaks only when the moves in a direction outweigh the repositioning jitter. A stage that follows a drift exactly leaves the image
    where it is: no motion at all is therefore no sign error, motion the other way or to the side is one.

    Attributes
    ----------
    least_um2
        Sum of squared moves in a direction from which on it is judged, um^2.
    """

    least_um2: float = 1.0
    _moved_um2: Vector = field(default_factory=lambda: np.zeros((2, 2)))
    _answered_um2: Vector = field(default_factory=lambda: np.zeros((2, 2)))

    def update(self, stage_step_um: Vector, shift_step_um: Vector) -> None:
        """Take in one move of the stage and the image shift that came with it, both shape (2,), um in stage axes."""
        self._moved_um2 = self._moved_um2 + np.outer(stage_step_um, stage_step_um)
        self._answered_um2 = self._answered_um2 - np.outer(shift_step_um, stage_step_um)

    @property
    def ok(self) -> bool:
        """False when enough was moved and the image went the other way."""
        moved_um2, directions = np.linalg.eigh(self._moved_um2)
        for weight, direction in zip(moved_um2, directions.T, strict=True):
            if weight < self.least_um2:
                continue
            answer = self._answered_um2 @ direction / weight  # of the image, per move of 1 um in this direction
            along = float(answer @ direction)
            aside = float(np.linalg.norm(answer - along * direction))
            if along < -WRONG_WAY or aside > SIDEWAYS:
                return False
        return True


@dataclass
class DriftTracker:
    """Joins the shifts of all fields of view and spots into one drift of the sample against the stage.

    Attributes
    ----------
    pixel_size_um
        Unbinned pixel in the sample plane, um.
    image_to_stage
        2x2 matrix from image (y, x) to stage (y, x) axes; the configuration's, in (x, y), has rows and columns exchanged.
    carried
        What the runs before left, as it was at `carried_at_s` (Unix time, s); None: the coordinates begin with this run.
    """

    pixel_size_um: float
    image_to_stage: Vector = field(default_factory=lambda: np.eye(2))
    model: DriftModel = field(default_factory=DriftModel)
    feedback: FeedbackCheck = field(default_factory=FeedbackCheck)
    carried: CarriedPosition | None = None
    carried_at_s: float = field(default_factory=time.time)
    drift_yx_um: Vector = field(default_factory=lambda: np.zeros(2))
    sigma_um: float = 0.0
    rate_yx_um_per_min: Vector = field(default_factory=lambda: np.zeros(2))
    jitter_rms_yx_um: Vector = field(default_factory=lambda: np.full(2, np.nan))
    _references: dict[str, _Reference] = field(default_factory=dict)
    _last: dict[str, tuple[Vector, Vector]] = field(default_factory=dict)

    def position(self, t_s: float) -> SamplePosition:
        """Return where the sample is at Unix time `t_s` s: as registered, before the first frame as the last run lets expect.

        A drift that moves of the stage have contradicted (see `FeedbackCheck`) is as uncertain as it is large.
        """
        if not self._references and self.carried is not None:
            return self.carried.after(t_s - self.carried_at_s)
        doubt_um = 0.0 if self.feedback.ok else float(np.linalg.norm(self.drift_yx_um))
        return SamplePosition(self.drift_yx_um[1], self.drift_yx_um[0], float(np.hypot(self.sigma_um, doubt_um)))

    def update(
        self,
        key: str,
        t_s: float,
        verdict: FrameVerdict,
        stage_yx_um: Vector,
        *,
        recognised: Recognised | None = None,
    ) -> TrackedPosition:
        """Take in the verdict on a frame of the field of view `key`, taken at `t_s` s with the stage at `stage_yx_um`.

        A rejected frame moves nothing; its position is then the one expected from the drift so far. A first frame of its field
        that was `recognised` is where it says, whatever was expected.
        """
        if not self._references:
            begin = self.position(t_s)
            self.drift_yx_um, self.sigma_um = np.array([begin.drift_y_um, begin.drift_x_um]), begin.sigma_um
        if not verdict.accepted:
            return TrackedPosition(
                stage_yx_um - self.drift_yx_um,
                self.drift_yx_um.copy(),
                np.zeros(2),
                self.rate_yx_um_per_min.copy(),
                self.jitter_rms_yx_um.copy(),
            )
        shift_um = self.image_to_stage @ np.asarray(verdict.shift_yx_px, float) * self.pixel_size_um
        sigma_um = np.sqrt(self.image_to_stage**2 @ np.asarray(verdict.sigma_yx_px, float) ** 2) * self.pixel_size_um
        reference = self._references.get(key)
        if reference is None:
            # The first frame of a field defines it: what it is displaced by already is the drift known by then.
            displaced_um = self.drift_yx_um if recognised is None else stage_yx_um - recognised.sample_yx_um
            if recognised is not None:
                self.sigma_um = recognised.sigma_um
            reference = _Reference(stage_yx_um, displaced_um - shift_um)
            self._references[key] = reference
        displacement = reference.displacement_yx_um + shift_um + (stage_yx_um - reference.stage_yx_um)
        if key in self._last:
            last_stage, last_shift = self._last[key]
            self.feedback.update(stage_yx_um - last_stage, shift_um - last_shift)
        self._last[key] = (stage_yx_um, shift_um)
        motion = self.model.update(t_s, displacement, sigma_um)
        self.drift_yx_um = np.asarray(motion.drift_yx_um, float)
        self.rate_yx_um_per_min = np.asarray(motion.rate_um_per_min, float)
        self.jitter_rms_yx_um = np.asarray(motion.jitter_rms_yx_um, float)
        return TrackedPosition(
            stage_yx_um - displacement,
            self.drift_yx_um.copy(),
            displacement - self.drift_yx_um,
            self.rate_yx_um_per_min.copy(),
            self.jitter_rms_yx_um.copy(),
        )
