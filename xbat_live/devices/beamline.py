"""All devices of a TXM beamline, their PV prefixes, and whether they answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ophyd import Device, Signal
from ophyd.device import do_not_wait_for_lazy_connection
from ophyd.signal import EpicsSignalBase

from xbat_live.devices.beam import Attenuator, IonChamber, StorageRing
from xbat_live.devices.camera import TxmCamera
from xbat_live.devices.epics import address_list
from xbat_live.devices.microscope import OpticalCamera
from xbat_live.devices.monochromator import Monochromator
from xbat_live.devices.potentiostat import Potentiostat
from xbat_live.devices.shutter import FastShutter
from xbat_live.devices.stage import TxmStage

_SUFFIX = {
    "stage": "TXM:",
    "camera": "CAM:",
    "mono": "MONO:",
    "potentiostat": "POT:",
    "shutter": "SH:",
    "attenuator": "ATT:",
    "i0": "I0:",
    "ring": "RING:",
}
OPTICAL_SUFFIX = "OPT:"
_CAMERA_SIGNALS = (
    *(
        f"cam.{name}"
        for name in ("acquire", "acquire_time", "acquire_period", "array_callbacks", "frame_type", "detector_state")
    ),
    *(f"cam.{name}" for name in ("image_mode", "num_images", "size_y", "size_x", "min_y", "min_x", "bin_y", "bin_x")),
    *(f"cam.{name}" for name in ("max_size_y", "max_size_x", "data_type", "port_name")),
    *(f"cam.array_size.{name}" for name in ("array_size_y", "array_size_x")),
    *(f"hdf1.{name}" for name in ("capture", "enable", "file_path", "file_name", "file_template", "swmr_mode")),
    *(f"hdf1.{name}" for name in ("file_path_exists", "full_file_name", "num_captured", "write_status")),
    *(f"hdf1.{name}" for name in ("write_message", "height", "width", "plugin_type")),
    *(f"image.{name}" for name in ("enable", "plugin_type")),
)
_OPTICAL_SIGNALS = (*_CAMERA_SIGNALS, "lamp", "reference")
MOST_NAMED = 40
_UNIT_NAMES = {
    "um": {"um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"},
    "deg": {"deg", "degree", "degrees", "°"},
    "eV": {"ev"},
    "nA": {"na"},
    "mA": {"ma"},
}
_RELIED_ON = {
    "stage.x.motor_egu": "um",
    "stage.y.motor_egu": "um",
    "stage.z.motor_egu": "um",
    "stage.theta.motor_egu": "deg",
    "mono.energy.motor_egu": "eV",
    "i0.current_na": "nA",
    "ring.current_ma": "mA",
}


class BeamlineConnectionError(ConnectionError):
    """PVs of the beamline do not answer.

    Attributes
    ----------
    missing
        Names of the PVs.
    """

    def __init__(self, message: str, missing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.missing = missing


class BeamlineUnitError(ValueError):
    """A PV has another unit than the one all arithmetic here relies on."""


@dataclass(frozen=True)
class DevicePrefixes:
    """PV prefix of each device, with its separator at the end. `optical`: None where there is no microscope, or none is used."""

    stage: str = "XBAT:TXM:"
    camera: str = "XBAT:CAM:"
    mono: str = "XBAT:MONO:"
    potentiostat: str = "XBAT:POT:"
    shutter: str = "XBAT:SH:"
    attenuator: str = "XBAT:ATT:"
    i0: str = "XBAT:I0:"
    ring: str = "XBAT:RING:"
    optical: str | None = None

    @classmethod
    def from_prefix(cls, prefix: str, **device_prefixes: str) -> DevicePrefixes:
        """Return the prefixes below a common one; `device_prefixes` replaces single ones, by device name.

        The microscope is only there when it is named: ``optical=prefix + OPTICAL_SUFFIX``.

        Raises
        ------
        ValueError
            Unknown device name.
        """
        unknown = sorted(set(device_prefixes) - {*_SUFFIX, "optical"})
        if unknown:
            raise ValueError(f"unknown device {', '.join(unknown)}; known: {', '.join((*_SUFFIX, 'optical'))}")
        return replace(cls(**{device: prefix + suffix for device, suffix in _SUFFIX.items()}), **device_prefixes)


@dataclass(frozen=True)
class TxmBeamline:
    """The devices of a TXM beamline. `optical` is the reflection microscope, None where there is none."""

    stage: TxmStage
    camera: TxmCamera
    mono: Monochromator
    potentiostat: Potentiostat
    shutter: FastShutter
    attenuator: Attenuator
    i0: IonChamber
    ring: StorageRing
    optical: OpticalCamera | None = None
    names: tuple[str, ...] = field(default=tuple(_SUFFIX), repr=False)

    def devices(self) -> tuple[Device, ...]:
        """Return all devices."""
        optical = () if self.optical is None else (self.optical,)
        return (*(getattr(self, name) for name in self.names), *optical)

    def wait_for_connection(self, timeout_s: float = 5.0) -> None:
        """Wait until all needed PVs have connected, and compare units; see the function of the same name."""
        wait_for_connection(self, timeout_s=timeout_s)

    def check_units(self) -> None:
        """Compare the units of the PVs that distances, energies and doses are computed from.

        A PV without a unit is believed.

        Raises
        ------
        BeamlineUnitError
            Naming PV, its unit and the expected one.
        """
        for path, expected in _RELIED_ON.items():
            signal = _resolve(self, path)
            unit = str(signal.get() if path.endswith("motor_egu") else signal.metadata.get("units") or "").strip()
            if unit and unit.lower() not in _UNIT_NAMES[expected]:
                raise BeamlineUnitError(
                    f"{signal.pvname} says its unit is {unit!r}, expected {expected!r}; "
                    f"set the record's EGU (and scale) to {expected}"
                )


@dataclass(frozen=True)
class PvReport:
    """One line of ``xbat doctor``.

    Attributes
    ----------
    pv
        Name of the PV that is read.
    connected
        Whether it answered.
    value
        As a text; long arrays are not read.
    units, lower, upper
        As the IOC tells them (None: it tells none).
    writable
        Whether this process may write it (the setpoint PV, where there are two).
    ms
        Time of one read, ms; NaN when not connected.
    timestamp_s
        When the IOC last changed the value, s since 1970 by its clock; 0 when it does not tell.
    """

    pv: str
    connected: bool
    value: str
    units: str | None
    lower: float | None
    upper: float | None
    writable: bool
    ms: float
    timestamp_s: float = 0.0


def build_beamline(
    prefixes: DevicePrefixes | None = None,
    *,
    frame_directory: str | Path = "/tmp",
    optical_directory: str | Path | None = None,
) -> TxmBeamline:
    """Make the devices; returns at once, their PVs connect in the background.

    Parameters
    ----------
    prefixes
        Default: all below ``XBAT:``.
    frame_directory
        Folder for the camera's HDF5 files, the same for the IOC and this machine.
    optical_directory
        The same for the microscope; None: `frame_directory`.
    """
    at = prefixes or DevicePrefixes()
    optical = None
    if at.optical is not None:
        optical = OpticalCamera(at.optical, name="optical", frame_directory=optical_directory or frame_directory)
    return TxmBeamline(
        stage=TxmStage(at.stage, name="stage"),
        camera=TxmCamera(at.camera, name="camera", frame_directory=frame_directory),
        mono=Monochromator(at.mono, name="mono"),
        potentiostat=Potentiostat(at.potentiostat, name="potentiostat"),
        shutter=FastShutter(at.shutter, name="shutter"),
        attenuator=Attenuator(at.attenuator, name="attenuator"),
        i0=IonChamber(at.i0, name="i0"),
        ring=StorageRing(at.ring, name="ring"),
        optical=optical,
    )


def wait_for_connection(beamline: TxmBeamline, *, timeout_s: float = 5.0) -> None:
    """Wait until every PV that the plans need has connected, then `TxmBeamline.check_units`.

    Raises
    ------
    BeamlineConnectionError
        Naming every PV that did not answer, the addresses that were searched, and the remedy.
    BeamlineUnitError
        A unit is wrong.
    """
    signals = list(_signals(beamline))
    deadline = time.monotonic() + timeout_s
    while not all(signal.connected for signal in signals):
        if time.monotonic() > deadline:
            missing = tuple(sorted({pv for signal in signals for pv in _missing(signal)}))
            if not missing:
                break
            all_missing = len(missing) >= len({pv for signal in signals for pv in _pvs(signal)})
            remedy = (
                "is the IOC running (xbat sim) and is this its address and port?"
                if all_missing
                else "other PVs answer: check these names, and prefix and device_prefixes in the configuration"
            )
            raise BeamlineConnectionError(
                f"{len(missing)} PV(s) did not answer within {timeout_s:g} s: {_named(missing)}; "
                f"searched {address_list()}; {remedy}",
                missing,
            )
        time.sleep(0.01)
    for device in beamline.devices():
        if not isinstance(device, TxmCamera):
            device.wait_for_connection(timeout=max(deadline - time.monotonic(), 1.0))
    beamline.check_units()


def _named(pvs: tuple[str, ...]) -> str:
    """Name PVs: all of a few, or one per group and how many more."""
    if len(pvs) <= MOST_NAMED:
        return ", ".join(pvs)
    groups: dict[str, list[str]] = {}
    for pv in pvs:
        groups.setdefault(pv.rpartition(":")[0], []).append(pv)
    return ", ".join(
        first if not more else f"{first} and {len(more)} more of {group}:" for group, (first, *more) in groups.items()
    )


def connection_report(beamline: TxmBeamline, *, timeout_s: float = 2.0) -> list[PvReport]:
    """Return one line per signal that the plans need, whether or not it answers."""
    signals = list(_signals(beamline))
    deadline = time.monotonic() + timeout_s
    while not all(signal.connected for signal in signals) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [_report(signal) for signal in signals]


def _report(signal: EpicsSignalBase) -> PvReport:
    missing = _missing(signal)
    if missing:
        return PvReport(missing[0], False, "", None, None, None, False, float("nan"))
    start = time.perf_counter()
    try:
        value = str(signal.get(use_monitor=False))
    except Exception as error:  # a report tells of errors, it does not raise them
        return PvReport(signal.pvname, True, f"unreadable: {error}", None, None, None, False, float("nan"))
    ms = 1e3 * (time.perf_counter() - start)
    low, high = signal.limits
    lower, upper = (low, high) if low is not None and high is not None and low < high else (None, None)
    units = signal.metadata.get("units") or None
    writable = bool(signal.metadata.get("write_access"))
    return PvReport(signal.pvname, True, value, units, lower, upper, writable, ms, float(signal.timestamp or 0.0))


def _signals(beamline: TxmBeamline) -> Iterator[EpicsSignalBase]:
    for item in fields(beamline):
        device = getattr(beamline, item.name)
        if isinstance(device, TxmCamera):
            paths = _OPTICAL_SIGNALS if isinstance(device, OpticalCamera) else _CAMERA_SIGNALS
            yield from (_resolve(device, path) for path in paths)
        elif isinstance(device, Device):
            yield from (walk.item for walk in device.walk_signals() if isinstance(walk.item, EpicsSignalBase))


def _resolve(start: Any, path: str) -> Signal:
    for name in path.split("."):
        if isinstance(start, Device):
            with do_not_wait_for_lazy_connection(start):  # all are waited for together
                start = getattr(start, name)
        else:
            start = getattr(start, name)
    return start


def _pvs(signal: EpicsSignalBase) -> set[str]:
    return {signal.pvname, getattr(signal, "setpoint_pvname", signal.pvname)}


def _missing(signal: EpicsSignalBase) -> list[str]:
    if signal.connected:
        return []
    states: dict[str, bool] = signal._connection_states  # noqa: SLF001
    return sorted(pv for pv, connected in states.items() if not connected) or [signal.pvname]
