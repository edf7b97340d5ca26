"""First frames that look blurred, kept until the next one tells whether it was vibration or the sample."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from xbat_live.imaging.blur import BlurResult, fit_pair
from xbat_live.imaging.keyframes import KeyframeChain
from xbat_live.imaging.registration import ShiftEngine
from xbat_live.imaging.spectrum import Float2D

Field = tuple[float | None, str]
"""Energy (eV; None: not told) and key of a field of view."""
ALIKE_PX = 2.4
"""Two first frames whose blur differs by less than a line of this length, and twice what is known of it, are anisotropic in the same way,
unbinned px."""


def as_structure(blur: BlurResult) -> BlurResult:
    """Return the verdict on a first frame whose direction two exposures share: vibration is drawn anew with each, structure stays."""
    reason = f"structure with a direction of its own ({blur.extent_px:.1f} px), the same in two exposures"
    return replace(blur, is_blurred=False, kind="sharp", reason=reason)


class FirstFrames:
    """Suspected first frames, one per field of view.

    Parameters
    ----------
    engine
        Numerics for this camera geometry.
    most
        Fields remembered.
    """

    def __init__(self, engine: ShiftEngine, most: int) -> None:
        self._engine = engine
        self._most = most
        self._kept: OrderedDict[Field, KeyframeChain] = OrderedDict()

    def remember(self, field: Field, od: Float2D, weight: Float2D) -> None:
        """Keep a first frame that looks blurred, to compare the next one with."""
        self._kept[field] = KeyframeChain(self._engine)
        self._kept[field].start(od, weight)
        self._kept.move_to_end(field)
        if len(self._kept) > self._most:
            self.forget_field(next(iter(self._kept)))

    def as_anisotropic(self, field: Field, od: Float2D, weight: Float2D) -> bool:
        """Whether this first frame is neither sharper nor more blurred than the one kept, in any direction."""
        if field not in self._kept:
            return False
        located = self._kept[field].locate(od, weight)
        if located.pair is None or not located.ok:
            return False
        largest, smallest, _, error = fit_pair(located.pair).principal()
        return max(abs(largest), abs(smallest)) < ALIKE_PX**2 / 12 + 2 * error

    def forget_field(self, field: Field) -> None:
        """Forget the frame of one field, if any."""
        self._kept.pop(field, None)

    def forget(self, key: str | None) -> None:
        """Forget the frames of one key at all energies, or all."""
        for field in [f for f in self._kept if key is None or f[1] == key]:
            self.forget_field(field)
