"""From documents to what a person watches: fills a `LiveStore`. Knows documents only, so live runs and replays look the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from xbat_live.live.store import LiveStore

_KEPT = ("banner", "experiment", "services", "stores", "plumbing", "machine", "steering", "map")
"""What is not of one run and outlives the start of the next."""
_RECENT = 50
_SEVERITY = {
    "halt": "alarm",
    "alarm": "alarm",
    "stop_correcting": "alarm",
    "relocate": "notice",
    "rest": "notice",
    "attenuate": "notice",
    "retire": "notice",
    "warn": "warning",
    "retake": "warning",
    "keep_rejected": "warning",
}


class RunModel:
    """Takes the documents of a run in the order they come.

    Parameters
    ----------
    store
        What is filled.
    """

    def __init__(self, store: LiveStore) -> None:
        self.store = store
        self._forget()
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "start": self._start,
            "descriptor": self._descriptor,
            "event": self._event,
            "stop": self._stop,
        }
        self._streams_of: dict[str, Callable[[dict[str, Any]], None]] = {
            "primary": self._primary,
            "analysis": self._analysis,
            "decision": self._decision,
            "operator": self._operator,
            "xas": self._xas,
            "flat": lambda doc: self._count("flats"),
            "dark": lambda doc: self._count("darks"),
        }

    def take(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document; an Event page counts as its Events."""
        if name == "event_page":
            from event_model import unpack_event_page

            for event in unpack_event_page(doc):
                self._event(event)
        elif name in self._handlers:
            self._handlers[name](doc)

    # -- documents ----------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._streams: dict[str, str] = {}
        self._frame: dict[str, Any] | None = None
        self._accepted: list[bool] = []
        self._in_a_row = 0
        self._spots: dict[int, dict[str, Any]] = {}
        self._moves: list[dict[str, Any]] = []
        self._verdicts: dict[str, int] = {}
        self._counts = {"frames": 0, "judged": 0, "rejected": 0, "flats": 0, "darks": 0}

    def _start(self, doc: dict[str, Any]) -> None:
        self.store.clear(keep=_KEPT)
        self._forget()
        arguments = doc.get("plan_args") or {}
        dose = doc.get("dose") or {}
        self.store.set(
            run={
                "uid": doc["uid"],
                "scan_id": doc.get("scan_id"),
                "plan_name": doc.get("plan_name", ""),
                "sample": _text(doc.get("sample")),
                "cell": _text(doc.get("cell")),
                "material": doc.get("material") or dose.get("material"),
                "layer": dose.get("layer"),
                "edge": doc.get("edge"),
                "operator": doc.get("operator", ""),
                "started": doc.get("time"),
                "n_points": arguments.get("n_points"),
                "period_s": arguments.get("period_s"),
                "duration_s": arguments.get("duration_s"),
                "exposure_s": arguments.get("exposure_s"),
                "energies_ev": arguments.get("energies_ev") or [],
                "dose_limit_gy": doc.get("dose_limit_gy"),
                "dose_model": doc.get("dose_model") or dose.get("model"),
                "sigma_rel": dose.get("sigma_rel"),
                "k_sigma": dose.get("k_sigma"),
                "pixel_size_um": doc.get("pixel_size_um"),
                "override": doc.get("dose_override"),
                "versions": doc.get("versions") or {},
                "forecast": doc.get("forecast"),
                "replay_of": doc.get("replay_of"),
            },
            limits=dose.get("limits") or [],
            counts=dict(self._counts),
            spots=[],
            moves=[],
        )
        self._say("RUNNING", "")
        self._write(
            "notice", "start", f"{doc.get('plan_name', 'run')} of {_text(doc.get('sample')) or 'no sample named'}", doc
        )

    def _descriptor(self, doc: dict[str, Any]) -> None:
        self._streams[doc["uid"]] = doc["name"]

    def _event(self, doc: dict[str, Any]) -> None:
        handler = self._streams_of.get(self._streams.get(doc["descriptor"], ""))
        if handler is not None:
            handler(doc)

    def _stop(self, doc: dict[str, Any]) -> None:
        self._flush()
        status, reason = doc.get("exit_status", ""), doc.get("reason", "")
        halted = any(move.get("kind") == "halt" for move in self._moves)
        state = {"success": "HALTED-DOSE" if halted else "ENDED", "abort": "ABORTED"}.get(status, "FAILED")
        self._say(state, reason)
        self.store.update("run", stopped=doc.get("time"), exit_status=status)
        self._write(
            "alarm" if state == "FAILED" else "notice",
            "stop",
            f"run ended: {status}{f' ({reason})' if reason else ''}",
            doc,
        )

    # -- streams ------------------------------------------------------------------------------------------------------

    def _primary(self, doc: dict[str, Any]) -> None:
        self._flush()
        self._count("frames")
        data = doc["data"]
        n = self._counts["frames"]
        if self.store.state.get("state") == "RELOCATING":
            self._say("RUNNING", "")
        get = _reader(data)
        spot = int(get("point_spot") or 0)
        self._frame = {
            "n": n,
            "t": doc["time"],
            "spot": spot,
            "field": data.get("point_field", ""),
            "attempt": get("point_attempt", 0),
            "point": get("point_index"),
            "energy_ev": get("mono_energy"),
            "dose_gy": get("point_dose_gy"),
            "added_gy": get("point_dose_delivered_gy"),
            "x_um": get("point_sample_x_um"),
            "y_um": get("point_sample_y_um"),
            "open_s": get("point_open_time_s"),
            "exposure_s": get("point_exposure_s"),
            "voltage_v": get("potentiostat_voltage_v"),
            "current_ma": get("potentiostat_current_ma"),
            "capacity_mah": get("potentiostat_capacity_mah"),
            "soc": get("potentiostat_soc"),
        }
        self.store.set(
            beam={"x_um": get("point_sample_x_um"), "y_um": get("point_sample_y_um"), "spot": spot},
            dose={
                "dose_gy": get("dose_gy", get("point_dose_gy")),
                "added_gy": get("point_dose_delivered_gy"),
                "rate_gy_s": get("dose_rate_gy_s"),
                "windowed_rate_gy_s": get("dose_windowed_rate_gy_s"),
                "fraction": get("dose_limit_fraction"),
                "exposures_left": get("dose_exposures_left"),
                "binding": data.get("dose_binding_limit"),
                "degraded": data.get("dose_degraded"),
            },
            cell={
                "mode": data.get("potentiostat_mode"),
                "status": data.get("potentiostat_status"),
                "voltage_v": get("potentiostat_voltage_v"),
                "current_ma": get("potentiostat_current_ma"),
                "capacity_mah": get("potentiostat_capacity_mah"),
                "soc": get("potentiostat_soc"),
            },
        )
        self._at_spot(spot, get("point_target_x_um"), get("point_target_y_um"), get("point_dose_gy"))
        self._progress(doc["time"])

    def _at_spot(self, number: int, x_um: float | None, y_um: float | None, dose_gy: float | None) -> None:
        spot = self._spots.setdefault(
            number, {"n": number, "x_um": x_um, "y_um": y_um, "fields": [], "frames": 0, "dose_gy": 0.0}
        )
        spot["frames"] += 1
        spot["dose_gy"] = max(spot["dose_gy"], dose_gy or 0.0)
        place = [x_um, y_um]
        if place not in spot["fields"] and len(spot["fields"]) < 64:
            spot["fields"].append(place)
        self.store.set(
            spots=[
                {**item, "now": item["n"] == number, "fields": list(item["fields"])} for item in self._spots.values()
            ]
        )

    def _progress(self, now: float) -> None:
        run, frame = self.store.state.get("run") or {}, self._frame or {}
        period_s, n_points, started = run.get("period_s"), run.get("n_points"), run.get("started")
        planned = [period_s * n_points if period_s and n_points else None, run.get("duration_s")]
        total_s = min((value for value in planned if value), default=None)
        self.store.set(
            progress={
                "point": None if frame.get("point") is None else int(frame["point"]) + 1,
                "n_points": n_points,
                "elapsed_s": now - started if started else None,
                "total_s": total_s,
                "energy_index": _index(run.get("energies_ev") or [], frame.get("energy_ev")),
                "n_energies": len(run.get("energies_ev") or []),
            }
        )

    def _analysis(self, doc: dict[str, Any]) -> None:
        data, get = doc["data"], _reader(doc["data"], "analysis_")
        row = (
            self._frame
            if self._frame and get("seq_num") == self._frame["n"]
            else {"n": get("seq_num"), "t": doc["time"]}
        )
        verdict, accepted = str(data.get("analysis_verdict", "")), bool(data.get("analysis_accepted"))
        self._frame = None
        self._counts["judged"] += 1
        self._verdicts[verdict] = self._verdicts.get(verdict, 0) + 1
        self._accepted = [*self._accepted[-_RECENT + 1 :], accepted]
        if verdict == "unjudged":
            self._in_a_row = 0
        else:
            self._counts["rejected"] += not accepted
            self._in_a_row = 0 if accepted else self._in_a_row + 1
        self.store.append(
            "frames",
            row
            | {
                "verdict": verdict,
                "accepted": int(accepted),
                "blur_px": get("blur_extent_px"),
                "blur_score": get("blur_score"),
                "drift_x_um": get("drift_x_um"),
                "drift_y_um": get("drift_y_um"),
                "jitter_x_um": get("jitter_x_um"),
                "jitter_y_um": get("jitter_y_um"),
                "confidence": get("confidence"),
                "elapsed_ms": get("elapsed_ms"),
            },
        )
        self.store.set(
            counts=dict(self._counts),
            verdicts=dict(self._verdicts),
            quality={
                "verdict": verdict,
                "accepted": accepted,
                "reason": data.get("analysis_reason"),
                "in_a_row": self._in_a_row,
                "recent": len(self._accepted),
                "recent_rejected": self._accepted.count(False),
                "blur_px": get("blur_extent_px"),
                "blur_um": get("blur_extent_um"),
                "blur_angle_deg": get("blur_angle_deg"),
                "elapsed_ms": get("elapsed_ms"),
            },
            drift={
                "x_um": get("drift_x_um"),
                "y_um": get("drift_y_um"),
                "rate_x_um_min": get("drift_rate_x_um_min"),
                "rate_y_um_min": get("drift_rate_y_um_min"),
                "jitter_x_um": get("jitter_x_um"),
                "jitter_y_um": get("jitter_y_um"),
                "confidence": get("confidence"),
                "sigma_x_px": get("sigma_x_px"),
                "sigma_y_px": get("sigma_y_px"),
            },
        )

    def _decision(self, doc: dict[str, Any]) -> None:
        data = doc["data"]
        action, reason = str(data.get("decision_action", "")), str(data.get("decision_reason", ""))
        self._write(_SEVERITY.get(action, "info"), action, reason, doc)
        if action in ("relocate", "move", "halt"):
            inputs = _json(data.get("decision_inputs"))
            beam = self.store.state.get("beam") or {}
            self._moves = [
                *self._moves[-199:],
                {
                    "kind": action,
                    "n": len(self._moves) + 1,
                    "t": doc["time"],
                    "frame": self._counts["frames"],
                    "from": [beam.get("x_um"), beam.get("y_um")],
                    "to": [inputs.get("to_x_um"), inputs.get("to_y_um")],
                },
            ]
            self.store.set(moves=list(self._moves))
        if action == "relocate":
            self._say("RELOCATING", reason)

    def _operator(self, doc: dict[str, Any]) -> None:
        data = doc["data"]
        get = {name.removeprefix("operator_"): value for name, value in data.items()}
        if get.get("command") == "state":
            self._write("info", "state", str(get.get("state", "")), doc)
            return
        who = f"{get.get('who') or 'somebody'} via {get.get('via') or 'unknown'}"
        text = str(get.get("message") or get.get("text") or get.get("arguments") or "")
        reason = str(_json(get.get("arguments")).get("reason") or "")
        text += f": {reason}" if reason not in text else ""
        refused = "" if get.get("ok", True) else "refused: "
        self._write("operator", str(get.get("command") or get.get("verb", "operator")), f"{refused}{text} ({who})", doc)

    def _xas(self, doc: dict[str, Any]) -> None:
        data, get = doc["data"], _reader(doc["data"], "xas_")
        row = {name: get(name) for name in _XAS_NUMBERS}
        row = {
            "n": get("number"),
            "t": doc["time"],
            "place": data.get("xas_place"),
            "alarm": data.get("xas_alarm"),
            **row,
        }
        self.store.append("xas", row)
        parts = {name: _list(data.get(f"xas_{name}")) for name in ("low_fractions", "high_fractions")}
        self.store.set(xas=row | parts)

    # -- what they share ----------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Make a row of a frame that nobody judged as well: plans of other people have no stream `analysis`."""
        if self._frame is not None:
            self.store.append("frames", self._frame | dict.fromkeys(_JUDGED))
            self._frame = None

    def _count(self, what: str) -> None:
        self._counts[what] += 1
        self.store.set(counts=dict(self._counts))

    def _say(self, state: str, reason: str) -> None:
        self.store.set(state=state, state_reason=reason)

    def _write(self, severity: str, what: str, text: str, doc: dict[str, Any]) -> None:
        self.store.write(
            {"t": doc.get("time"), "severity": severity, "what": what, "text": text, "doc": doc.get("uid")}
        )


_XAS_NUMBERS = (
    "frames",
    "masked",
    "components",
    "place_time_s",
    "low_rate_gy_s",
    "high_rate_gy_s",
    "low_dose_gy",
    "high_dose_gy",
    "low_progress",
    "high_progress",
    "low_edge_ev",
    "high_edge_ev",
    "r_factor",
    "threshold_gy",
    "threshold_low_gy",
    "threshold_high_gy",
    "elapsed_s",
)
_JUDGED = (
    "verdict",
    "accepted",
    "blur_px",
    "blur_score",
    "drift_x_um",
    "drift_y_um",
    "jitter_x_um",
    "jitter_y_um",
    "confidence",
    "elapsed_ms",
)


def _reader(data: dict[str, Any], prefix: str = "") -> Callable[..., float | None]:
    """Return a getter of numbers: what is missing, not a number or not finite is the default."""

    def get(name: str, default: float | None = None) -> float | None:
        try:
            value = float(data[prefix + name])
        except (KeyError, TypeError, ValueError):
            return default
        return value if math.isfinite(value) else default

    return get


def _text(value: Any) -> str:
    """Name of a sample: text, or a dictionary with a name."""
    return str(value.get("name", value) if isinstance(value, dict) else value or "")


def _json(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _list(text: Any) -> list[Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return []
    return value if isinstance(value, list) else []


def _index(energies_ev: list[float], energy_ev: float | None) -> int | None:
    if not energies_ev or energy_ev is None:
        return None
    return min(range(len(energies_ev)), key=lambda i: abs(energies_ev[i] - energy_ev)) + 1
