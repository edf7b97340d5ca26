"""``xbat doctor``: whether everything is there that a run needs."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from xbat_live.cli.errors import exit_on_error

if TYPE_CHECKING:
    from xbat_live.config import ExperimentConfig

_CLOCK_TOLERANCE_S = 5.0


@dataclass(frozen=True)
class Finding:
    """One check. `level` is ``ok``, ``warn`` or ``fail``."""

    level: str
    what: str
    detail: str


def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="Experiment file; without one, the default PVs are checked.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="PV prefix, instead of the file's.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Channel Access port on this machine, instead of the file's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """List every PV with connection, value, unit and limits, and check disk, Tiled and clock.

    Exit codes: 0 all well, 1 warnings, 2 something a run needs is missing.

    Examples:  xbat doctor my-cell.toml    |    xbat doctor --port 26064 --json
    """
    with exit_on_error():
        overrides: dict[str, Any] = {}
        if prefix is not None:
            overrides["beamline.prefix"] = prefix
        if port is not None:
            overrides["beamline.channel_access.port"] = port
        from xbat_live.config import load_config, make_config

        config = load_config(file, overrides) if file else make_config(_minimal(), overrides=overrides)
        reports = _pv_reports(config)
    findings = [*_pvs(reports), _disk(config), _tiled(config), *_clock(reports)]
    if as_json:
        typer.echo(
            json.dumps(
                {"pvs": [asdict(report) for report in reports], "findings": [asdict(item) for item in findings]},
                default=str,
                indent=1,
            )
        )
    else:
        _show(reports, findings)
    levels = {finding.level for finding in findings}
    raise typer.Exit(2 if "fail" in levels else 1 if "warn" in levels else 0)


def _minimal() -> dict[str, Any]:
    return {"sample": {"name": "doctor"}, "beam": {"flux": "1e10 ph/s"}, "dose": {"limit": "1 MGy"}}


def _pv_reports(config: ExperimentConfig) -> list[Any]:
    from xbat_live.devices import configure_channel_access

    configure_channel_access(config.beamline.channel_access.environment())  # before anything imports ophyd
    from xbat_live.devices import connection_report
    from xbat_live.session import make_beamline

    return connection_report(make_beamline(config), timeout_s=config.beamline.connection_timeout_s)


def _pvs(reports: list[Any]) -> list[Finding]:
    missing = [report.pv for report in reports if not report.connected]
    if missing:
        return [
            Finding(
                "fail",
                "PVs",
                f"{len(missing)} of {len(reports)} do not answer: {', '.join(missing)}; is the IOC running, and EPICS_CA_ADDR_LIST right?",
            )
        ]
    return [Finding("ok", "PVs", f"all {len(reports)} connected")]


def _disk(config: ExperimentConfig) -> Finding:
    from xbat_live.preflight import folder_problem

    folder = config.path(config.camera.directory)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    problem = folder_problem(folder) if folder.exists() else ""
    return (
        Finding("fail", "frame folder", problem)
        if problem
        else Finding("ok", "frame folder", f"{folder}: {free_gb:.0f} GB free")
    )


def _tiled(config: ExperimentConfig) -> Finding:
    section = config.archive
    if not section.enabled:
        return Finding("warn", "Tiled", "archive.enabled is false: documents are not kept")
    if section.uri is None:
        return Finding("ok", "Tiled", f"`xbat run` starts its own in {config.path(section.directory)}")
    import httpx

    try:
        httpx.get(f"{section.uri}/", timeout=5).raise_for_status()
    except httpx.HTTPError as error:
        return Finding(
            "warn", "Tiled", f"{section.uri} does not answer ({error}); documents would go to the backup folder"
        )
    return Finding("ok", "Tiled", section.uri)


def _clock(reports: list[Any]) -> list[Finding]:
    stamps = [report.timestamp_s for report in reports if report.connected and report.timestamp_s > 0]
    if not stamps:
        return []
    ahead_s = max(stamps) - time.time()
    if ahead_s > _CLOCK_TOLERANCE_S:
        return [Finding("warn", "clock", f"an IOC's clock is {ahead_s:.0f} s ahead of this machine's")]
    return [Finding("ok", "clock", "no IOC is ahead of this machine")]


def _show(reports: list[Any], findings: list[Finding]) -> None:
    console = Console(highlight=False, emoji=False)  # PV names hold :WORDS: in colons
    if not console.is_terminal:
        console.width = 160
    table = Table("PV", "state", "value", "unit", "limits", "ms", box=None, header_style="bold")
    table.columns[0].no_wrap = True
    for report in reports:
        limits = "" if report.lower is None or report.lower == report.upper else f"{report.lower:g} to {report.upper:g}"
        table.add_row(
            report.pv,
            "ok" if report.connected else "[red]MISSING[/red]",
            str(report.value)[:32],
            report.units or "",
            limits,
            f"{report.ms:.0f}",
        )
    console.print(table)
    for finding in findings:
        colour = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.level]
        console.print(f"[{colour}]{finding.level:>4}[/{colour}]  {finding.what}: {finding.detail}")
