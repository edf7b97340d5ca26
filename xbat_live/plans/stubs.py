"""Plan stubs of a TXM beamline: one exposure with its Event, flats, darks, moving to a spot. They open no run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bluesky.plan_stubs as bps
from bluesky.protocols import Readable
from bluesky.utils import MsgGenerator, short_uid

from xbat_live.devices import PointRecord, TxmBeamline
from xbat_live.plans.exposure import DARK_GROUP, Delivery, guarded_exposure
from xbat_live.plans.guard import DoseGuard, close_shutter
from xbat_live.plans.policies import Remedies

LEAST_LIGHT = 0.98
"""Part of an exposure's light that a flat has to have."""
_FLAT_ATTEMPTS = 3
FLAT, DARK, PRIMARY = "flat", "dark", "primary"
_FRAME_TYPE = {PRIMARY: "Normal", FLAT: "FlatField", DARK: "Background"}


@dataclass(frozen=True)
class Target:
    """Where an exposure is meant to be.

    Attributes
    ----------
    field
        Label of the field of view; frames of one label and spot are registered against one another.
    spot
        Number of the spot on the sample, from 0.
    x_um, y_um
        Stage position, um.
    """

    field: str
    spot: int
    x_um: float
    y_um: float


def expose(
    beamline: TxmBeamline,
    guard: DoseGuard,
    point: PointRecord,
    *,
    exposure_s: float,
    readables: Sequence[Readable] = (),
    stream: str = PRIMARY,
    remedies: Remedies | None = None,
) -> MsgGenerator[Delivery]:
    """Take one frame under the dose guard and save its Event in `stream`.

    Parameters
    ----------
    point
        What the frame is (spot, field, attempt); its dose fields are filled here.
    exposure_s
        Time the beam is wanted, s; already set at the camera (`prepare_exposures`).
    readables
        Read into the same Event, beside camera, point, stage, energy, I0, ring, shutter and dose.
    remedies
        What is done when the exposure is refused; None: nothing.

    Raises
    ------
    DoseRefused
        Before the shutter moves.
    """
    yield from _set_frame_type(beamline, stream)
    point.fill(frame_type=_FRAME_TYPE[stream], exposure_s=exposure_s)
    spot = int(point.spot.get() or 0)
    label = f"{stream} {point.field.get()} spot {spot}"
    delivery = yield from guarded_exposure(
        beamline, guard, exposure_s=exposure_s, label=label, spot=spot, remedies=remedies
    )
    request, settlement = delivery.reservation.request, delivery.settlement
    point.fill(
        sample_x_um=request.x_um,
        sample_y_um=request.y_um,
        open_time_s=delivery.open_time_s,
        light_fraction=delivery.light_fraction,
        flux_reserved_ph_s=request.flux_ph_s,
        flux_ph_s=settlement.flux_ph_s,
        dose_reserved_gy=delivery.reservation.peak_after_gy - delivery.reservation.peak_before_gy,
        dose_delivered_gy=settlement.delivered_gy,
        dose_gy=settlement.peak_total_gy,
    )
    yield from save_event(beamline, guard, point, readables, stream=stream)
    return delivery


def save_event(
    beamline: TxmBeamline, guard: DoseGuard, point: PointRecord, readables: Sequence[Readable], *, stream: str
) -> MsgGenerator[None]:
    """Save what the devices hold now as one Event of `stream`."""
    yield from bps.create(name=stream)
    for device in (*event_devices(beamline, guard, point), *readables):
        yield from bps.read(device)
    yield from bps.save()


def event_devices(beamline: TxmBeamline, guard: DoseGuard, point: PointRecord) -> tuple[Readable, ...]:
    """Return the devices read in every Event with a frame."""
    signals = () if guard.signals is None else (guard.signals,)
    return (
        beamline.camera,
        point,
        beamline.stage,
        beamline.mono,
        beamline.i0,
        beamline.ring,
        beamline.shutter,
        *signals,
    )


def take_flats(
    beamline: TxmBeamline,
    guard: DoseGuard,
    point: PointRecord,
    *,
    reference_um: tuple[float, float],
    exposure_s: float,
    n: int,
) -> MsgGenerator[None]:
    """Move the sample out of the beam and take `n` flats into the stream ``flat``.

    A flat that lacks light is kept, and taken once more. The stage stays out; the next `move_to` brings the sample back. The guard
    counts these exposures too: they are reserved at their own position, so that a wrong `reference_um` that leaves the sample in
    the beam costs visible dose.

    Parameters
    ----------
    reference_um
        Stage position (x, y) with the sample out, um.
    exposure_s
        Exposure time, already set at the camera, s.
    """
    yield from move_to(beamline, *reference_um)
    point.fill(field="reference", attempt=0, target_x_um=reference_um[0], target_y_um=reference_um[1])
    for _ in range(n):
        for attempt in range(_FLAT_ATTEMPTS):
            point.fill(attempt=attempt)
            delivery = yield from expose(beamline, guard, point, exposure_s=exposure_s, stream=FLAT)
            if delivery.light_fraction >= LEAST_LIGHT:
                break


def take_darks(beamline: TxmBeamline, guard: DoseGuard, point: PointRecord, *, n: int) -> MsgGenerator[None]:
    """Take `n` frames with the shutter closed into the stream ``dark``."""
    yield from close_shutter(beamline)
    yield from _set_frame_type(beamline, DARK)
    point.fill(
        field="dark",
        attempt=0,
        frame_type=_FRAME_TYPE[DARK],
        open_time_s=0.0,
        light_fraction=0.0,
        flux_ph_s=0.0,
        dose_delivered_gy=0.0,
    )
    for _ in range(n):
        yield from bps.trigger(beamline.camera, group=short_uid(DARK_GROUP), wait=True)
        yield from save_event(beamline, guard, point, (), stream=DARK)


def move_to(beamline: TxmBeamline, x_um: float, y_um: float) -> MsgGenerator[None]:
    """Move the stage to (x, y), um, with the shutter closed.

    Raises
    ------
    ophyd.utils.LimitError
        When the position is outside the stage's limits; the message holds axis, value, unit and limits.
    """
    yield from close_shutter(beamline)
    yield from bps.mv(beamline.stage.x, x_um, beamline.stage.y, y_um)


def move_to_spot(
    beamline: TxmBeamline, target: Target, *, drift_um: tuple[float, float] = (0.0, 0.0)
) -> MsgGenerator[None]:
    """Move to a target given in sample coordinates, following the drift (x, y), um."""
    yield from move_to(beamline, target.x_um + drift_um[0], target.y_um + drift_um[1])


def _set_frame_type(beamline: TxmBeamline, stream: str) -> MsgGenerator[None]:
    wanted = _FRAME_TYPE[stream]
    if (yield from bps.rd(beamline.camera.frame_type)) != wanted:
        yield from bps.abs_set(beamline.camera.frame_type, wanted, wait=True)
