"""How far a long protocol has come, in a small file that is never half written: a plan that was killed goes on from it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VERSION = 1


class ProtocolMismatchError(ValueError):
    """The protocol on disk is another one than that which is to be run; the message names what differs, and the remedy."""


@dataclass
class ProtocolState:
    """Progress of a protocol.

    Attributes
    ----------
    file
        Where it is kept; None: nowhere.
    arguments
        What the protocol is, as plain data; a run with others does not go on from it.
    runs
        Uids of the runs that have worked on it.
    cubes
        Number of the next cube.
    done
        Cubes of every phase that are complete, by name of the phase.
    finished
        Phases that are over.
    since_unix_s
        When a phase began, s since 1970.
    places_um
        Sample coordinates (x, y) by label, um.
    beam_s
        Shutter-open time by label, s.
    open_cube
        The cube that is being taken, None between cubes. One that is found here at the start was cut short: its dose is in the
        ledger, its frames are in the file, it is not taken again under its number.
    lost
        Numbers of such cubes.
    reference_cubes
        Where the cubes of I0 and foil lie that hold at present: fields of `xbat_live.devices.CubeStart`, and the phase. The live analysis
        of a run that goes on needs them.
    complete
        The whole protocol is over.
    """

    file: Path | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    cubes: int = 0
    done: dict[str, int] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    since_unix_s: dict[str, float] = field(default_factory=dict)
    places_um: dict[str, tuple[float, float]] = field(default_factory=dict)
    beam_s: dict[str, float] = field(default_factory=dict)
    open_cube: int | None = None
    lost: list[int] = field(default_factory=list)
    reference_cubes: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False

    @property
    def resumed(self) -> bool:
        """True when an earlier run has begun it."""
        return bool(self.runs)

    def keep_reference(self, phase: str, cube: dict[str, Any]) -> None:
        """Note a cube of I0 or foil, as plain data; those of its kind from another phase hold no longer."""
        kept = [old for old in self.reference_cubes if old["kind"] != cube["kind"] or old["phase"] == phase]
        self.reference_cubes = [*kept, {"phase": phase, **cube}]

    def begin_phase(self, name: str) -> float:
        """Note when a phase began, unless it has; return that, s since 1970."""
        return self.since_unix_s.setdefault(name, time.time())


def load_state(file: Path | None, arguments: dict[str, Any]) -> ProtocolState:
    """Return the state of a protocol: that of `file`, or a new one when it is not there.

    Raises
    ------
    ProtocolMismatchError
        The file is of a protocol with other arguments, of a later version, or complete.
    ValueError
        The file is damaged.
    """
    fresh = ProtocolState(file, arguments)
    if file is None or not file.exists():
        return fresh
    anew = f"move {file} away to begin anew (the dose so far stays in the ledger)"
    try:
        content = json.loads(file.read_text())
        version = int(content.pop("version"))
        if version != VERSION:
            raise ProtocolMismatchError(f"{file} has version {version}, this is for version {VERSION}; {anew}")
        state = ProtocolState(file, **content)
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ProtocolMismatchError):
            raise
        raise ValueError(f"{file}: not the state of a protocol ({error}); {anew}") from error
    if state.complete:
        raise ProtocolMismatchError(f"the protocol of {file} is complete; {anew}")
    different = sorted(
        name for name in {*arguments, *state.arguments} if arguments.get(name, None) != state.arguments.get(name, None)
    )
    if different:
        changes = "; ".join(
            f"{name}: {state.arguments.get(name)!r} then, {arguments.get(name)!r} now" for name in different
        )
        raise ProtocolMismatchError(f"{file} is of a protocol with other settings ({changes}); restore them, or {anew}")
    state.places_um = {label: (float(x), float(y)) for label, (x, y) in state.places_um.items()}
    if state.open_cube is not None:
        state.lost.append(state.open_cube)
        state.open_cube = None
    return state


def save_state(state: ProtocolState) -> None:
    """Write a state, durably and at once: whoever reads the file sees the state before or this one."""
    if state.file is None:
        return
    content = {"version": VERSION, **{name: value for name, value in asdict(state).items() if name != "file"}}
    state.file.parent.mkdir(parents=True, exist_ok=True)
    draft = state.file.with_suffix(".part")
    with draft.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(state.file)
    folder = os.open(state.file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
