"""The scripted series in its order: energies, exposures, flats with the sample out, frames on it."""

from plan_driver import drive
from test_operando_messages import account, guarded, names, series
from test_operando_messages import beamline as beamline  # noqa: PLC0414 - a fixture

from xbat_live.plans import ScanStep, scripted_series

STEPS = (
    ScanStep(0, 2, 8320.0, 0.03),
    ScanStep(3, 0, 8320.0, 0.05),
    ScanStep(1, 0, 8345.0, 0.05, at_um=(30.0, 0.0)),
    ScanStep(0, 1, 8345.0, 0.03),
)


def run(tmp_path, beamline, **options):
    with account(tmp_path) as dose:
        settings = {"steps": STEPS, "n_points": 2, "exposure_s": None} | options
        return drive(series(beamline, guarded(dose, beamline), plan=_scripted, **settings), beamline)


def _scripted(*arguments, exposure_s, **options):
    return scripted_series(*arguments, **options)


def test_the_order_is_the_scripts(tmp_path, beamline):
    record = run(tmp_path, beamline)
    assert record.error is None
    saved = [name for name in names(record, "create") if name in ("dark", "flat", "primary")]
    assert saved == ["dark", "flat", "flat", "primary", "primary", "primary", "primary", "flat"]
    energies = [m.args[0] for m in record.messages if m.command == "set" and m.obj is beamline.mono.energy]
    assert energies == [8320.0, 8345.0]
    summary = record.value
    assert (summary.points, summary.frames, summary.outcome) == (2, 4, "completed")


def test_the_script_begins_anew_when_more_energies_are_asked_for(tmp_path, beamline):
    record = run(tmp_path, beamline, n_points=3)
    energies = [m.args[0] for m in record.messages if m.command == "set" and m.obj is beamline.mono.energy]
    assert energies == [8320.0, 8345.0, 8320.0]


def test_a_script_without_frames_is_refused(tmp_path, beamline):
    record = run(tmp_path, beamline, steps=(ScanStep(0, 2, 8320.0, 0.03),))
    assert isinstance(record.error, ValueError)
    assert "no step takes frames" in str(record.error)
