"""The optical reflection microscope: an areaDetector with a lamp and a white reference."""

from __future__ import annotations

from ophyd import Component as Cpt
from ophyd import EpicsSignal

from xbat_live.devices.camera import TxmCamera


class OpticalCamera(TxmCamera):
    """Camera of the microscope; frames and their places as for `TxmCamera`. Visible light is no dose.

    `lamp` is the brightness of the lamp (0..1; 0 for darks), `reference` swings a white reference into the light path
    (``In``) or out of it (``Out``), for flats.
    """

    lamp = Cpt(EpicsSignal, "Lamp", auto_monitor=True)
    reference = Cpt(EpicsSignal, "Reference", string=True, auto_monitor=True, kind="omitted")

    # ophyd's way to extend them
    _default_read_attrs = (*TxmCamera._default_read_attrs, "lamp")  # type: ignore[assignment]  # noqa: SLF001
