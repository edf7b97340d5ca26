"""Scan scripts of SSRL beamline 6-2c: ``sete``, ``moveto``, ``setexp``, ``setbinning``, ``collect``, one a line; ``;`` begins comments.

No published description of the language is known; this is what the beamline's own files hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from xbat_live.exchange.errors import ExchangeError
from xbat_live.recordings.names import kind_in_name

STAGE = ("x", "y", "z", "t")
"""Motors of the sample; all others are optics."""
_COMMANDS = ("sete", "moveto", "setexp", "setbinning", "collect")
_SAME_PLACE_UM = 1.0


@dataclass(frozen=True)
class Collected:
    """One exposure of a script.

    Attributes
    ----------
    line, file
        Where it stands, and the name its frame gets.
    energy_ev, exposure_s, binning
        As set before it.
    position
        Of the motors, um (``t``: deg), by the script's names.
    """

    line: int
    file: str
    energy_ev: float
    exposure_s: float
    binning: int
    position: dict[str, float]

    @property
    def is_reference(self) -> bool:
        """Whether the name says that the sample is out."""
        return kind_in_name(Path(self.file)) == "flat"

    def xy_um(self) -> tuple[float, float]:
        """Stage position (x, y), um."""
        return self.position.get("x", math.nan), self.position.get("y", math.nan)


@dataclass(frozen=True)
class Step:
    """Exposures in a row with nothing changed in between."""

    n: int
    is_reference: bool
    energy_ev: float
    exposure_s: float
    at_um: tuple[float, float]


@dataclass(frozen=True)
class ScanScript:
    """A script that was read.

    Attributes
    ----------
    file
        It.
    exposures
        In order.
    moves
        Positions that each motor was sent to, each once, in order.
    """

    file: Path
    exposures: tuple[Collected, ...] = field(repr=False)
    moves: dict[str, tuple[float, ...]] = field(repr=False)

    @property
    def samples(self) -> list[Collected]:
        """Exposures of the sample."""
        return [shot for shot in self.exposures if not shot.is_reference]

    @property
    def references(self) -> list[Collected]:
        """Exposures without the sample."""
        return [shot for shot in self.exposures if shot.is_reference]

    @property
    def energies_ev(self) -> list[float]:
        """Energies in the order visited, each once, eV."""
        return list(dict.fromkeys(shot.energy_ev for shot in self.exposures))

    def steps(self) -> list[Step]:
        """Return the exposures put together where nothing changes; a tenth of a micrometre is the stage's rounding, not a move."""
        first = self.samples[0].xy_um()

        def key(shot: Collected) -> tuple[bool, float, float, tuple[float, float]]:
            place = (0.0, 0.0)
            if not shot.is_reference:
                offset = [a - b for a, b in zip(shot.xy_um(), first, strict=True)]
                place = (
                    (0.0, 0.0)
                    if max(map(abs, offset)) <= _SAME_PLACE_UM
                    else (round(offset[0], 2), round(offset[1], 2))
                )
            return shot.is_reference, shot.energy_ev, shot.exposure_s, place

        return [Step(len(list(group)), *what) for what, group in groupby(self.exposures, key)]


def is_scan_script(path: Path) -> bool:
    """Tell whether a text file is a scan script: its first command is one of the language."""
    if path.suffix.lower() not in (".txt", ".scr", ".script") or not path.is_file():
        return False
    with path.open(errors="replace") as file:
        words = next((line.split() for line in file if line.strip() and not line.lstrip().startswith(";")), [])
    return bool(words) and words[0].lower() in _COMMANDS


def read_scan_script(path: Path) -> ScanScript:
    """Read a scan script.

    Raises
    ------
    ExchangeError
        Naming file, line and what is wrong: an unknown command, a number that is none, an exposure before energy, position or exposure
        time were set, or no exposure of the sample at all.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ExchangeError(f"{path}: cannot be read: {error.strerror or error}") from error
    state: dict[str, float] = {}
    position: dict[str, float] = {}
    moves: dict[str, dict[float, None]] = {}
    exposures: list[Collected] = []
    for number, line in enumerate(lines, start=1):
        words = line.partition(";")[0].split()
        if not words:
            continue
        where = f"{path}:{number}"
        command = words[0].lower()
        if command == "collect":
            exposures.append(_collect(where, number, words, state, position))
        elif command == "moveto":
            motor, value = _move(where, words)
            position[motor] = value
            moves.setdefault(motor, {})[value] = None
        elif command in _COMMANDS:
            state[command] = _number(where, words, 1)
        else:
            raise ExchangeError(f"{where}: unknown command {words[0]!r}; known are {', '.join(_COMMANDS)}")
    script = ScanScript(path, tuple(exposures), {motor: tuple(values) for motor, values in moves.items()})
    if not script.samples:
        raise ExchangeError(f"{path}: no exposure of the sample (collect of a file whose name is not a reference's)")
    return script


def _collect(where: str, line: int, words: list[str], state: dict[str, float], position: dict[str, float]) -> Collected:
    if len(words) != 2:
        raise ExchangeError(f"{where}: collect needs the name of one file, not {' '.join(words[1:])!r}")
    for command, what in (("sete", "the energy"), ("setexp", "the exposure")):
        if command not in state:
            raise ExchangeError(f"{where}: collect before {what} is set ({command})")
    if not {"x", "y"} <= set(position):
        raise ExchangeError(f"{where}: collect before the position is set (moveto x, moveto y)")
    return Collected(line, words[1], state["sete"], state["setexp"], int(state.get("setbinning", 1)), dict(position))


def _move(where: str, words: list[str]) -> tuple[str, float]:
    if len(words) != 3:
        raise ExchangeError(f"{where}: moveto needs a motor and a position, not {' '.join(words[1:])!r}")
    return words[1].lower(), _number(where, words, 2)


def _number(where: str, words: list[str], index: int) -> float:
    try:
        value = float(words[index])
    except (IndexError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ExchangeError(f"{where}: {words[0]} needs a number, not {' '.join(words[1:])!r}")
    if words[0].lower() != "moveto" and value <= 0:
        raise ExchangeError(f"{where}: {words[0]} {value:g} must be above 0")
    return value


def check_scan_info(script: ScanScript, info: Path) -> list[str]:
    """Compare a script with the beamline's ScanInfo file, and return what differs, one line each.

    Raises
    ------
    ExchangeError
        The file is no ScanInfo file.
    """
    told, files = _read_info(info)
    found = []
    names = [shot.file for shot in script.exposures]
    if names != files:
        missing = next((name for name in files if name not in names), None)
        found.append(
            f"{info.name} lists {len(files)} files, the script collects {len(names)}"
            + (f"; {missing} is not in the script" if missing else "")
        )
    counts = (("NEXPOSURES", "frames", script.samples), ("REFNEXPOSURES", "references", script.references))
    for key, what, shots in counts:
        per_energy = {len(list(group)) for _, group in groupby(shots, key=lambda shot: shot.energy_ev)}
        if key in told and shots and per_energy != {told[key]}:
            found.append(f"{info.name}: {key} is {told[key]}, the script takes {sorted(per_energy)} {what} per energy")
    return found


def is_scan_info(path: Path) -> bool:
    """Tell whether a text file is a ScanInfo file."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    with path.open(errors="replace") as file:
        return file.readline().split()[:1] == ["VERSION"]


def _read_info(path: Path) -> tuple[dict[str, int], list[str]]:
    told: dict[str, int] = {}
    lines: Iterator[str] = iter(path.read_text(errors="replace").splitlines())
    for line in lines:
        words = line.split()
        if words == ["FILES"]:
            return told, [name for rest in lines if (name := rest.strip())]
        if len(words) == 2 and words[1].lstrip("-").isdigit():
            told[words[0]] = int(words[1])
    raise ExchangeError(f"{path}: no line FILES; expected a ScanInfo file of SSRL beamline 6-2c")
