"""Documents of a run as the RunEngine emits them, made up; for what watches runs."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np

STREAMS = ("primary", "flat", "dark", "analysis", "decision", "operator", "xas")
T0 = 1_750_000_000.0
EXPERIMENT = {
    "with_beam": True,
    "sample": "electrode-7",
    "material": "NMC622",
    "layer": "cathode",
    "outline_um": [200.0, 200.0],
    "forbidden_um": [[40.0, 80.0, 40.0, 80.0]],
    "beam_fwhm_um": [30.0, 30.0],
    "footprint_um": [36.0, 36.0],
    "pixel_size_um": 0.03324,
    "dose_limit_gy": 120e3,
    "rate_limit_gy_s": None,
    "limits": [{"name": "dose limit", "material": "NMC622", "limit_gy": 120e3, "rate_gy_s": None}],
    "literature": [
        {
            "name": "safe",
            "material": "NMC622",
            "limit_gy": 80e3,
            "source": "Jousseaume 2023",
            "protects": "all",
            "model": "attenuation",
        },
        {
            "name": "kinetics",
            "material": "NMC622",
            "limit_gy": 11e6,
            "source": "Jousseaume 2023",
            "protects": "it",
            "model": "attenuation",
        },
    ],
    "dose": {"model": "attenuation", "sigma_rel": 0.05, "k_sigma": 2.0, "electrolyte_ratio": 0.035, "flux_ph_s": 1e10},
}


class PretendRun:
    """Makes the documents of one run, in order."""

    def __init__(self, uid: str = "0123456789abcdef", *, t0: float = T0) -> None:
        self.uid, self.t0 = uid, t0
        self.frames = 0
        self._numbers = itertools.count(1)

    def begin(self) -> list[tuple[str, dict[str, Any]]]:
        """Start document and descriptors."""
        start = {
            "uid": self.uid,
            "time": self.t0,
            "scan_id": 142,
            "plan_name": "operando_txm_series",
            "sample": "electrode-7",
            "operator": "someone",
            "plan_args": {"n_points": 60, "period_s": 10.0, "exposure_s": 0.048},
            "dose": {"material": "NMC622", "layer": "cathode", "model": "attenuation", "limits": EXPERIMENT["limits"]},
            "dose_limit_gy": 120e3,
            "pixel_size_um": 0.03324,
        }
        descriptors = [
            {"uid": f"{self.uid}-{name}", "name": name, "run_start": self.uid, "time": self.t0} for name in STREAMS
        ]
        return [("start", start), *(("descriptor", descriptor) for descriptor in descriptors)]

    def event(self, stream: str, data: dict[str, Any], t: float | None = None) -> tuple[str, dict[str, Any]]:
        """One Event."""
        number = next(self._numbers)
        at = self.t0 + 5.0 * self.frames if t is None else t
        return "event", {
            "uid": f"{self.uid}-e{number}",
            "descriptor": f"{self.uid}-{stream}",
            "time": at,
            "data": data,
            "seq_num": number,
        }

    def frame(
        self, verdict: str = "accepted", *, spot: int = 0, dose_gy: float = 9e3, **more: Any
    ) -> list[tuple[str, dict[str, Any]]]:
        """A frame and the verdict on it."""
        self.frames += 1
        n = self.frames
        place = (-60.0 + 37.0 * spot, -60.0)
        point = {
            "point_index": n // 2,
            "point_spot": spot,
            "point_field": "AB"[n % 2],
            "point_attempt": 0,
            "point_target_x_um": place[0],
            "point_target_y_um": place[1],
            "point_sample_x_um": place[0] + 0.1,
            "point_sample_y_um": place[1] - 0.1,
            "point_dose_gy": dose_gy,
            "point_dose_delivered_gy": 9e3,
            "point_exposure_s": 0.048,
            "point_open_time_s": 0.048,
            "mono_energy": 8562.0,
            "dose_gy": dose_gy,
            "dose_rate_gy_s": 190e3,
            "dose_windowed_rate_gy_s": 1e3,
            "dose_limit_fraction": dose_gy / 120e3,
            "dose_exposures_left": 12,
            "dose_binding_limit": "dose limit",
            "dose_degraded": "",
            "potentiostat_mode": "Galvanostatic",
            "potentiostat_status": "Running",
            "potentiostat_voltage_v": 3.6 + 0.004 * n,
            "potentiostat_current_ma": 0.0833,
            "potentiostat_capacity_mah": 0.01 * n,
            "potentiostat_soc": 0.01 * n,
        }
        judged = {
            "analysis_seq_num": n,
            "analysis_verdict": verdict,
            "analysis_accepted": int(verdict == "accepted"),
            "analysis_reason": "as sharp as keyframe 0"
            if verdict == "accepted"
            else "blurred by 9.2 px (limit 3.8 px)",
            "analysis_blur_extent_px": 0.5 if verdict == "accepted" else 9.2,
            "analysis_blur_extent_um": 0.0166,
            "analysis_blur_angle_deg": 12.0,
            "analysis_blur_score": float("nan"),
            "analysis_drift_x_um": 0.02 * n + 0.1 * float(np.sin(n)),
            "analysis_drift_y_um": 0.05 * n + 0.1 * float(np.cos(n)),
            "analysis_drift_rate_x_um_min": 0.1,
            "analysis_drift_rate_y_um_min": 0.3,
            "analysis_jitter_x_um": 0.05,
            "analysis_jitter_y_um": 0.02,
            "analysis_sigma_x_px": 0.1,
            "analysis_sigma_y_px": 0.1,
            "analysis_confidence": 0.97,
            "analysis_elapsed_ms": 5.1,
        }
        return [self.event("primary", point | more), self.event("analysis", judged)]

    def decision(self, action: str, reason: str, **inputs: Any) -> list[tuple[str, dict[str, Any]]]:
        """A decision of the plan."""
        data = {"decision_action": action, "decision_reason": reason, "decision_inputs": json.dumps(inputs)}
        return [self.event("decision", data)]

    def operator(self, command: str, message: str, **more: Any) -> list[tuple[str, dict[str, Any]]]:
        """A command that somebody gave."""
        data = {"command": command, "message": message, "who": "eve", "via": "page", "ok": True} | more
        return [self.event("operator", {f"operator_{name}": value for name, value in data.items()})]

    def end(self, exit_status: str = "success", reason: str = "") -> list[tuple[str, dict[str, Any]]]:
        """The stop document."""
        return [
            (
                "stop",
                {
                    "uid": f"{self.uid}-stop",
                    "run_start": self.uid,
                    "time": self.t0 + 5.0 * self.frames,
                    "exit_status": exit_status,
                    "reason": reason,
                },
            )
        ]
