"""What full-field XAS imaging can be told: numbers of cubes, places, and what an alarm leads to; checked before anything moves."""

from __future__ import annotations

from dataclasses import dataclass

IRRADIATED = "C"
ON_ALARM = ("none", "stop", "relocate", "attenuate")


@dataclass(frozen=True)
class CubeCounts:
    """How many cubes of each kind.

    Raises
    ------
    ValueError
        A negative number, no reference cube, or no foil cube: without them there is no absorbance and no energy.
    """

    i0: int
    foil: int
    ocv: int
    fresh: int
    repeat_references: bool = True
    per_file: int = 20

    def __post_init__(self) -> None:
        if min(self.i0, self.foil) < 1:
            which = "I0 (n_i0)" if self.i0 < 1 else "foil (n_foil)"
            raise ValueError(
                f"no cube of {which}: the absorbance needs I0, the energy of every pixel needs the foil; take at least one of each"
            )
        if min(self.ocv, self.fresh) < 0 or self.per_file < 1:
            raise ValueError(f"impossible numbers of cubes: {self}")


@dataclass(frozen=True)
class Places:
    """Where everything is, (x, y), um: #C and given fresh spots in sample coordinates, reference and foil as stage positions."""

    irradiated_um: tuple[float, float]
    fresh: tuple[str, ...]
    given_um: dict[str, tuple[float, float]]
    reference_um: tuple[float, float]
    foil_um: tuple[float, float]
    guard_um: float

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.given_um) - set(self.fresh)):
            raise ValueError(
                f"coordinates are given for {', '.join(unknown)}, fresh spots are {', '.join(self.fresh) or 'none'}"
            )
        if IRRADIATED in self.fresh:
            raise ValueError(f"{IRRADIATED} is the irradiated spot; fresh spots have other labels")


@dataclass
class XasPolicy:
    """What an alarm of the live analysis leads to.

    Attributes
    ----------
    action
        One of `ON_ALARM`.
    factor
        On the transmission for ``attenuate``.
    acted
        It has been done: an alarm lasts, the remedy is applied once a place.
    """

    action: str
    factor: float = 0.5
    acted: bool = False

    def __post_init__(self) -> None:
        if self.action not in ON_ALARM:
            raise ValueError(f"on_alarm {self.action!r} is unknown; known: {', '.join(ON_ALARM)}")
