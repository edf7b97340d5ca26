"""The result of a replay as a run of its own in the archive, linked by ``analysis_of`` to the run it is of."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

from xbat_live.config import ExperimentConfig, recorded_config
from xbat_live.replay.comparison import Comparison
from xbat_live.replay.outcome import Outcome
from xbat_live.replay.recording import Recording, ReplayError
from xbat_live.versions import versions

PLAN_NAME = "replay_documents"
_PACKAGES = ("bluesky", "numpy", "scipy", "xraydb")
_UNITS = {"_um_min": "um/min", "_gy": "Gy", "_um": "um", "_px": "px", "_deg": "deg", "_ms": "ms", "_s": "s"}
_TEXTS = {"verdict", "reason", "field", "stream", "blur_kind", "how", "why"}


def store_replay(  # noqa: PLR0917 - what a replay consists of
    client: Any,
    recording: Recording,
    config: ExperimentConfig,
    changes: dict[str, str],
    outcome: Outcome,
    comparison: Comparison,
) -> str:
    """Write verdicts, decisions and doses of a replay into the archive and return the uid of the new run.

    Parameters
    ----------
    client
        Of the archive's root.
    changes
        What was set otherwise than in the run, by dotted key.

    Raises
    ------
    ReplayError
        The archive does not take it.
    """
    import httpx

    from xbat_live.archive.upload import RunWriter

    writer = RunWriter(client)
    documents = list(_documents(recording, config, changes, outcome, comparison))
    try:
        for name, document in documents:
            writer(name, document)
    except httpx.HTTPError as error:
        raise ReplayError(f"the archive at {client.uri} did not take the result of the replay: {error}") from error
    return str(documents[0][1]["uid"])


def _documents(
    recording: Recording,
    config: ExperimentConfig,
    changes: dict[str, str],
    outcome: Outcome,
    comparison: Comparison,
) -> Iterator[tuple[str, dict[str, Any]]]:
    from event_model import compose_run

    run = compose_run(metadata=_metadata(recording, config, changes, comparison), time=time.time())
    yield "start", run.start_doc
    streams = {
        "analysis": [_analysis(record) for record in outcome.verdicts],
        "decision": [
            {
                "decision_action": item.replayed.action,
                "decision_reason": item.replayed.reason,
                "decision_seq_num": item.replayed.frame,
                "decision_after": item.replayed.after,
                "decision_spot": item.replayed.spot,
                "decision_inputs": json.dumps(item.replayed.inputs),
                "decision_threshold": item.replayed.threshold,
                "decision_status": item.status,
                "decision_differs": item.what,
                "decision_pictures": item.replayed.fidelity,
            }
            for item in comparison.decisions
            if item.replayed is not None
        ],
        "spots": [{f"spot_{name}": value for name, value in record.items()} for record in outcome.spots],
    }
    for stream, rows in streams.items():
        if not rows:
            continue
        made = run.compose_descriptor(name=stream, data_keys={key: _data_key(key, rows[0][key]) for key in rows[0]})
        yield "descriptor", made.descriptor_doc
        for number, row in enumerate(rows, 1):
            now_s = time.time()
            yield (
                "event",
                made.compose_event(data=row, timestamps=dict.fromkeys(row, now_s), seq_num=number, time=now_s),
            )
    yield "stop", run.compose_stop()


def _metadata(
    recording: Recording, config: ExperimentConfig, changes: dict[str, str], comparison: Comparison
) -> dict[str, Any]:
    kept = ("sample", "cell", "edge", "material", "operator", "pixel_size_um", "image_to_stage")
    return {
        "plan_name": PLAN_NAME,
        "analysis_of": recording.uid,
        **{name: recording.start[name] for name in kept if name in recording.start},
        "dose_limit_gy": config.dose.limit_gy,
        "dose_model": config.dose.model,
        "config": recorded_config(config),
        "replay": {
            "changes": [f"{key}={value}" for key, value in changes.items()],  # no key may have a dot
            "agrees": comparison.agrees,
            **{status: comparison.count(status) for status in ("same", "different", "new", "missing")},
            "served": comparison.served,
        },
        "versions": versions(*_PACKAGES),
    }


def _analysis(record: dict[str, Any]) -> dict[str, Any]:
    names = {"how": "pictures", "why": "pictures_why"}  # what an unjudged frame has not is NaN or empty
    return {f"analysis_{names.get(name, name)}": _scalar(name, record.get(name)) for name in _FIELDS}


_FIELDS = (
    *("seq_num", "after", "how", "why", "field", "spot", "verdict", "accepted", "reason"),
    *("shift_y_px", "shift_x_px", "sigma_y_px", "sigma_x_px", "confidence", "keyframe_id", "blur_score"),
    *("blur_extent_px", "blur_extent_um", "blur_angle_deg", "blur_kind", "sample_y_um", "sample_x_um"),
    *("drift_y_um", "drift_x_um", "drift_rate_y_um_min", "drift_rate_x_um_min", "jitter_y_um", "jitter_x_um"),
    *("jitter_rms_y_um", "jitter_rms_x_um"),
    *("dose_gy", "dose_fraction"),
)
_WHOLE = {"seq_num", "after", "spot", "accepted", "keyframe_id"}


def _scalar(name: str, value: Any) -> Any:
    if name in _TEXTS:
        return "" if value is None else str(value)
    if name in _WHOLE:
        return -1 if value is None else int(value)
    return math.nan if value is None else float(value)


def _data_key(name: str, value: Any) -> dict[str, Any]:
    kind = "string" if isinstance(value, str) else "integer" if isinstance(value, int) else "number"
    key: dict[str, Any] = {"source": "xbat replay", "dtype": kind, "shape": []}
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), None)
    return key | ({"units": unit} if unit and kind == "number" else {})
