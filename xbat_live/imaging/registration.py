"""Rigid registration of optical density: coarse search over the whole field, fine step on the same material, with its sigma.

Coarse: softly whitened cross-power of 4x further binned images, zero-padded, candidates verified by their
normalised correlation over the overlap. Rough: sub-pixel registration of these small images. Fine: both windows are cropped to the same
material, the static noise shared through the flat is subtracted from the cross-spectrum, modes are weighted by their signal-to-noise ratio
(Hannan-Thomson), the maximum is refined by Newton steps, and its covariance is the sandwich estimate from the residual phases.
"""

from __future__ import annotations

import numpy as np

from xbat_live.imaging.coarse import Candidate, CoarseImage, CoarseSearch
from xbat_live.imaging.keyframe import Keyframe
from xbat_live.imaging.level import Crop, Level, PairShift
from xbat_live.imaging.spectrum import CropWindow, Float, Float2D, fast_even_length

SEARCH_PX = 10
"""Half width, binned px, of the correlation surface searched around the coarse shift."""
MOST_PULL_PX = 0.02
"""Correction for windows not on the same material, binned px, from which the fine step is repeated with the window in the better place."""
MOST_ROUNDS = 6
SAME_CROPS_PX = 0.8
"""Rest of a shift, binned px, up to which crops are kept: the window is displaced by it anyway, new ones would have to be transformed."""
LOST_PX = 0.6
"""Difference, binned px, from which the start is not trusted and the surface is searched."""

__all__ = ["Keyframe", "PairShift", "ShiftEngine"]


class ShiftEngine:
    """The numerics of registration for one camera geometry; holds no frames.

    Parameters
    ----------
    binned_shape
        Rows and columns of the binned optical density.
    bin_factor
        Unbinned px per binned px.
    workers
        Threads per FFT.

    Raises
    ------
    ValueError
        When the frame is too small to register (under 32 binned px).
    """

    def __init__(self, binned_shape: tuple[int, int], bin_factor: int = 2, workers: int = 1) -> None:
        if min(binned_shape) < 32:
            raise ValueError(
                f"frames of {binned_shape} px after binning by {bin_factor} are too small to register: at least 32 x 32 px; bin less"
            )
        self.shape = binned_shape
        self.bin = bin_factor
        self.workers = workers
        self.fine = Level(binned_shape, bin_factor, workers)
        self.margin = self.fine.margin
        self.central = self.fine.central
        self.coarse = CoarseSearch(binned_shape, workers)
        self._whole: CropWindow | None = None

    def forget_static(self) -> None:
        """Measure anew what share of the noise is the flat's: it was taken again."""
        self.fine.forget_static()

    def prepare(self, keyframe: Keyframe) -> None:
        """Transform what the keyframe's next frame will be compared with, so that it need not wait."""
        level = self.fine
        keyframe.coarse = self.coarse.prepare(keyframe.od, keyframe.weight)
        keyframe.central = level.reference(level.central, keyframe.od, keyframe.weight, level.margin)

    def search(self, keyframe: Keyframe, image: CoarseImage) -> list[Candidate]:
        """Return coarse shifts (binned px) of a frame against the keyframe, best first."""
        assert keyframe.coarse is not None
        return self.coarse.candidates(keyframe.coarse, image)

    def refine(
        self, keyframe: Keyframe, od: Float2D, shift_yx: Float, *, near: bool = False, known: bool = False
    ) -> PairShift | None:
        """Return the sub-pixel shift near `shift_yx` (binned px), or None when too little is common to both.

        `near` says that `shift_yx` is known to a fraction of a pixel: the correlation surface then need not be searched. `known` says that
        it is known to some hundredths: the window is put there at once.
        """
        at = np.asarray(shift_yx, float)
        search, searched, pair = not near, False, None
        crops: dict[tuple[int, int], Crop] = {}
        whole = (int(np.rint(at[0])), int(np.rint(at[1])))
        taper = at - whole if known else None
        for _ in range(MOST_ROUNDS):
            found = self._fine_step(keyframe, od, whole, None if search else at - whole, taper, crops)
            lost = found is None or (not search and float(np.abs(found.shift_yx - at).max()) > LOST_PX)
            if lost and not search and not searched:
                search, searched, taper = True, True, None
                continue
            if found is None:
                return pair
            pair = found
            if not search and found.pull_px < MOST_PULL_PX:
                return found
            search, searched, at = False, True, found.shift_yx
            if float(np.abs(at - whole).max()) > SAME_CROPS_PX:
                whole = (int(np.rint(at[0])), int(np.rint(at[1])))
            taper = at - whole
        return pair

    def central_spectrum(self, od: Float2D, weight: Float2D) -> Crop:
        """Return window, spectrum and polar power of the central crop."""
        return self.fine.crop(self.central, od, weight, self.margin)

    def whole_spectrum(self, od: Float2D, weight: Float2D) -> Crop:
        """Return the same of (nearly) the whole frame, geometry `whole`."""
        if self._whole is None:
            size = [fast_even_length(n) for n in self.shape]
            self._whole = CropWindow((size[0], size[1]), self.bin, self.workers)
        return self.fine.crop(self._whole, od, weight, (0, 0))

    @property
    def whole(self) -> CropWindow:
        """Geometry of `whole_spectrum`."""
        if self._whole is None:
            raise RuntimeError("call whole_spectrum() first")
        return self._whole

    def _fine_step(  # noqa: PLR0917
        self,
        keyframe: Keyframe,
        od: Float2D,
        whole: tuple[int, int],
        start_yx: Float | None,
        taper_yx: Float | None,
        crops: dict[tuple[int, int], Crop],
    ) -> PairShift | None:
        """Register at `whole` pixels plus `start_yx`, see `Level.register`; `crops` keeps the reference's crops between steps."""
        level = self.fine
        assert keyframe.central is not None
        if level.within_margin(whole):
            window, origin, reference = level.central, level.margin, keyframe.central
        else:
            common = level.overlap(whole)
            if common is None:
                return None
            window, origin = common
            if whole not in crops:
                # What the window's edge adds is much the same in all crops of an image, and takes as long as the rest.
                seen = keyframe.central.from_edge
                make = level.reference if seen is None else level.crop
                crops[whole] = make(window, keyframe.od, keyframe.weight, origin)
                crops[whole].from_edge = seen
            reference = crops[whole]
        return level.register(window, reference, keyframe.weight, origin, od, whole, start_yx, SEARCH_PX, taper_yx)
