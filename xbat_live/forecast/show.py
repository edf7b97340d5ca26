"""A forecast for people: a few small tables, readable at 80 columns, with a unit on every number."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from xbat_live.forecast.facts import Forecast, LimitUse, Mark, Verdict
from xbat_live.units import format_si

_STYLE = {Verdict.GO: "bold green", Verdict.WARN: "bold yellow", Verdict.NO_GO: "bold red"}


def lines(forecast: Forecast) -> Iterator[RenderableType]:
    """Yield what is printed, from the plan to the verdict."""
    yield Text(f"{forecast.plan} on {forecast.sample}", style="bold")
    yield _plan(forecast)
    yield Text()
    yield _materials(forecast)
    yield Text()
    yield _limits(forecast)
    yield Text()
    yield from _verdict(forecast)
    yield Text(f"assumed: {'; '.join(forecast.notes)}", style="dim")


def format_duration(seconds: float) -> str:
    """Write a time for people: ``0.43 s``, ``12 min 5 s``, ``13 h 45 min``, ``2 d 3 h``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def _plan(forecast: Forecast) -> Table:
    how, spots = forecast.exposing, forecast.spots
    table = _grid()
    points = f"{forecast.points} points"
    if forecast.points < forecast.points_wanted:
        points += f" of {forecast.points_wanted}"
    end = (datetime.datetime.now().astimezone() + datetime.timedelta(seconds=forecast.duration_s)).strftime("%a %H:%M")
    table.add_row("duration", f"{format_duration(forecast.duration_s)}, {points}; started now it ends {end}")
    frames = f"{forecast.frames} of the sample, {forecast.flats} flat{'' if forecast.flats == 1 else 's'}, {forecast.darks} darks"
    table.add_row("frames", frames + (f"; {forecast.rejected} assumed rejected" if forecast.rejected else ""))
    table.add_row(
        "beam on",
        f"{format_duration(forecast.beam_on_s)} in all, {format_si(how.exposure_s + how.extra_s, 's')} per frame "
        f"({format_si(how.exposure_s, 's')} exposure), {how.flux_ph_s:.3g} ph/s",
    )
    table.add_row("spots", _spots(forecast))
    actions = [
        f"{count} {name}{'' if count == 1 else 's'}"
        for count, name in (
            (forecast.relocations, "relocation"),
            (forecast.rests, "rest"),
            (forecast.attenuations, "attenuation"),
        )
        if count
    ]
    table.add_row("policy", f"{', '.join(forecast.policy)}: {', '.join(actions) or 'never acts'}")
    table.add_row(
        "disk",
        f"{format_si(forecast.disk_bytes, 'B')} ({format_si(forecast.frame_bytes, 'B')} per frame), "
        f"{format_si(forecast.disk_free_bytes, 'B')} free",
    )
    ledger = (
        f"{forecast.ledger_records} records of this sample" if forecast.ledger_records else "nothing of this sample"
    )
    table.add_row("ledger", ledger)
    if spots.frames_per_spot:
        table.add_row("", f"a fresh spot takes {spots.frames_per_spot} frames of each field of view")
    return table


def _spots(forecast: Forecast) -> str:
    spots = forecast.spots
    needed = "" if not spots.needed else f"{'' if forecast.completed else 'about '}{spots.needed} needed, "
    available = f"{'at least ' if spots.more_available else ''}{spots.available}"
    fields = f"{spots.fields} field{'' if spots.fields == 1 else 's'} of view each"
    return f"{needed}{available} available on the sample; {fields}"


def _materials(forecast: Forecast) -> Table:
    table = _table("dose", "layer", "per frame", "per scan", "per spot", "rate")
    for item in forecast.materials:
        table.add_row(
            Text(item.material, style="bold" if item.tracked else ""),
            item.layer,
            format_si(item.frame_gy, "Gy"),
            format_si(item.scan_gy, "Gy"),
            format_si(item.spot_gy, "Gy") if forecast.frames else "-",
            format_si(item.rate_gy_s, "Gy/s"),
        )
    return table


def _limits(forecast: Forecast) -> Table:
    table = _table("limit", "value", "used", "50 % at", "80 % at", "hit at")
    for use in forecast.limits:
        style = (
            "red"
            if use.fraction > 1 and not use.advisory
            else "yellow"
            if use.fraction > 0.8 and use.configured
            else ""
        )
        kind = " (advisory)" if use.advisory else ""
        table.add_row(
            f"{use.name}{kind}",
            _value(use),
            Text(_percent(use.fraction), style=style),
            *(_at(mark) for mark in (use.warn_50, use.warn_80, use.hit)),
        )
    return table


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction >= 1 else f"{100 * fraction:.2g} %"


def _value(use: LimitUse) -> str:
    window = "" if use.window_s is None else f" in {format_duration(use.window_s)}"
    return f"{format_si(use.value, use.unit)}{window} {use.material}"


def _at(mark: Mark | None) -> str:
    return "-" if mark is None else f"frame {mark.frame}\n{format_duration(mark.time_s)}"


def _verdict(forecast: Forecast) -> Iterator[RenderableType]:
    binding = f"  (binding: {forecast.binding})" if forecast.binding else ""
    yield Text.assemble((forecast.verdict.value, _STYLE[forecast.verdict]), binding)
    for reason in forecast.reasons:
        yield _bullet("-", reason)
    if forecast.ways_out:
        yield Text("ways out, each enough alone:", style="bold")
        for number, way in enumerate(forecast.ways_out, 1):
            yield _bullet(f"{number}.", way)


def _bullet(mark: str, text: str) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column()
    grid.add_row(f"  {mark}", Text(text))
    return grid


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    return grid


def _table(*heads: str) -> Table:
    table = Table(*heads, box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    return table
