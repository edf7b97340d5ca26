"""What a forecast says, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """Whether to run what is configured."""

    GO = "GO"
    WARN = "WARN"
    NO_GO = "NO-GO"


@dataclass(frozen=True)
class MaterialDose:
    """Dose of one material of the stack.

    Attributes
    ----------
    layer, material
        Which.
    frame_gy
        Peak dose of one frame, Gy; of several energies the largest.
    scan_gy
        Peak dose of one point of the series at one field of view (all its energies), Gy.
    spot_gy
        Largest dose at the end on the spot that gets most, with what the ledger holds, Gy.
    rate_gy_s
        Peak dose rate while the shutter is open, Gy/s.
    tracked
        True when a limit is for it; the others are scaled from the primary material by their dose per photon.
    """

    layer: str
    material: str
    frame_gy: float
    scan_gy: float
    spot_gy: float
    rate_gy_s: float
    tracked: bool


@dataclass(frozen=True)
class Mark:
    """When something happens: number of the sample frame, from 1, and time since the start, s."""

    frame: int
    time_s: float


@dataclass(frozen=True)
class LimitUse:
    """What becomes of one limit.

    Attributes
    ----------
    name, material, layer, value, unit, window_s, advisory
        The limit; `window_s` is None for an instantaneous rate, and for a dose.
    configured
        False for advisory limits of the literature that are shown without having been asked for.
    fraction
        Largest fraction of the limit that is reached, uncertainty included; above 1 for an advisory one that is exceeded, or
        an exposure that is refused.
    warn_50, warn_80
        When 50 and 80 % are passed; None: never.
    hit
        When it refuses an exposure (or, advisory, is exceeded) for the first time.
    """

    name: str
    material: str
    layer: str
    value: float
    unit: str
    fraction: float
    window_s: float | None = None
    advisory: bool = False
    configured: bool = True
    warn_50: Mark | None = None
    warn_80: Mark | None = None
    hit: Mark | None = None


@dataclass(frozen=True)
class SpotUse:
    """Spots of the sample.

    Attributes
    ----------
    used
        Spots that the walk exposed.
    needed
        Spots that the whole plan needs; an extrapolation when the walk ended early.
    available
        Spots that the sample offers, with the first one, given what the ledger holds.
    more_available
        True when `available` is a lower bound: counting ended there.
    frames_per_spot
        Frames of one field of view that a fresh spot allowed; 0 when no spot was used up.
    fields
        Fields of view of a spot.
    """

    used: int
    needed: int
    available: int
    more_available: bool
    frames_per_spot: int
    fields: int


@dataclass(frozen=True)
class Exposing:
    """How one exposure is made, for what follows from changing it.

    Attributes
    ----------
    exposure_s, extra_s, margin_s
        Camera exposure; shutter-open time beyond it, delivered and reserved, s.
    flux_ph_s, flux_headroom
        Flux on the sample, photons/s, and the factor on it in reservations.
    allowance
        Factor on doses that are compared with limits, ``1 + k sigma``.
    """

    exposure_s: float
    extra_s: float
    margin_s: float
    flux_ph_s: float
    flux_headroom: float = 1.02
    allowance: float = 1.0


@dataclass(frozen=True)
class Refusal:
    """The refusal that ended the walk.

    Attributes
    ----------
    limit
        Name of the limit.
    kind
        ``dose``, ``rate`` or ``windowed rate``.
    would_be, value, unit
        What it would have come to, uncertainty included, and the limit.
    first_exposure
        True when a fresh spot was refused its first exposure: one exposure alone is too much.
    dosed_before
        True when it was the very first exposure, because of what the ledger holds there.
    """

    limit: str
    kind: str
    would_be: float
    value: float
    unit: str
    first_exposure: bool = False
    dosed_before: bool = False


@dataclass(frozen=True)
class Forecast:
    """What a run will do, and whether it should.

    Attributes
    ----------
    file_or_sample, plan
        What was forecast.
    points, points_wanted
        Points of the series that will be completed, and that are configured.
    ended
        How the plan ends, in its own words.
    completed
        Whether that is its regular end.
    duration_s, beam_on_s
        Of the run, and of the shutter open, s.
    frames, flats, darks, rejected
        Frames of the sample, flats, darks; frames assumed to be rejected.
    materials, limits, spots, exposing
        See there.
    relocations, rests, attenuations
        How often the policy acts.
    frame_bytes, disk_bytes, disk_free_bytes
        Size of a frame, of all of them, and free space, bytes.
    refusal
        What ended it early, if a limit did.
    notes
        What was assumed.
    verdict, binding, reasons, ways_out
        The judgement: what binds, all reasons, and what to change.
    """

    sample: str
    plan: str
    points: int
    points_wanted: int
    ended: str
    completed: bool
    duration_s: float
    beam_on_s: float
    frames: int
    flats: int
    darks: int
    rejected: int
    materials: tuple[MaterialDose, ...]
    limits: tuple[LimitUse, ...]
    spots: SpotUse
    exposing: Exposing
    relocations: int
    rests: int
    attenuations: int
    frame_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    policy: tuple[str, ...] = ("relocate",)
    refusal: Refusal | None = None
    ledger_records: int = 0
    notes: tuple[str, ...] = ()
    verdict: Verdict = Verdict.GO
    binding: str = ""
    reasons: tuple[str, ...] = ()
    ways_out: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data (JSON)."""
        return asdict(self) | {"verdict": str(self.verdict)}
