"""``xbat dose``: what a sample has received. Reads the ledger while a run writes it; notes and earlier dose are added between runs."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbat_live.cli.errors import EXIT_RUN_FAILED, exit_on_error
from xbat_live.config import ConfigError
from xbat_live.units import format_si, parse_quantity

if TYPE_CHECKING:
    from xbat_live.config import ExperimentConfig
    from xbat_live.dose import DoseAccount, Ledger

app = typer.Typer(
    help="Look at what a sample has received, export it, check it, add what is known from elsewhere.",
    no_args_is_help=True,
)

WAIT_S = 2.0  # `xbat guard` writes for moments
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*[A-Za-zµμ]*")

File = Annotated[Path | None, typer.Argument(help="Experiment file: it names ledger, cell, beam and limits.")]
LedgerFile = Annotated[
    Path | None,
    typer.Option("--ledger", help="Ledger (.sqlite), instead of the experiment file's or without one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@dataclass(frozen=True)
class Source:
    """Which ledger, and the experiment it is read with, if any."""

    ledger: Path
    sample: str
    config: ExperimentConfig | None

    @contextmanager
    def reading(self) -> Iterator[DoseAccount]:
        """Open the account for reading: with the experiment's cell, beam and limits, else as the last record has them."""
        from xbat_live.dose import Ledger

        with Ledger(self.ledger, read_only=True) as ledger:
            yield self.account(ledger)

    def account(self, ledger: Ledger) -> DoseAccount:
        """Return the account on an open ledger."""
        if self.config is None:
            from xbat_live.cli.dose_recorded import recorded_account

            return recorded_account(ledger)
        from xbat_live.dose_setup import make_account

        return make_account(self.config, ledger)

    @contextmanager
    def writing(self, what: str, *, make: bool = False) -> Iterator[Ledger]:
        """Open the ledger for writing between runs; `what` is told as not done when a run holds it."""
        from xbat_live.cli.dose_report import writer_of
        from xbat_live.dose import Ledger, LedgerError, LedgerLocked

        if not make and not self.ledger.is_file():
            raise ConfigError(f"{self.ledger}: no such ledger; it is made by the first run on this sample")
        try:
            ledger = Ledger(self.ledger, wait_s=WAIT_S)
        except LedgerLocked as error:
            pid = writer_of(self.ledger)
            holder = f"process {pid}" if pid is not None else "another process"
            raise LedgerError(
                f"{self.ledger}: {what} not written: {holder} is writing this ledger (a run, or its guard); "
                "do it again when the run has ended"
            ) from error
        with ledger:
            yield ledger


def source(file: Path | None, ledger: Path | None) -> Source:
    """Return what is meant by an experiment file, a ledger, or both.

    Raises
    ------
    ConfigError
        Neither was given, or the file cannot be used.
    """
    if file is None and ledger is None:
        raise ConfigError("which sample? give the experiment file, or --ledger FILE.sqlite")
    if file is not None and file.suffix == ".sqlite":
        raise ConfigError(f"{file}: that is a ledger, no experiment file; write --ledger {file}")
    from xbat_live.config import load_config

    config = None if file is None else load_config(file)
    if ledger is not None:
        return Source(ledger, ledger.stem if config is None else config.sample.name, config)
    assert config is not None
    name = config.sample.name
    return Source(config.path(config.dose.ledger_directory) / f"{name}.sqlite", name, config)


@app.command(
    epilog="Examples:  xbat dose show my-cell.toml    |    xbat dose show --ledger ledger/my-cell.sqlite --json"
)
def show(
    file: File = None,
    ledger: LedgerFile = None,
    last: Annotated[int, typer.Option(help="Records shown from the end of the ledger.", min=0, max=100_000)] = 5,
    as_json: AsJson = False,
) -> None:
    """Show dose per material, share of every limit, spots, open reservations, degraded and last records.

    Reads only: works while a run is writing. Without the experiment file the limits are not known.
    """
    with exit_on_error():
        from xbat_live.cli import dose_report

        which = source(file, ledger)
        with which.reading() as account:
            report = {"sample": which.sample, **dose_report.gather(account, last=last)}
    if as_json:
        typer.echo(json.dumps(report, indent=1, default=str))
        return
    width = min(max(shutil.get_terminal_size((80, 24)).columns, 60), 140)
    for line in dose_report.lines(report, width):
        typer.echo(line)


@app.command(
    epilog="Examples:  xbat dose export dose.h5 my-cell.toml    |    xbat dose export records.csv --ledger ledger/my-cell.sqlite"
)
def export(
    out: Annotated[Path, typer.Argument(help="File to write: .csv records; .npz or .h5 dose maps with coordinates.")],
    file: File = None,
    ledger: LedgerFile = None,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Write all records (.csv), or the dose maps of all materials in sample coordinates (.npz, .h5 as NeXus NXdata)."""
    with exit_on_error():
        from xbat_live.cli import dose_export
        from xbat_live.dose import Ledger

        which = source(file, ledger)
        dose_export.check_target(out, force=force)
        if out.suffix == ".csv":
            with Ledger(which.ledger, read_only=True) as opened:
                typer.echo(f"wrote {dose_export.write_records(opened, out)} records of {which.ledger} to {out}")
            return
        with which.reading() as account:
            ny, nx = dose_export.write_maps(account, out, sample=which.sample)
            materials = ", ".join(str(target) for target in account.targets)
    typer.echo(f"wrote dose maps of {materials}, {nx} x {ny} pixels of {account.grid_um:g} µm, to {out}")


@app.command(epilog="Examples:  xbat dose verify my-cell.toml    |    xbat dose verify --ledger backup.sqlite --json")
def verify(file: File = None, ledger: LedgerFile = None, as_json: AsJson = False) -> None:
    """Check a ledger: the file, gaps in the sequence, ends without a beginning, snapshots against a full replay.

    Reads only. Exit codes: 0 sound, 1 something is wrong.
    """
    with exit_on_error():
        from xbat_live.dose import Ledger

        which = source(file, ledger)
        with Ledger(which.ledger, read_only=True) as opened:
            report = opened.verify()
    if as_json:
        typer.echo(json.dumps({"ledger": str(which.ledger), **asdict(report)}, indent=1, default=str))
    elif not report.problems:
        typer.echo(f"sound: {which.ledger}, {report.records} records")
    else:
        for problem in report.problems:
            typer.echo(f"problem: {problem}")
        typer.echo(
            f"{which.ledger}: {len(report.problems)} problems in {report.records} records. Do not expose this sample on its word: keep "
            "the file, restore the last sound backup, and enter what is missing with `xbat dose add`.",
            err=True,
        )
    if report.problems:
        raise typer.Exit(EXIT_RUN_FAILED)


@app.command(
    epilog='Examples:  xbat dose note "cell remounted, upside down" my-cell.toml    |    xbat dose note "I0 replaced" --ledger cell.sqlite'
)
def note(
    text: Annotated[str, typer.Argument(help="What is to be remembered.")],
    file: File = None,
    ledger: LedgerFile = None,
) -> None:
    """Append a remark to the ledger. Refused while a run is writing."""
    with exit_on_error():
        from xbat_live.dose import Entry

        if not text.strip():
            raise ConfigError("the note is empty; write what is to be remembered")
        which = source(file, ledger)
        with which.writing("note") as opened:
            record = opened.append(Entry("note", note=text.strip()))
    typer.echo(f"note is record {record.seq} of {which.ledger}")


@app.command(
    epilog='Examples:  xbat dose add my-cell.toml --dose "1.2 MGy" --reason "diffraction at another beamline"    |    '
    'xbat dose add my-cell.toml --dose "80 kGy" --material NMC622 --at "10 um, -20 um" --size "50 um, 50 um" --reason "alignment" --yes'
)
def add(  # noqa: PLR0917 - options of a command
    file: Annotated[Path, typer.Argument(help="Experiment file: it names ledger, cell, beam and limits.")],
    dose: Annotated[str, typer.Option(help='Dose with its unit, e.g. "1.2 MGy".')],
    reason: Annotated[str, typer.Option(help="Where it comes from; kept with the record.")],
    material: Annotated[str | None, typer.Option(help="Material that received it; default: sample.material.")] = None,
    at: Annotated[
        str | None, typer.Option(help='Middle of the place, sample coordinates, e.g. "10 um, -20 um".')
    ] = None,
    size: Annotated[
        str | None, typer.Option(help='Size of the place, e.g. "50 um, 50 um"; left out with --at: the whole sample.')
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Enter dose that the sample received before, elsewhere. It counts like any other dose and cannot be taken back.

    With --at and --size it counts on that rectangle, without them on the whole sample.
    """
    with exit_on_error():
        which = source(file, None)
        prior = _prior(dose, reason, at, size)
        assert which.config is not None
        sample = which.config.sample
        prior["material"] = material or sample.material
        where = (
            "the whole sample"
            if prior["size_um"] is None
            else (
                f"{prior['size_um'][0]:g} x {prior['size_um'][1]:g} µm around ({prior['x_um']:g}, {prior['y_um']:g}) µm"
            )
        )
        what = f"{format_si(prior['dose_gy'], 'Gy')} in {prior['material']} on {where} of {which.sample}"
        if not yes:
            _confirm(what)
        with which.writing("dose", make=True) as opened:
            account = which.account(opened)
            try:
                account.record_prior(**prior)
            except ValueError as error:
                raise ConfigError(f"dose not added: {error}") from error
            peak_gy = account.summary()["peak_gy"]
    typer.echo(
        f"added {what}; the highest dose of {sample.material} is {format_si(peak_gy, 'Gy')} now, in {which.ledger}"
    )


def _prior(dose: str, reason: str, at: str | None, size: str | None) -> dict[str, Any]:
    if not reason.strip():
        raise ConfigError(
            '--reason is empty; write where the dose comes from, e.g. --reason "diffraction at beamline X"'
        )
    if (at is None) != (size is None):
        raise ConfigError(
            '--at and --size go together, e.g. --at "10 um, -20 um" --size "50 um, 50 um"; neither: the whole sample'
        )
    dose_gy = _quantity("--dose", dose, "Gy", minimum=1e-3)
    x_um, y_um = (0.0, 0.0) if at is None else _pair("--at", at)
    size_um = None if size is None else _pair("--size", size, minimum=1e-3)
    return {"x_um": x_um, "y_um": y_um, "size_um": size_um, "dose_gy": dose_gy, "reason": reason.strip()}


def _pair(option: str, text: str, *, minimum: float | None = None) -> tuple[float, float]:
    parts = [part.strip() for part in (text.split(",") if "," in text else _NUMBER.findall(text))]
    if len(parts) != 2:
        raise ConfigError(f'{option} {text!r} is not a pair x, y; write e.g. {option} "10 um, -20 um"')
    x_um, y_um = (_quantity(option, part, "um", minimum=minimum) for part in parts)
    return x_um, y_um


def _quantity(option: str, text: str, unit: str, *, minimum: float | None = None) -> float:
    value: object = 0 if text.strip() in ("0", "0.0", "-0") else text  # zero needs no unit
    try:
        return parse_quantity(value, unit, minimum=minimum)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error


def _confirm(what: str) -> None:
    if not _is_terminal():
        raise ConfigError(f"this adds {what}, for good; give --yes, there is nobody to ask")
    typer.confirm(f"Add {what}, for good?", abort=True)


def _is_terminal() -> bool:
    return sys.stdin.isatty()
