"""A run as one HTML file: no scripts, nothing from elsewhere, prints well."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from xbat_live.archive import ArchiveError
from xbat_live.report.formulas import FORMULAS
from xbat_live.report.png import colours, data_uri, thumbnail
from xbat_live.report.svg import Trace, chart
from xbat_live.units import format_si

if TYPE_CHECKING:
    import pandas as pd

    from xbat_live.archive import Run

logger = logging.getLogger(__name__)

MOST_THUMBNAILS = 24
MOST_ROWS = 200
LINE = 96
LEAST_ENERGIES = 4
GREEN, ORANGE, GREY = "#1b7f4d", "#c2571a", "#777777"


def make_report(run: Run) -> str:
    """Return the report of a run as a self-contained HTML page.

    What a run does not hold is said in its place: a run of the microscope, one without a cell, or one that was aborted before its
    first frame gives a report as well.
    """
    tables = {name: _events(run, name) for name in ("primary", "analysis", "decision", "spots", "operator")}
    parts = (
        ("", _head),
        ("Dose per spot", _spots),
        ("Dose map", _dose_map),
        ("Dose of each frame", _dose_of_frames),
        ("Cell and relocations", _timeline),
        ("Blur", _blur),
        ("Rejected frames", _contact_sheet),
        ("Drift", _drift),
        ("Edge against state of charge", _edge),
        ("Decisions", _decisions),
        ("Operator log", _operator),
        ("Configuration", _configuration),
        ("Versions", _versions),
        ("Formulas and sources", _formulas),
    )
    sections = [f"{f'<h2>{title}</h2>' if title else ''}{_careful(part, run, tables)}" for title, part in parts]
    name = escape(str(run.start.get("sample", run.uid[:8])))
    style = files("xbat_live.report").joinpath("style.css").read_text()
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1"><title>{name}: '
        f"report of run {run.uid[:8]}</title><style>{style}</style><body>{''.join(sections)}</body></html>"
    )


Tables = dict[str, "pd.DataFrame"]


def _careful(part: Callable[[Any, Tables], str], run: Run, tables: Tables) -> str:
    try:
        return part(run, tables)
    except ArchiveError as error:
        return _none(f"Not in the archive: {error}")
    except Exception as error:  # one part that fails must not cost the reader the others
        logger.exception("a part of the report failed")
        return _none(f"This part could not be made: {type(error).__name__}: {error}")


def _events(run: Run, stream: str) -> pd.DataFrame:
    import pandas as pd

    return run.events(stream) if stream in run.streams else pd.DataFrame({"seq_num": [], "time": []})


def _none(text: str) -> str:
    return f"<p class=none>{escape(text)}</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], *, breakable: bool = False) -> str:
    """Return a table; in a `breakable` one words of the last column may be broken, because they may be of any length."""
    if not rows:
        return _none("None.")
    told = rows[:MOST_ROWS]
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in told)
    more = f"<p class=none>{len(told)} of {len(rows)} shown; xbat export has all.</p>" if len(rows) > len(told) else ""
    kind = " class=breakable" if breakable else ""
    return f"<table{kind}><thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr></thead><tbody>{body}</tbody></table>{more}"


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    return table[name].to_numpy(float) if name in table else np.full(len(table), math.nan)


def _unit(run: Run) -> tuple[float, str]:
    """Return the unit of the time axes: its length, s, and its name."""
    lasted_s = float(run.stop.get("time", math.inf)) - float(run.start.get("time", 0.0))
    return next((unit for unit in ((1.0, "s"), (60.0, "min")) if lasted_s < 180 * unit[0]), (3600.0, "h"))


def _elapsed(run: Run, table: pd.DataFrame) -> np.ndarray:
    return (_column(table, "time") - float(run.start.get("time", 0.0))) / _unit(run)[0]


def _rows(table: pd.DataFrame, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].tolist() for name in names), strict=True)) if set(names) <= set(table.columns) else []


def _head(run: Run, tables: Tables) -> str:
    from datetime import UTC, datetime

    start, stop = run.start, run.stop
    began = float(start.get("time", 0.0))
    frames, judged = len(tables["primary"]), tables["analysis"]
    accepted = int(np.nansum(_column(judged, "analysis_accepted")))
    doses = _column(tables["primary"], "point_dose_gy")
    peak = float(np.nanmax(doses)) if np.isfinite(doses).any() else math.nan
    limit = float(start.get("dose_limit_gy", math.nan))
    relocations = sum(action == "relocate" for (action,) in _rows(tables["decision"], "decision_action"))
    endings = [
        reason for action, reason in _rows(tables["decision"], "decision_action", "decision_reason") if action == "end"
    ]
    status = str(stop.get("exit_status", "not closed: it goes on, or its process was killed"))
    sentences = [f"The run ended: {status}{f' ({endings[-1]})' if endings else ''}."]
    sentences.append(
        f"{frames} frames of the sample, {accepted} of {len(judged)} judged ones accepted, {relocations} relocations."
    )
    if math.isfinite(peak):
        share = f", {100 * peak / limit:.0f} % of the limit {format_si(limit, 'Gy')}" if math.isfinite(limit) else ""
        above = math.isfinite(limit) and peak > limit
        how = "ABOVE the limit of its start" if above else "within the limit"
        how = how if math.isfinite(limit) else "no limit is recorded"
        sentences.append(f"Highest dose at any frame {format_si(peak, 'Gy')}{share}: {how}.")
    else:
        sentences.append("No dose is recorded.")
        above = False
    changes = sum(
        command == "limit" and bool(ok) for command, ok in _rows(tables["operator"], "operator_command", "operator_ok")
    )
    if changes:
        sentences.append(
            f"Limits were changed {changes} {'time' if changes == 1 else 'times'} in the run: see the operator log."
        )
    if reason := start.get("dose_override"):
        sentences.append(f"The forecast said NO-GO and was overridden: {reason}.")
    bad = status != "success" or above or "dose_override" in start
    when = datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lasted_s = float(stop.get("time", began)) - began
    who = start.get("operator") or "not named"
    about = f"{start.get('plan_name', 'run')}, run {run.uid}, began {when}, lasted {lasted_s:.0f} s, operator {who}"
    box = f"<div class='verdict{' bad' if bad else ''}'>{escape(' '.join(sentences))}</div>"
    return f"<h1>{escape(str(start.get('sample', 'Run')))}</h1><p>{escape(about)}</p>{box}"


def _spots(run: Run, tables: Tables) -> str:
    names = ("number", "label", "x_um", "y_um", "exposures", "open_time_s", "dose_gy")
    rows = _rows(tables["spots"], *(f"spot_{name}" for name in names))
    told = [
        (int(n) + 1, label, f"{x:.1f}, {y:.1f}", int(k), f"{t:.3f} s", format_si(float(d), "Gy"))
        for n, label, x, y, k, t, d in rows
    ]
    return _table(("spot", "label", "sample x, y / µm", "exposures", "open time", "highest dose"), told)


def _dose_map(run: Run, tables: Tables) -> str:
    found = run.dose_map()
    dose = np.asarray(found.values, float)
    if not (dose > 0).any():
        return _none("No dose on the sample.")
    top = float(dose.max())
    low = max(float(dose[dose > 0].min()), top / 1e4)
    fraction = np.where(dose >= low, np.log(np.maximum(dose, low) / low) / max(math.log(top / low), 1e-9), math.nan)
    x, y = (np.asarray(found[axis].values, float) for axis in ("x", "y"))
    picture = data_uri(colours(fraction[::-1] if y[-1] > y[0] else fraction))
    text = (
        f"x {x.min():.0f} to {x.max():.0f} µm (to the right), y {y.min():.0f} to {y.max():.0f} µm (up); logarithmic from "
        f"{format_si(low, 'Gy')} (dark) to {format_si(top, 'Gy')} (bright); white: less. Everything the sample has received until the "
        "end of this run."
    )
    return f'<div class=keep><img class=map alt="dose map" src="{picture}"><div class=bar></div><p>{escape(text)}</p></div>'


def _dose_of_frames(run: Run, tables: Tables) -> str:
    table = tables["primary"]
    limit = float(run.start.get("dose_limit_gy", math.nan))
    lines = [(limit / 1e3, f"limit {format_si(limit, 'Gy')}")] if math.isfinite(limit) else []
    trace = Trace(_elapsed(run, table), _column(table, "point_dose_gy") / 1e3, kind="points")
    return chart(
        [trace], f"time / {_unit(run)[1]}", "dose at the spot / kGy", marks=_relocations(run, tables), lines=lines
    )


def _relocations(run: Run, tables: Tables) -> list[tuple[float, str]]:
    table = tables["decision"]
    elapsed = _elapsed(run, table)
    actions = [action for (action,) in _rows(table, "decision_action")]
    at = [at_time for at_time, action in zip(elapsed, actions, strict=False) if action == "relocate"]
    return [(float(at_time), f"to spot {number + 2}" if number < 12 else "") for number, at_time in enumerate(at)]


def _timeline(run: Run, tables: Tables) -> str:
    table, parts = tables["primary"], []
    marks, elapsed = _relocations(run, tables), _elapsed(run, tables["primary"])
    for key, label, factor in (
        ("soc", "state of charge / %", 100),
        ("voltage_v", "voltage / V", 1),
        ("current_ma", "current / mA", 1),
    ):
        if f"potentiostat_{key}" in table:
            parts.append(
                chart(
                    [Trace(elapsed, factor * _column(table, f"potentiostat_{key}"))],
                    f"time / {_unit(run)[1]}",
                    label,
                    marks=marks,
                )
            )
    return "".join(parts) or _none("No electrochemistry in this run.")


def _blur(run: Run, tables: Tables) -> str:
    table = tables["analysis"]
    extent = _column(table, "analysis_blur_extent_px")
    if not np.isfinite(extent).any():
        return _none("No frame was judged for blur.")
    verdicts = np.array([str(v) for (v,) in _rows(table, "analysis_verdict")])
    good, bad = (
        extent[np.isfinite(extent) & (verdicts != "blurred")],
        extent[np.isfinite(extent) & (verdicts == "blurred")],
    )
    edges = np.linspace(0, max(float(np.nanmax(extent)), 1e-6) * 1.02, 41)
    middles = (edges[1:] + edges[:-1]) / 2
    limits = [float(m[1]) for (r,) in _rows(table, "analysis_reason") if (m := re.search(r"limit ([\d.]+) px", str(r)))]
    marks = [(float(np.median(limits)), f"threshold {np.median(limits):.2g} px")] if limits else []
    traces = [
        Trace(middles, np.histogram(extent[np.isfinite(extent)], edges)[0], "bars", ORANGE, f"blurred: {bad.size}"),
        Trace(middles, np.histogram(good, edges)[0], "bars", GREEN, f"others: {good.size}"),
    ]
    note = (
        ""
        if limits
        else "<p class=none>No frame was rejected for blur, so the threshold, which is learnt in the run, is not in its records.</p>"
    )
    return chart(traces, "blur extent / px", "frames", marks=marks) + note


def _contact_sheet(run: Run, tables: Tables) -> str:
    table = tables["analysis"]
    rows = _rows(table, "analysis_seq_num", "analysis_verdict", "analysis_reason", "analysis_accepted")
    rejected = [(int(seq), verdict, reason) for seq, verdict, reason, accepted in rows if not accepted]
    if not rejected:
        return _none("No frame was rejected." if rows else "No frame was judged.")
    frames = run.frames()
    place = {int(seq): number for number, seq in enumerate(frames["frame"].values)}
    parts = []
    for seq, verdict, reason in rejected[:MOST_THUMBNAILS]:
        if seq in place:
            picture = data_uri(thumbnail(frames.isel(frame=place[seq]).values))
            caption = escape(f"#{seq} {verdict}: {reason}")
            parts.append(f'<figure><img alt="frame {seq}" src="{picture}"><figcaption>{caption}</figcaption></figure>')
    return f"<p>{len(rejected)} rejected, {len(parts)} shown; all are kept.</p><div class=sheet>{''.join(parts)}</div>"


def _drift(run: Run, tables: Tables) -> str:
    table = tables["analysis"]
    x, y = _column(table, "analysis_drift_x_um"), _column(table, "analysis_drift_y_um")
    if not np.isfinite(x).any():
        return _none("No drift was registered.")
    elapsed = _elapsed(run, table)
    order = np.linspace(0, 1, len(x))
    path = [Trace(x, y, colour=GREY), Trace(x, y, "points", shade=order)]
    slow = [Trace(elapsed, x, name="drift x"), Trace(elapsed, y, colour=ORANGE, name="drift y")]
    jitter = [
        Trace(elapsed, 1e3 * _column(table, "analysis_jitter_x_um"), "points", name="jitter x"),
        Trace(elapsed, 1e3 * _column(table, "analysis_jitter_y_um"), "points", ORANGE, name="jitter y"),
    ]
    return (
        chart(path, "drift x / µm (dark: first, bright: last)", "drift y / µm", equal=True)
        + chart(slow, f"time / {_unit(run)[1]}", "slow drift / µm", marks=_relocations(run, tables))
        + chart(jitter, f"time / {_unit(run)[1]}", "jitter / nm")
    )


def _edge(run: Run, tables: Tables) -> str:
    energies = _column(tables["primary"], "mono_energy")
    steps = np.unique(np.round(energies[np.isfinite(energies)], 1))
    if len(steps) < LEAST_ENERGIES:
        return _none(f"Energies were not scanned ({len(steps)} of them; an edge takes {LEAST_ENERGIES}).")
    density = run.frames(accepted=True, normalised=True)
    numbers = {int(seq): row for row, seq in enumerate(tables["primary"]["seq_num"].tolist())}
    rows = [numbers[int(seq)] for seq in density["frame"].values]
    mean = np.array([float(np.nanmean(density.isel(frame=n).values)) for n in range(density.sizes["frame"])])
    table = tables["primary"]
    index, spot = _column(table, "point_index")[rows], _column(table, "point_spot")[rows]
    soc, dose = 100 * _column(table, "potentiostat_soc")[rows], _column(table, "point_dose_gy")[rows]
    found = []
    for scan in sorted({(i, s) for i, s in zip(index, spot, strict=True)}):
        here = (index == scan[0]) & (spot == scan[1])
        edge = half_height_ev(energies[rows][here], mean[here])
        if math.isfinite(edge):
            found.append((float(np.mean(soc[here])), edge, float(np.max(dose[here]))))
    if not found:
        return _none("No scan shows an edge.")
    charge, edges, doses = (np.array(values) for values in zip(*found, strict=True))
    has_cell = np.isfinite(charge).any()
    x = charge if has_cell else np.arange(len(edges), dtype=float)
    text = (
        f"Colour: dose, {format_si(doses.min(), 'Gy')} (dark) to {format_si(doses.max(), 'Gy')} (bright). Points of different dose "
        "that part at one state of charge are a sign of beam damage."
    )
    drawn = chart(
        [Trace(x, edges, "points", shade=doses / max(doses.max(), 1e-12))],
        "state of charge / %" if has_cell else "scan",
        "E½ / eV",
    )
    return f"{drawn}<p>{escape(text)}</p>"


def half_height_ev(energy_ev: np.ndarray, density: np.ndarray) -> float:
    """Return the energy, eV, at which `density` first crosses the middle between its lowest and its highest value; NaN without an edge."""
    good = np.isfinite(energy_ev) & np.isfinite(density)
    if good.sum() < LEAST_ENERGIES:
        return math.nan
    order = np.argsort(energy_ev[good])
    e, d = energy_ev[good][order], density[good][order]
    middle = (d.min() + d.max()) / 2
    above = d >= middle
    crossing = np.flatnonzero(~above[:-1] & above[1:])
    if not crossing.size:
        return math.nan
    i = int(crossing[0])
    return float(e[i] + (middle - d[i]) / (d[i + 1] - d[i]) * (e[i + 1] - e[i]))


def _decisions(run: Run, tables: Tables) -> str:
    rows = _rows(tables["decision"], "time", "decision_action", "decision_reason")
    began = float(run.start.get("time", 0.0))
    told = [(f"{t - began:.1f} s", action, reason) for t, action, reason in rows if action != "spot_dose"]
    return _table(("since start", "decision", "reason"), told)


def _operator(run: Run, tables: Tables) -> str:
    names = ("command", "who", "via", "ok", "message", "state")
    rows = _rows(tables["operator"], "time", *(f"operator_{name}" for name in names))
    began = float(run.start.get("time", 0.0))
    told = [
        (f"{t - began:.1f} s", f"{command} ({who or '?'}, {via})", "accepted" if ok else "REFUSED", message, state)
        for t, command, who, via, ok, message, state in rows
        if command != "state"
    ]
    override = run.start.get("dose_override")
    extra = f"<p><b>Dose override:</b> {escape(str(override))}</p>" if override else ""
    return extra + (
        _table(("since start", "command", "", "answer", "state"), told) if told else _none("Nobody steered this run.")
    )


def _configuration(run: Run, tables: Tables) -> str:
    left_out = ("versions", "hints", "plan_args", "config", "dose")
    rows = [(key, value) for key, value in sorted(run.start.items()) if key not in left_out]
    blocks = [
        f"<h3>{title}</h3><pre>{escape(_compact(run.start[key]))}</pre>"
        for key, title in (
            ("plan_args", "Arguments of the plan"),
            ("dose", "Dose model, limits and beam"),
            ("config", "Experiment"),
        )
        if key in run.start
    ]
    return _table(("key", "value"), rows, breakable=True) + "".join(blocks)


def _compact(value: object, indent: int = 0, used: int = 0) -> str:
    """Return JSON in which whatever fits into a line stands in one; `used` characters of the first line are taken."""
    flat = json.dumps(value, default=str, ensure_ascii=False)
    if len(flat) + used <= LINE or not isinstance(value, dict | list):
        return flat
    inner = " " * (indent + 1)
    if isinstance(value, list):
        parts = [_compact(item, indent + 1, indent + 2) for item in value]
    else:
        names = [f"{json.dumps(str(key))}: " for key in value]
        parts = [
            name + _compact(item, indent + 1, indent + 2 + len(name))
            for name, item in zip(names, value.values(), strict=True)
        ]
    begin, end = "[]" if isinstance(value, list) else "{}"
    return f"{begin}\n{inner}" + f",\n{inner}".join(parts) + f"\n{' ' * indent}{end}"


def _versions(run: Run, tables: Tables) -> str:
    return _table(("package", "version"), sorted((run.start.get("versions") or {}).items()))


def _formulas(run: Run, tables: Tables) -> str:
    return _table(("quantity", "formula", "meaning and source"), FORMULAS)
