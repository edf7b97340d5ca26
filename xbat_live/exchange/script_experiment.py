"""An experiment file from a scan script: plan ``scripted_series`` in the script's own order, with what it maps to said in comments."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from xbat_live.exchange.errors import ExchangeError
from xbat_live.exchange.scan_script import STAGE, ScanScript

LONGEST_WAY_UM = 250.0
"""From the sample to where it is out of the beam, unless a reference position is given; that of `xbat config init`."""


def experiment_toml(
    script: ScanScript, template: str, *, reference_um: tuple[float, float] | None = None
) -> tuple[str, list[str]]:
    """Return an experiment file, and what was mapped how, one line each.

    Parameters
    ----------
    template
        Experiment file that tells sample, beam, dose, camera; its section ``plan`` is replaced, its protocol stays.
    reference_um
        Stage position (x, y) with the sample out of the beam; left out: in the script's direction, at most `LONGEST_WAY_UM` away.

    Raises
    ------
    ExchangeError
        The template has no section ``plan`` or is no TOML.
    """
    reference, notes = _mapped(script, reference_um)
    head, tail = _without_plan(_exposing(template, script.samples[0].exposure_s))
    points = sum(1 for _ in groupby(script.steps(), key=lambda step: step.energy_ev))
    lines = [
        f"# Plan made of the scan script {script.file.name} by `xbat import`; the other sections are of the template: check them.",
        "#",
        *(f"# {note}" for note in notes),
        "",
        head.rstrip(),
        "",
        "[plan]",
        'name = "scripted_series"',
        f"n_points = {points}                 # energies visited: the script once; twice as many: twice",
        'period = "0 s"',
        'spot = ["0 um", "0 um"]       # stage position of the script\'s first sample position',
        'fields = [["0 um", "0 um"]]',
        f'reference = ["{reference[0]:g} um", "{reference[1]:g} um"]',
        "n_darks = 5                   # the script takes none",
        "max_retakes = 0               # as the script; a rejected frame may be taken again with more",
        "correct_drift = false         # as the script",
        "steps = [",
        *(f"    {line}," for line in _steps(script)),
        "]",
        "",
        tail.strip(),
    ]
    text = "\n".join(lines).rstrip() + "\n"
    tomllib.loads(text)
    return text, notes


def _steps(script: ScanScript) -> Iterator[str]:
    for step in script.steps():
        what = f"{'flats' if step.is_reference else 'frames'} = {step.n}"
        told = [what, f'energy = "{step.energy_ev:g} eV"', f'exposure = "{step.exposure_s:g} s"']
        if step.at_um != (0.0, 0.0):
            told.append(f'at = ["{step.at_um[0]:g} um", "{step.at_um[1]:g} um"]')
        yield f"{{ {', '.join(told)} }}"


def _mapped(script: ScanScript, reference_um: tuple[float, float] | None) -> tuple[tuple[float, float], list[str]]:
    samples, references = script.samples, script.references
    x, y = samples[0].xy_um()
    energies = script.energies_ev
    notes = [
        f"{len(energies)} energies {min(energies):g} to {max(energies):g} eV, {len(samples)} frames, {len(references)} references",
        f"x {x:g}, y {y:g} um of the script (sample) is stage (0, 0): this program counts from the middle of the sample",
    ]
    reference = reference_um or (-LONGEST_WAY_UM, 0.0)
    if references:
        rx, ry = references[0].xy_um()
        way = (rx - x, ry - y)
        far = math.hypot(*way)
        if reference_um is None and far > 0:
            share = min(LONGEST_WAY_UM / far, 1.0)
            reference = (round(way[0] * share, 2), round(way[1] * share, 2))
        notes.append(
            f"x {rx:g}, y {ry:g} um of the script (reference, {far:g} um away) is stage ({reference[0]:g}, {reference[1]:g}) um; "
            "another place: plan.reference"
        )
        others = len({shot.xy_um() for shot in references}) - 1
        if others:
            notes.append(f"the script has {others} more reference positions; all flats are taken at the first")
    notes += [
        f"{motor} {_span(values)}: {_fate(motor, values)}"
        for motor, values in script.moves.items()
        if motor not in "xy"
    ]
    binnings = sorted({shot.binning for shot in script.exposures})
    if binnings != [1]:
        told = " and ".join(map(str, binnings))
        notes.append(
            f"setbinning {told}: set it at the camera; camera.pixel_size is that of the pixel that is read out"
        )
    return reference, notes


def _fate(motor: str, values: tuple[float, ...]) -> str:
    if motor in STAGE:
        fixed = "stays" if len(values) == 1 else "is not followed, the stage stays"
        return f"the stage's {'rotation' if motor == 't' else motor} {fixed} where it is; bring it there before the run"
    return "no such motor here; optics follow the energy by the beamline's own means"


def _span(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{min(values):g} to {max(values):g} ({len(values)} positions)"


def _exposing(template: str, exposure_s: float) -> str:
    """Set ``camera.exposure``, which each step overrides, to that of the first frame."""
    section, lines = "", []
    for line in template.splitlines():
        section = line.split("#")[0].strip() if line.startswith("[") else section
        is_exposure = section == "[camera]" and line.split("=")[0].strip() == "exposure"
        lines.append(f'exposure = "{exposure_s:g} s"' if is_exposure else line)
    return "\n".join(lines)


def _without_plan(template: str) -> tuple[str, str]:
    """Return what stands before and after the section ``plan``."""
    lines = template.splitlines()
    begins = [i for i, line in enumerate(lines) if line.split("#")[0].strip() == "[plan]"]
    if len(begins) != 1:
        raise ExchangeError("the experiment to go by has no section [plan]; take one of `xbat config init`")
    after = next(
        (i for i in range(begins[0] + 1, len(lines)) if lines[i].startswith("[") and not lines[i].startswith("[plan")),
        len(lines),
    )
    return "\n".join(lines[: begins[0]]), "\n".join(lines[after:])


def write_experiment(path: Path, text: str) -> None:
    """Write an experiment file, whole or not at all.

    Raises
    ------
    ExchangeError
        It cannot be written.
    """
    from xbat_live.exchange.places import replacing

    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
