"""What a run comes to in a few numbers, kept in its metadata so that runs can be searched by them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from event_model import unpack_event_page

KEY = "summary"
_ENDINGS = ("end", "halt")


class RunSummary:
    """Adds up a run from its documents, in any order of streams.

    The result has ``frames``, ``accepted``, ``rejected``, ``relocations``, ``dose_gy`` (highest dose of the limited material at
    the places exposed), ``duration_s`` and ``outcome``: why the plan ended, or the exit status and reason of bluesky.
    """

    def __init__(self) -> None:
        self._stream_of: dict[str, str] = {}
        self._verdicts: Counter[bool] = Counter()
        self._frames = 0
        self._relocations = 0
        self._dose_gy: float | None = None
        self._ending: str | None = None
        self._begun_s = 0.0
        self._stop: dict[str, Any] = {}

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document."""
        if name == "start":
            self._begun_s = doc["time"]
        elif name == "descriptor":
            self._stream_of[doc["uid"]] = doc["name"]
        elif name == "event":
            self._event(self._stream_of.get(doc["descriptor"], ""), doc["data"])
        elif name == "event_page":
            for event in unpack_event_page(doc):
                self._event(self._stream_of.get(event["descriptor"], ""), event["data"])
        elif name == "stop":
            self._stop = doc

    def _event(self, stream: str, data: dict[str, Any]) -> None:
        if stream == "primary":
            self._frames += 1
            self._see_dose(data.get("point_dose_gy"))
        elif stream == "analysis" and "analysis_accepted" in data:
            self._verdicts[bool(data["analysis_accepted"])] += 1
        elif stream == "spots":
            self._see_dose(data.get("spot_dose_gy"))
        elif stream == "decision":
            action = data.get("decision_action")
            self._relocations += action == "relocate"
            if action in _ENDINGS:
                self._ending = str(data.get("decision_reason") or action)

    def _see_dose(self, dose_gy: Any) -> None:
        if isinstance(dose_gy, int | float) and not math.isnan(dose_gy):
            self._dose_gy = max(self._dose_gy or 0.0, float(dose_gy))

    def result(self) -> dict[str, Any]:
        """Return the summary, JSON; `dose_gy` only where dose was counted."""
        status = self._stop.get("exit_status", "running")
        failed = ": ".join(filter(None, (status, self._stop.get("reason", ""))))
        summary: dict[str, Any] = {
            "frames": self._frames,
            "accepted": self._verdicts[True],
            "rejected": self._verdicts[False],
            "relocations": self._relocations,
            "duration_s": round(self._stop.get("time", self._begun_s) - self._begun_s, 3),
            "outcome": (self._ending or status) if status == "success" else failed,
        }
        return summary if self._dose_gy is None else summary | {"dose_gy": self._dose_gy}
