"""What is known of a run as text: a block that fits any terminal, one plain line, records for machines. State in, text out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from xbat_live.live.store import LiveStore
from xbat_live.units import format_si

OVER = ("ENDED", "HALTED-DOSE", "ABORTED", "FAILED")
WARN = 0.8
STALE_S = 2.0
EVENTS_SHOWN = 5
RECORDED = (
    "counts",
    "verdicts",
    "progress",
    "dose",
    "quality",
    "drift",
    "cell",
    "beam",
    "machine",
    "stores",
    "services",
)
"""Values that a record ``status`` holds."""

_LABEL = 9
_STATE_STYLE = {
    "RUNNING": "bold green",
    "ENDED": "bold green",
    "HALTED-DOSE": "bold red",
    "FAILED": "bold red",
    "ABORTED": "bold red",
    "ABORTING": "bold red",
    "IDLE": "dim",
}
_SEVERITY = {
    "alarm": ("✖", "!!", "bold red"),
    "warning": ("▲", "!", "yellow"),
    "notice": ("➤", ">", "magenta"),
    "operator": ("☞", "@", "bold cyan"),
    "info": ("·", "-", ""),
}


def phase(state: Mapping[str, Any]) -> str:
    """Return the state in one word: what the steering is about goes before what the documents say, until the run is over."""
    word = str(state.get("state") or "IDLE")
    steered = (state.get("steering") or {}).get("phase")
    return str(steered) if steered not in (None, "READY", "RUNNING", "ENDED") and word not in OVER else word


def duration(seconds: float | None) -> str:
    """Write a time as m:ss or h:mm:ss; ``-`` when it is not known."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def times(state: Mapping[str, Any], now_s: float) -> tuple[float | None, float | None, float | None]:
    """Return the time since the start, the time left (s), and the part that is done, 0 to 1; None: not known.

    The plan says how long it is; where it only says how many points, the pace so far tells.
    """
    run, progress = state.get("run") or {}, state.get("progress") or {}
    started, over = run.get("started"), state.get("state") in OVER
    end_s = run.get("stopped") if over else now_s
    elapsed_s = None if started is None or end_s is None else max(end_s - started, 0.0)
    point, n_points, total_s = progress.get("point"), progress.get("n_points"), progress.get("total_s")
    part = None if point is None or not n_points else point / n_points
    left_s = None
    if elapsed_s is not None and total_s:
        left_s = max(total_s - elapsed_s, 0.0)
        part = max(part or 0.0, elapsed_s / total_s)
    elif elapsed_s is not None and part:
        left_s = elapsed_s * (1 / part - 1) if part < 1 else 0.0
    if over:
        left_s, part = 0.0, 1.0 if run.get("exit_status") == "success" else part
    return elapsed_s, left_s, None if part is None else min(part, 1.0)


def limit_gy(state: Mapping[str, Any]) -> float | None:
    """Return the dose limit in force, Gy; None: none is known."""
    for name in ("experiment", "run"):
        if value := (state.get(name) or {}).get("dose_limit_gy"):
            return float(value)
    return None


class RunBlock:
    """The block of a run as a rich renderable: as wide as the terminal is when it is drawn.

    Parameters
    ----------
    store
        What is known.
    now_s
        Unix time that it is drawn for; None: that of the drawing.
    age_s
        How long nothing was heard of the run; more than 2 s is told.
    hint
        Last line.
    """

    def __init__(self, store: LiveStore, *, now_s: float | None = None, age_s: float = 0.0, hint: str = "") -> None:
        self.store, self.now_s, self.age_s, self.hint = store, now_s, age_s, hint

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        now_s = time.time() if self.now_s is None else self.now_s
        plain = options.ascii_only
        state = dict(self.store.state)
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=_LABEL, style="dim", no_wrap=True)
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        room = max(options.max_width - _LABEL - 1, 20)
        for label, content in _rows(state, now_s, room, plain=plain):
            grid.add_row(label, content)
        parts: list[Any] = [_head(state), grid, *_events(self.store, plain=plain)]
        if self.age_s > STALE_S and state.get("state") not in OVER:
            parts.append(_text(f"no data for {self.age_s:.0f} s: the acquisition does not answer", "bold yellow"))
        if self.hint:
            parts.append(_text(self.hint, "dim"))
        yield Group(*parts)


def _head(state: Mapping[str, Any]) -> Text:
    run, word = state.get("run") or {}, phase(state)
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(f" {word} ", f"{_STATE_STYLE.get(word, 'bold yellow')} reverse")
    banner = "REPLAY" if run.get("replay_of") else state.get("banner")
    told = (run.get("plan_name") or "no run yet", run.get("sample"), str(run.get("uid") or "")[:8], banner)
    head.append("  " + "  ".join(str(item) for item in told if item))
    if reason := state.get("state_reason"):
        head.append(f"  {reason}", "dim")
    return head


def _rows(state: Mapping[str, Any], now_s: float, room: int, *, plain: bool) -> Iterator[tuple[str, Text]]:
    services = state.get("services") or []
    if any(item.get("state") in ("starting", "failed") for item in services) and not _frames(state):
        yield "services", _text(", ".join(f"{item['name']} {item['state']}" for item in services))
    elapsed_s, left_s, part = times(state, now_s)
    if part is not None or elapsed_s is not None:
        told = f" {100 * (part or 0.0):3.0f} %  {', '.join(_progress(state))}"
        width = min(max(room - len(told), 8), 40)
        yield "progress", Text.assemble(_bar(part or 0.0, width, plain=plain), told, no_wrap=True, overflow="ellipsis")
        over = state.get("state") in OVER
        yield "time", _text(f"{duration(elapsed_s)} since the start, {'ended' if over else f'{duration(left_s)} left'}")
    if dose := _dose(state):
        yield "dose", dose
        bar, scale = gauge((state.get("dose") or {}).get("dose_gy"), limit_gy(state), min(room, 72), plain=plain)
        yield "", bar
        yield "", scale
    for label, facts in (
        ("frames", _judged(state)),
        ("beam", _beam(state)),
        ("drift", _drift(state)),
        ("cell", _cell(state)),
    ):
        if facts:
            yield label, _text(", ".join(facts))


def gauge(dose_gy: float | None, most_gy: float | None, width: int, *, plain: bool = False) -> tuple[Text, Text]:
    """Return a dose against its limit on a logarithmic scale, and the scale below it; each `width` characters.

    Parameters
    ----------
    dose_gy, most_gy
        Dose and limit, Gy; None: not known.
    plain
        ASCII only.
    """
    values = [value for value in (dose_gy, most_gy) if value and value > 0]
    if not values:
        return Text("-" * width, "dim"), Text()
    low = math.floor(math.log10(most_gy or max(values)) - 2)
    high = max(math.ceil(math.log10(max(values)) + 0.02), low + 1)

    def at(value: float) -> int:
        part = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return min(max(round(part * (width - 1)), 0), width - 1)

    full, empty, mark = ("#", "-", "|") if plain else ("█", "─", "┃")
    filled = at(dose_gy) + 1 if dose_gy and dose_gy > 10.0**low else 0
    bar = Text(full * filled, _level(dose_gy, most_gy), no_wrap=True)
    bar.append(empty * (width - filled), "dim")
    if most_gy and most_gy > 0:
        place = at(most_gy)
        bar = Text.assemble(bar[:place], (mark, "bold"), bar[place + 1 :])
    line = [" "] * width
    for power in range(low, high + 1):
        label = format_si(10.0**power, "Gy")
        start = min(max(at(10.0**power) - len(label) // 2, 0), width - len(label))
        if all(character == " " for character in line[max(start - 1, 0) : start + len(label) + 1]):
            line[start : start + len(label)] = label
    return bar, Text("".join(line), "dim", no_wrap=True)


def _bar(part: float, width: int, *, plain: bool) -> Text:
    filled = round(min(max(part, 0.0), 1.0) * width)
    full, empty = ("#", "-") if plain else ("█", "─")
    return Text.assemble((full * filled, "green"), (empty * (width - filled), "dim"))


def _level(dose_gy: float | None, most_gy: float | None) -> str:
    if not dose_gy or not most_gy:
        return "green"
    return "red" if dose_gy >= most_gy else "yellow" if dose_gy >= WARN * most_gy else "green"


def _dose(state: Mapping[str, Any]) -> Text | None:
    dose, most_gy = state.get("dose") or {}, limit_gy(state)
    value = dose.get("dose_gy")
    if value is None:
        return None
    words = [format_si(value, "Gy")]
    if most_gy:
        share = value / most_gy
        word = ": at the limit" if share >= 1 else ": near" if share >= WARN else ""
        words[0] += f" of {format_si(most_gy, 'Gy')} ({100 * share:.0f} %{word})"
    if (left := dose.get("exposures_left")) is not None and left < 1e8:
        words.append(f"{left:.0f} exposure{'' if left == 1 else 's'} left here")
    if (rate := dose.get("rate_gy_s")) is not None:
        words.append(f"{format_si(rate, 'Gy/s')}")
    return _text(", ".join(words), _level(value, most_gy) if most_gy and value >= WARN * most_gy else "")


def _frames(state: Mapping[str, Any]) -> int:
    return int((state.get("counts") or {}).get("frames") or 0)


def _progress(state: Mapping[str, Any]) -> list[str]:
    progress = state.get("progress") or {}
    facts = []
    if progress.get("point") is not None:
        of = f"/{progress['n_points']}" if progress.get("n_points") else ""
        facts.append(f"point {progress['point']}{of}")
    if progress.get("n_energies"):
        facts.append(f"energy {progress.get('energy_index') or '-'}/{progress['n_energies']}")
    if spots := state.get("spots"):
        facts.append(f"spot {len(spots)}")
    return facts


def _judged(state: Mapping[str, Any]) -> list[str]:
    counts, verdicts, quality = (state.get(name) or {} for name in ("counts", "verdicts", "quality"))
    if not counts.get("frames"):
        return []
    facts = [f"{counts['frames']} taken"]
    facts += [f"{number} {verdict}" for verdict, number in sorted(verdicts.items(), key=lambda item: -item[1])]
    if judged := counts.get("judged"):
        facts[-1] += f" ({100 * counts.get('rejected', 0) / judged:.0f} % rejected)"
    if (quality.get("in_a_row") or 0) > 1:
        facts.append(f"{quality['in_a_row']} rejected in a row")
    return facts


def _beam(state: Mapping[str, Any]) -> list[str]:
    machine, beam = state.get("machine") or {}, state.get("beam") or {}
    facts = []
    if shutter := machine.get("shutter"):
        facts.append(f"shutter {shutter}")
    if beam.get("x_um") is not None and beam.get("y_um") is not None:
        number = f"spot {int(beam['spot']) + 1} at " if beam.get("spot") is not None else ""
        facts.append(f"{number}({beam['x_um']:.1f}, {beam['y_um']:.1f}) µm")
    if (energy_ev := machine.get("energy_ev")) is not None:
        facts.append(f"{energy_ev:.1f} eV")
    if (ring_ma := machine.get("ring_ma")) is not None:
        facts.append(f"ring {ring_ma:.1f} mA")
    return facts


def _drift(state: Mapping[str, Any]) -> list[str]:
    drift = state.get("drift") or {}
    x_um, y_um = drift.get("x_um"), drift.get("y_um")
    if x_um is None or y_um is None:
        return []
    facts = [f"x {1e3 * x_um:+.0f} nm, y {1e3 * y_um:+.0f} nm"]
    rate_x, rate_y = drift.get("rate_x_um_min"), drift.get("rate_y_um_min")
    if rate_x is not None and rate_y is not None:
        facts.append(f"{1e3 * math.hypot(rate_x, rate_y):.0f} nm/min")
    return facts


def _cell(state: Mapping[str, Any]) -> list[str]:
    cell = state.get("cell") or {}
    facts = [str(cell[name]) for name in ("mode",) if cell.get(name)]
    for name, text in (("voltage_v", "{:.3f} V"), ("current_ma", "{:.3g} mA"), ("capacity_mah", "{:.3g} mAh")):
        if cell.get(name) is not None:
            facts.append(text.format(cell[name]))
    if cell.get("soc") is not None:
        facts.append(f"SOC {100 * cell['soc']:.1f} %")
    return facts if len(facts) > 1 else []


def _events(store: LiveStore, *, plain: bool) -> Iterator[Text]:
    rows = list(store.log.rows)[-EVENTS_SHOWN:]
    for number, row in enumerate(rows, 1):
        icon, word, style = _SEVERITY.get(row.get("severity"), _SEVERITY["info"])
        line = Text(overflow="fold") if number == len(rows) else Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{clock(row.get('t'))}  ", "dim")
        line.append(f"{word if plain else icon} {row.get('what')}", style)
        line.append(f"  {row.get('text')}")
        yield line


def clock(time_s: float | None) -> str:
    """Write a Unix time as the wall clock shows it here."""
    return time.strftime("%H:%M:%S", time.localtime(time_s)) if time_s is not None else "--:--:--"


def _text(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


# -- where there is no terminal -----------------------------------------------------------------------------------------


def line(store: LiveStore, now_s: float) -> str:
    """Return where a run stands in one line of plain text."""
    state = store.state
    _, left_s, _ = times(state, now_s)
    dose, most_gy = state.get("dose") or {}, limit_gy(state)
    facts = [phase(state), *_progress(state)]
    if (value := dose.get("dose_gy")) is not None:
        share = f" of {format_si(most_gy, 'Gy')} ({100 * value / most_gy:.0f} %)" if most_gy else ""
        facts.append(f"dose {format_si(value, 'Gy')}{share}")
    facts += [", ".join(_judged(state))] if _judged(state) else []
    facts += [f"drift {', '.join(_drift(state))}"] if _drift(state) else []
    facts += [", ".join(_cell(state))] if _cell(state) else []
    if left_s is not None and state.get("state") not in OVER:
        facts.append(f"{duration(left_s)} left")
    return " | ".join(facts)


def event_line(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return an event as one line of plain text, and its style."""
    return f"{row.get('what')}: {row.get('text')}", _SEVERITY.get(str(row.get("severity")), _SEVERITY["info"])[2]


def records(message: Mapping[str, Any], store: LiveStore) -> Iterator[dict[str, Any]]:
    """Yield what a message of the feed says as flat records: ``run``, ``frame`` and other rows, ``event``.

    Parameters
    ----------
    message
        Of `LiveStore.delta`.
    store
        That has taken it over already.
    """
    if message["state"].get("run"):
        yield {"type": "run", **message["state"]["run"]}
    for name, part in message["series"].items():
        for row in part["rows"]:
            yield {"type": "frame" if name == "frames" else name, **dict(zip(part["columns"], row, strict=True))}
    for row in message["log"]["rows"]:
        yield {"type": "event", **row}


def status(store: LiveStore, now_s: float) -> dict[str, Any]:
    """Return where a run stands as one record."""
    state = store.state
    elapsed_s, left_s, part = times(state, now_s)
    values = {name: state[name] for name in RECORDED if state.get(name) is not None}
    told = {"t": now_s, "state": phase(state), "reason": state.get("state_reason") or "", "uid": _uid(state)}
    return {
        "type": "status",
        **told,
        "dose_limit_gy": limit_gy(state),
        "elapsed_s": elapsed_s,
        "left_s": left_s,
        "done": part,
        **values,
    }


def _uid(state: Mapping[str, Any]) -> str:
    return str((state.get("run") or {}).get("uid") or "")
