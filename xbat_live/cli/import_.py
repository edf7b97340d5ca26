"""``xbat import``: recorded frames as runs of the archive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbat_live.cli.bars import leaving_nothing_behind, progress_bar
from xbat_live.cli.errors import exit_on_error
from xbat_live.config import ConfigError

if TYPE_CHECKING:
    from xbat_live.exchange.importing import ImportedRun
    from xbat_live.exchange.incoming import IncomingRun


def import_(  # noqa: PLR0917 - options of a command
    paths: Annotated[
        list[Path], typer.Argument(help="Files or folders: .xrm, .txrm, .tif, HDF5, Zarr; a folder is one run.")
    ],
    archive: Annotated[
        Path | None,
        typer.Option(help="Archive folder; made if it is not there, its server is started when it does not run."),
    ] = None,
    uri: Annotated[
        str | None, typer.Option(help="Address of a running archive; its key in XBAT_ARCHIVE__API_KEY, or --api-key.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="Key of that archive.")] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            help="Folder for frames that Tiled cannot read where they are; default: frames, beside the archive."
        ),
    ] = None,
    sample: Annotated[str | None, typer.Option(help="Name of the sample; default: of the file or folder.")] = None,
    energy: Annotated[
        str | None, typer.Option(help='Photon energy, e.g. "8333 eV", where the files do not tell.')
    ] = None,
    exposure: Annotated[str | None, typer.Option(help='Exposure, e.g. "0.5 s", likewise.')] = None,
    pixel_size: Annotated[str | None, typer.Option(help='Pixel size on the sample, e.g. "31.2 nm", likewise.')] = None,
    flats: Annotated[list[Path] | None, typer.Option(help="File or folder with flats; may be repeated.")] = None,
    darks: Annotated[list[Path] | None, typer.Option(help="File or folder with darks; may be repeated.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Of a scan script: experiment file to write; default: its name with .toml."),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="Of a scan script: experiment file that tells sample, beam, dose and camera; default: that of `xbat config init`."
        ),
    ] = None,
    reference: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help='Of a scan script: stage position X Y with the sample out of the beam, e.g. "-250 um" "0 um".'
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the experiment file.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy all frames, so that the original files may go.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Import what is in the archive already once more.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the runs as JSON on standard output.")] = False,
) -> None:
    """Register recorded frames as runs: energies, angles, positions, exposures and times from their headers, references as flats.

    A scan script of SSRL beamline 6-2c (with its ScanInfo file, if given) becomes an experiment for `xbat plan` and `xbat run`.

    HDF5 stacks and single TIFF files are read where they are, other frames are copied into an HDF5 file. What `xbat export` wrote
    becomes the same run again. It is all imported, or nothing.

    Examples:  xbat import beamtime/cell-7    |    xbat import scan.txrm --sample chip --archive my-cell/archive    |    xbat import
    scan-script.txt --like my-cell.toml -o scan.toml
    """
    with exit_on_error(), leaving_nothing_behind("import"):
        from xbat_live.exchange.foreign import ImportOptions
        from xbat_live.exchange.importing import folders_of, import_run, read_incoming
        from xbat_live.exchange.scan_script import is_scan_info, is_scan_script

        scripts = [path for path in paths if is_scan_script(path)]
        if scripts:
            rest = [path for path in paths if path not in scripts]
            if len(scripts) > 1 or any(not is_scan_info(path) for path in rest):
                raise ConfigError("give one scan script at a time, alone or with its ScanInfo file")
            _experiment(scripts[0], rest, out=out, like=like, reference=reference, force=force, as_json=as_json)
            return
        options = ImportOptions(
            sample=sample,
            energy_ev=_quantity("--energy", energy, "eV"),
            exposure_s=_quantity("--exposure", exposure, "s"),
            pixel_size_um=_quantity("--pixel-size", pixel_size, "um"),
            flats=tuple(flats or ()),
            darks=tuple(darks or ()),
        )
        incoming = read_incoming(paths, options)
        folder = _frames_folder(frames, archive)
        storage = sorted({place for run in incoming for place in folders_of(run, folder, copy=copy)})
        with _archive(archive, uri, api_key, storage) as client, progress_bar() as show:
            done = [import_run(client, run, folder, copy=copy, again=again, progress=show) for run in incoming]
    if as_json:
        typer.echo(json.dumps([_as_dict(run) for run in done], indent=1))
        return
    for run in done:
        for line in _lines(run):
            typer.echo(line)


def _experiment(
    script: Path,
    infos: list[Path],
    *,
    out: Path | None,
    like: Path | None,
    reference: tuple[str, str] | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make an experiment file of a scan script, and say what became what."""
    from importlib.resources import files

    from xbat_live.config import load_config
    from xbat_live.exchange.places import check_target
    from xbat_live.exchange.scan_script import check_scan_info, read_scan_script
    from xbat_live.exchange.script_experiment import experiment_toml, write_experiment

    read = read_scan_script(script)
    target = out or Path(script.name).with_suffix(".toml")
    check_target(target, force=force)
    template = like.read_text() if like is not None else files("xbat_live.cli").joinpath("experiment.toml").read_text()
    where = None
    if reference is not None:
        x_um, y_um = (_quantity("--reference", text, "um") for text in reference)
        where = (x_um or 0.0, y_um or 0.0)
    text, notes = experiment_toml(read, template, reference_um=where)
    notes += [f"differs: {told}" for info in infos for told in check_scan_info(read, info)]
    write_experiment(target, text)
    load_config(target)
    if as_json:
        typer.echo(json.dumps({"experiment": str(target), "energies": len(read.energies_ev), "notes": notes}, indent=1))
        return
    for note in notes:
        typer.echo(note)
    typer.echo(f"{target}: look at sample, beam and dose in it, then: xbat plan {target}")


def _lines(run: ImportedRun) -> Iterator[str]:
    start = run.incoming.record.start
    counts = ", ".join(f"{n} {'frames' if name == 'primary' else f'{name}s'}" for name, n in run.frames.items())
    yield f"run {run.uid}: {start.get('sample', '')}, {counts}"
    if run.copied_to is not None:
        yield f"  copied to {run.copied_to}"
    if original := start["imported"].get("run"):
        yield f"  exported from run {original}"
    for line in _told(run.incoming):
        yield f"  {line}"


def _told(incoming: IncomingRun) -> Iterator[str]:
    """Say what the headers told, and what they left open."""
    if "run" in incoming.record.start["imported"]:
        return
    primary = incoming.record.stream("primary")
    assert primary is not None  # a run without frames is refused
    known = {"mono_energy": ("energy", "eV"), "point_exposure_s": ("exposure", "s"), "stage_theta": ("angle", "deg")}
    known |= {"stage_x": ("x", "um"), "stage_y": ("y", "um")}
    for key, (name, unit) in known.items():
        if key in primary.columns:
            values = primary.columns[key]
            span = f"{values.min():g}" if values.min() == values.max() else f"{values.min():g} to {values.max():g}"
            yield f"{name} {span} {unit}"
    size_um = incoming.record.start.get("pixel_size_um")
    yield f"pixel size {size_um:g} um" if size_um else "pixel size unknown; give it: --pixel-size"
    missing = [name for key, (name, _) in known.items() if key not in primary.columns]
    if missing:
        yield f"not in the files: {', '.join(missing)}"


def _as_dict(run: ImportedRun) -> dict[str, Any]:
    return {
        "run": run.uid,
        "frames": run.frames,
        "folders": [str(folder) for folder in run.folders],
        "copied_to": None if run.copied_to is None else str(run.copied_to),
        "imported": run.incoming.record.start["imported"],
    }


def _frames_folder(frames: Path | None, archive: Path | None) -> Path:
    if frames is not None:
        return frames
    return (archive.resolve().parent if archive is not None else Path.cwd()) / "frames"


@contextmanager
def _archive(archive: Path | None, uri: str | None, api_key: str | None, storage: list[Path]) -> Iterator[Any]:
    """Yield a client of the archive; a server that is started for it may read `storage`, now and when it is started again."""
    from xbat_live.archive import ArchiveSettings, TiledServer, connect, open_archive
    from xbat_live.archive.serving import running_uri

    if archive is None or uri is not None or running_uri(ArchiveSettings(archive).directory) is not None:
        client = open_archive(uri=uri, api_key=api_key, folder=archive if uri is None else None)
        try:
            yield client
        finally:
            client.context.close()
        return
    known = ArchiveSettings.as_before(archive).readable_storage
    for folder in storage:
        folder.mkdir(parents=True, exist_ok=True)
    with TiledServer.as_before(archive, readable_storage=tuple(sorted({*known, *storage}))) as server:
        client = connect(server.uri, server.api_key)
        try:
            yield client
        finally:
            client.context.close()


def _quantity(option: str, text: str | None, unit: str) -> float | None:
    from xbat_live.units import parse_quantity

    if text is None:
        return None
    try:
        return float(parse_quantity(text, unit))
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}") from error
