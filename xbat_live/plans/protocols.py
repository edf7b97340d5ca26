"""What plans need of analysis, flux monitor, detectors and flyers, as protocols: plans and callbacks never import each other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from xbat_live.dose.flux_history import FluxMean

if TYPE_CHECKING:
    from xbat_live.devices import CubeEnd, CubeStart

SpotChooser = Callable[[float, float], tuple[float, float] | None]
"""Returns the sample coordinate (x, y), um, of the next fresh spot after the one at (x, y), or None."""


class AnalysedFrame(Protocol):
    """Verdict on one frame together with what was learnt from it."""

    @property
    def accepted(self) -> bool:
        """True when the frame is fit for analysis."""

    @property
    def kind(self) -> str:
        """``accepted``, or why not: ``blurred``, ``lost``, ``saturated``, ``blank`` ..."""

    @property
    def reason(self) -> str:
        """One sentence for people."""

    def record(self) -> dict[str, Any]:
        """Values for the `analysis` stream, by field name of `xbat_live.devices.AnalysisRecord`."""


class LiveAnalysis(Protocol):
    """The streaming analysis as the plan sees it."""

    def latest(self) -> Future[AnalysedFrame]:
        """Return the verdict to come for the frame whose Event was emitted last."""

    @property
    def drift_um(self) -> tuple[float, float]:
        """Registered drift (x, y) of the sample against the stage, um: the sample sits at stage position minus drift."""

    @property
    def begun_drift_um(self) -> tuple[float, float]:
        """Drift (x, y) that the last run left, um, until the first frame of this one is judged: what the stage begins with."""

    @property
    def feedback_ok(self) -> bool:
        """False once stage corrections were seen to move the image the wrong way."""


class CubeResult(Protocol):
    """What the live analysis found in one cube of the sample."""

    @property
    def number(self) -> int:
        """Of the cube."""

    @property
    def alarm(self) -> str:
        """Why somebody should look, or a policy act: ``threshold``, ``diverged``, ``misfit``; empty when all is well."""

    @property
    def message(self) -> str:
        """One sentence for people on the alarm."""

    def record(self) -> dict[str, Any]:
        """Values for the `xas` stream, by field name of `xbat_live.devices.XasRecord`."""


@runtime_checkable
class CubeAnalysis(Protocol):
    """The streaming analysis of energy sweeps as the plan sees it: nothing here blocks."""

    def begin_cube(self, cube: CubeStart) -> None:
        """Follow the frames of a cube that has begun."""

    def end_cube(self, number: int, delivered: CubeEnd) -> None:
        """Take note of what was delivered in a cube whose frames are complete."""

    def abandon_cube(self, number: int) -> None:
        """Forget a cube that was cut short."""

    def pop_results(self) -> list[CubeResult]:
        """Return what was found since the last call, in the order of the cubes."""

    def busy(self) -> bool:
        """Return True while a cube is not worked off."""

    def products(self, result: CubeResult) -> Any:
        """Return a device that gives the maps of a result when it is read into an Event; None: there are none."""


class FluxMonitor(Protocol):
    """Knows the flux over time; `xbat_live.devices.DoseMonitor` does."""

    def flux(self, t0_s: float, t1_s: float) -> FluxMean:
        """Return the mean flux between two times of `time.monotonic`, s."""

    def flux_now(self) -> FluxMean:
        """Return the present flux."""


@runtime_checkable
class NeedsBeam(Protocol):
    """A flyer that tells how long it needs the beam; the dose guard reserves that at its kickoff."""

    @property
    def beam_time_s(self) -> float:
        """Open time of the shutter for one flight, s."""


@runtime_checkable
class Divisible(Protocol):
    """A flyer whose flight consists of equal frames and can be taken in pieces, such as `xbat_live.devices.FrameBurst`.

    A flyer may also have ``discard()``, which forgets the frames of the last piece: it was interrupted and is taken again.

    Attributes
    ----------
    n_frames
        Frames of a whole flight.
    frame_time_s
        Time of the beam per frame, s.
    """

    n_frames: int

    @property
    def frame_time_s(self) -> float:
        """Time of the beam per frame, s."""

    def take(self, n: int) -> None:
        """Prepare the next kickoff for `n` frames, before the shutter opens; `collect` gives the frames of all pieces."""
