"""What `xbat dose show` tells of a sample: gathered from its account and ledger as plain data, and written for people."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xbat_live.dose import DoseAccount, DoseLimit, DoseMap, DoseTarget, Ledger, Record
from xbat_live.dose.records import COLUMNS, record_from_row
from xbat_live.dose.schema import select
from xbat_live.units import format_si

DOSED_FRACTION = 0.01
"""The dosed area is where there is more than this fraction of the peak."""
SPOTS_SHOWN = 20
DEGRADED_SHOWN = 5


def writer_of(ledger: Path) -> int | None:
    """Return the process that writes a ledger now, or None.

    Read from the kernel's list of locks: trying the lock could make a run fail that starts at that moment.
    """
    lock = ledger.with_name(ledger.name + ".lock")
    try:
        inode = f":{lock.stat().st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].endswith(inode):
                return int(words[4])
    except (OSError, IndexError, ValueError):
        return None
    return None


def gather(account: DoseAccount, *, last: int) -> dict[str, Any]:
    """Return everything `xbat dose show` tells, as plain data (JSON), with units in the names.

    Parameters
    ----------
    last
        Number of records at the end of the ledger.
    """
    ledger, summary = account.ledger, account.summary()
    maps = {target: account.dose_map(target) for target in account.targets}
    ((first_s, last_s),) = ledger.query("SELECT min(time_unix_s), max(time_unix_s) FROM records")
    unsettled = [_plain(record) for record in _by_number(ledger, account.unsettled)]
    degraded, n_degraded = _degraded(ledger)
    return {
        "ledger": str(ledger.path),
        "writer_pid": writer_of(ledger.path),
        "model": account.model,
        "layers": [layer.name for layer in account.stack.layers],
        "beam": account.beam.as_dict(),
        "outline_um": account.outline_um,
        "sigma_rel": summary["sigma_rel"],
        "k_sigma": summary["k_sigma"],
        "records": {kind: n for kind, n in summary["records"].items() if n},
        "first_record_unix_s": first_s,
        "last_record_unix_s": last_s,
        "open_time_s": summary["open_time_s"],
        "materials": [_material(account, target, dose_map) for target, dose_map in maps.items()],
        "limits": [_limit(account, limit, maps) for limit in account.limits],
        "spots": sorted((spot.as_dict() for spot in account.spots()), key=lambda spot: -float(str(spot["dose_gy"]))),
        "unsettled": unsettled,
        "degraded_records": n_degraded,
        "degraded": degraded,
        "last": [_plain(record) for record in _last(ledger, last)],
    }


def on_sample(account: DoseAccount, values: np.ndarray, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
    """Return the values of a map, (ny, nx), that lie inside the sample's outline, as one dimension."""
    if account.outline_um is None:
        return values.ravel()
    width_um, height_um = account.outline_um
    return values[np.ix_(np.abs(y_um) <= height_um / 2, np.abs(x_um) <= width_um / 2)].ravel()


def _material(account: DoseAccount, target: DoseTarget, dose_map: DoseMap) -> dict[str, Any]:
    dose = on_sample(account, dose_map.dose_gy, dose_map.x_um, dose_map.y_um)
    peak_gy = float(dose.max(initial=0.0))
    dosed = dose[dose > DOSED_FRACTION * peak_gy]
    return {
        "layer": target.layer,
        "material": target.material,
        "peak_gy": peak_gy,
        "percentile_gy": float(np.percentile(dosed, 99.9)) if dosed.size else 0.0,
        "mean_gy": float(dosed.mean()) if dosed.size else 0.0,
        "dosed_area_um2": dosed.size * account.grid_um**2,
    }


def _limit(account: DoseAccount, limit: DoseLimit, maps: dict[DoseTarget, DoseMap]) -> dict[str, Any]:
    """Compare a limit with the worst there is on the sample; rates of targets other than the primary scale with the dose."""
    targets = [target for target in maps if target.material == limit.material and limit.layer in ("", target.layer)]
    reached = max((_reached(account, limit, target, maps) for target in targets), default=0.0)
    return {
        **limit.as_dict(),
        "kind": limit.kind,
        "unit": limit.unit,
        "value": limit.value,
        "reached": reached,
        "fraction": reached / limit.value,
    }


def _reached(account: DoseAccount, limit: DoseLimit, target: DoseTarget, maps: dict[DoseTarget, DoseMap]) -> float:
    summary = account.summary()
    allowance = 1 + summary["k_sigma"] * summary["sigma_rel"]
    if limit.kind == "dose":
        dose_map = maps[target]
        return allowance * float(on_sample(account, dose_map.dose_gy, dose_map.x_um, dose_map.y_um).max(initial=0.0))
    if limit.window_s is None:
        rates = account.peak_rate_map(target)
    else:
        rates = account.windowed_rate_map(limit.window_s, target=target)
    return allowance * float(on_sample(account, rates.rate_gy_s, rates.x_um, rates.y_um).max(initial=0.0))


def _last(ledger: Ledger, n: int) -> list[Record]:
    return [record for record, _ in zip(map(record_from_row, ledger.rows_backwards(COLUMNS)), range(n), strict=False)]


def _by_number(ledger: Ledger, numbers: Sequence[int]) -> list[Record]:
    marks = ", ".join("?" * len(numbers))
    statement = f"{select(ledger.schema_version, COLUMNS)} WHERE seq IN ({marks}) ORDER BY seq"
    return [record_from_row(row) for row in ledger.query(statement, tuple(numbers))]


def _degraded(ledger: Ledger) -> tuple[list[dict[str, Any]], int]:
    if ledger.schema_version < 2:  # the column came with schema 2
        return [], 0
    where = "WHERE degraded IS NOT NULL AND degraded != ''"
    rows = ledger.query(f"{select(ledger.schema_version, COLUMNS)} {where} ORDER BY seq DESC LIMIT {DEGRADED_SHOWN}")
    ((n,),) = ledger.query(f"SELECT count(*) FROM records {where}")
    return [_plain(record_from_row(row)) for row in rows], int(n)


def _plain(record: Record) -> dict[str, Any]:
    filled = {name: value for name, value in vars(record.entry).items() if value not in (None, "")}
    return {"seq": record.seq, "time_unix_s": record.time_unix_s, "process_id": record.process_id, **filled}


# --- for people --------------------------------------------------------------------------------------------------------


def lines(report: dict[str, Any], width: int) -> Iterator[str]:
    """Yield the report as lines of text, tables no wider than 80 columns; `width` is where sentences are wrapped."""
    for name, text in _heading(report):
        yield from textwrap.wrap(
            text,
            width,
            initial_indent=f"{name:<10}",
            subsequent_indent=10 * " ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    yield ""
    yield f"{'material':<30}{'peak':>11}{'99.9 %':>11}{'mean':>11}{'dosed area':>15}"
    for item in report["materials"]:
        name = f"{item['material']} in {item['layer']}"
        doses = "".join(f"{format_si(item[key], 'Gy'):>11}" for key in ("peak_gy", "percentile_gy", "mean_gy"))
        yield f"{name:<30}{doses}{item['dosed_area_um2']:>11.0f} µm²"
    yield f"  on the sample; dosed area: more than {DOSED_FRACTION:.0%} of the peak; reservations included"
    yield from _limits(report)
    yield from _spots(report)
    yield from _records("open reservations (they count in full)", report["unsettled"], width)
    if report["degraded"]:
        title = f"degraded records ({len(report['degraded'])} of {report['degraded_records']}, newest first)"
        yield from _records(title, report["degraded"], width)
    yield from _records("last records, newest first", report["last"], width)


def _heading(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "sample" in report:
        yield "sample", report["sample"]
    yield "ledger", report["ledger"]
    pid = report["writer_pid"]
    yield "writer", "none" if pid is None else f"process {pid} is writing; what it writes from now on is not shown"
    yield "dose", f"definition {report['model']!r}; layers {', '.join(report['layers'])}"
    counts = ", ".join(f"{n} {kind}" for kind, n in report["records"].items()) or "none"
    if report["first_record_unix_s"] is not None:
        counts += f"; {_when(report['first_record_unix_s'])} to {_when(report['last_record_unix_s'])}"
    yield "records", f"{counts}; shutter open for {format_si(report['open_time_s'], 's')} in all"


def _limits(report: dict[str, Any]) -> Iterator[str]:
    yield ""
    if not report["limits"]:
        yield "limits: unknown; give the experiment file to see them"
        return
    yield f"{'limit':<30}{'of':>12}{'reached':>12}{'share':>8}  material"
    for item in report["limits"]:
        name = item["name"] + (" *" if item["advisory"] else "")
        if item["window_s"]:
            name += f" over {format_si(item['window_s'], 's')}"
        value, reached = (format_si(item[key], item["unit"]) for key in ("value", "reached"))
        yield f"{name:<30}{value:>12}{reached:>12}{100 * item['fraction']:>6.0f} %  {item['material']}"
    kept = f"{report['k_sigma']:g} sigma of {100 * report['sigma_rel']:g} % included"
    yield f"  {kept}" + ("; * only warns" if any(item["advisory"] for item in report["limits"]) else "")


def _spots(report: dict[str, Any]) -> Iterator[str]:
    yield ""
    spots = report["spots"]
    if not spots:
        yield "spots: no dose on the sample"
        return
    yield f"{'spot':<26}{'run':<9}{'x, y / µm':>17}{'frames':>7}{'open':>10}{'dose':>11}"
    for spot in spots[:SPOTS_SHOWN]:
        label = spot["label"] or "-"
        number = "" if spot["spot"] is None else f"{spot['spot']} "
        place = f"{spot['x_um']:.1f}, {spot['y_um']:.1f}"
        open_time, dose = format_si(spot["open_time_s"], "s"), format_si(spot["dose_gy"], "Gy")
        name = f"{number}{label}"[:25]
        yield f"{name:<26}{spot['run_uid'][:8]:<9}{place:>17}{spot['exposures']:>7}{open_time:>10}{dose:>11}"
    if len(spots) > SPOTS_SHOWN:
        yield f"  and {len(spots) - SPOTS_SHOWN} more with less dose; --json has all"


def _records(title: str, records: list[dict[str, Any]], width: int) -> Iterator[str]:
    yield ""
    yield title if records else f"{title}: none"
    for record in records:
        text = f"{_when(record['time_unix_s'])}  {_what(record)}"
        yield from textwrap.wrap(
            text,
            width,
            initial_indent=f"{record['seq']:>8}  ",
            subsequent_indent=12 * " ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _what(record: dict[str, Any]) -> str:
    words = [f"{record['kind']} of {record['reservation']}," if "reservation" in record else record["kind"]]
    if "prior_gy" in record:
        words.append(f"{format_si(record['prior_gy'], 'Gy')} in {record.get('material', '')}")
    if "open_time_s" in record and record.get("open_time_s"):
        words.append(f"{format_si(record['open_time_s'], 's')} of {record.get('flux_ph_s', 0.0):.3g} ph/s")
    if "x_um" in record:
        place = f"at ({record['x_um']:.1f}, {record['y_um']:.1f}) µm"
        words.append(place if record.get("on_sample", True) else f"{place}, beside the sample")
    words += [f"[{record[key]}]" for key in ("label", "degraded") if key in record]
    return " ".join(words) + (f": {record['note']}" if "note" in record else "")


def _when(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
