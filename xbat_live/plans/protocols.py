"""What a plan needs of the live analysis, as protocols: plans and callbacks never import each other."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol


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
    def feedback_ok(self) -> bool:
        """False once stage corrections were seen to move the image the wrong way."""
