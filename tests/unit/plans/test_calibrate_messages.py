"""The calibration of the stage axes on fake devices: what it finds, what it refuses, and the shutter closed on every way out."""

import json
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import pytest
from plan_driver import FakeFrame, drive, fake_beamline

from xbat_live.dose import Beam, DoseAccount, DoseLimit, Ledger, presets
from xbat_live.plans import DoseGuard, FluxCalibration, calibrate_stage

PIXEL_UM = 0.05


@dataclass
class Shifted(FakeFrame):
    shift_yx_px: tuple[float, float] = (0.0, 0.0)

    def record(self):
        y, x = self.shift_yx_px
        return super().record() | {"shift_y_px": y, "shift_x_px": x, "sigma_y_px": 0.02, "sigma_x_px": 0.02}


@dataclass
class Camera:
    """Live analysis of a camera mounted by `matrix` (image to stage, x and y) in front of an ideal stage."""

    beamline: object
    matrix: list = field(default_factory=lambda: [[1, 0], [0, 1]])
    accepted: bool = True
    drift_um: tuple[float, float] = (0.0, 0.0)
    feedback_ok: bool = True
    begun_drift_um: tuple[float, float] = (0.0, 0.0)

    def latest(self):
        stage = self.beamline.stage
        at_um = np.array([axis.user_readback.get() for axis in (stage.x, stage.y)])
        x, y = -np.linalg.solve(np.array(self.matrix, float), at_um) / PIXEL_UM
        future: Future = Future()
        future.set_result(Shifted(self.accepted, "accepted" if self.accepted else "blank", shift_yx_px=(y, x)))
        return future


@pytest.fixture
def beamline():
    devices = fake_beamline(timed=True)
    devices.i0.current_na.sim_put(100.0)
    devices.mono.energy.user_readback.sim_put(8562.0)
    return devices


@pytest.fixture
def calibrate(beamline, tmp_path):
    def run(camera, limit_gy=100e6, **kwargs):
        with Ledger.for_sample(tmp_path, "cell") as ledger:
            account = DoseAccount(
                ledger,
                stack=presets.cell("txm_nmc622"),
                beam=Beam.gaussian(1e10, fwhm_um=(30, 30), order=8),
                limits=(DoseLimit("limit", "NMC622", limit_gy=limit_gy),),
                layer="cathode",
                material="NMC622",
            )
            guard = DoseGuard(account, FluxCalibration(1e10, 100.0))
            decisions = []

            def listen(message):
                if message.command == "read" and getattr(message.obj, "name", "") == "decision":
                    values = message.obj.values()
                    decisions.append((values["action"], values["reason"], json.loads(values["inputs"])))

            plan = calibrate_stage(
                beamline, guard, camera, lambda x, y: None, n_darks=1, pixel_size_um=PIXEL_UM, spot_um=(10.0, -5.0)
            )
            record = drive(plan, beamline, on_message=listen, **kwargs)
            assert record.shutter == "Closed"
            told = [item[1:] for item in decisions if item[0] == "calibrate"]
            return record, told, account.dose_at(10.0, -5.0).peak_gy

    return run


MOUNTINGS = {
    "identity": [[1, 0], [0, 1]],
    "mirrored in x": [[-1, 0], [0, 1]],
    "rotated by 90 deg": [[0, -1], [1, 0]],
}


@pytest.mark.parametrize("name", MOUNTINGS)
def test_the_mounting_is_found_and_recorded(calibrate, beamline, name):
    record, told, dose_gy = calibrate(Camera(beamline, MOUNTINGS[name]))
    assert record.error is None
    assert record.value.calibration.rigid.tolist() == MOUNTINGS[name]
    ((reason, inputs),) = told
    assert inputs["orientation"] == name
    assert inputs["determinant"] == pytest.approx(np.linalg.det(MOUNTINGS[name]))
    assert record.value.calibration.toml() in reason
    assert record.value.calibration.toml() in record.value.outcome
    assert record.value.frames == inputs["frames"] == 11
    assert dose_gy > 0  # the frames count


@pytest.mark.parametrize(
    ("camera", "limit_gy", "why"),
    [
        ({"accepted": False}, 100e6, "no frame was accepted"),
        ({"matrix": [[1.5, 0], [0, 1.5]]}, 100e6, "pixels of 0.075"),
        ({}, 1e5, "limit"),
    ],
    ids=["nothing to see", "wrong pixel size", "dose limit on the way"],
)
def test_what_is_not_good_is_refused(calibrate, beamline, camera, limit_gy, why):
    record, told, dose_gy = calibrate(Camera(beamline, **camera), limit_gy)
    assert record.error is None
    assert record.value.calibration is None
    assert record.value.outcome.startswith("not calibrated: ")
    assert why in record.value.outcome
    assert [reason for reason, _ in told] == [record.value.outcome]
    assert dose_gy <= limit_gy


def test_the_shutter_is_closed_whatever_message_fails(calibrate, beamline):
    whole = len(calibrate(Camera(beamline))[0].messages)
    for index in range(0, whole, 29):
        for after in (False, True):
            calibrate(Camera(beamline), fail_at=index, after=after)


def test_impossible_moves_are_told(beamline):
    with pytest.raises(ValueError, match="steps must not be 0"):
        next(calibrate_stage(beamline, None, None, None, step_um=(0.0, 2.0)))
