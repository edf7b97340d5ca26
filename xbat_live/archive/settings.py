"""Where the archive lives and how its Tiled server is configured."""

from __future__ import annotations

import json
import logging
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8751
_KEY_BYTES = 32


class ArchiveError(Exception):
    """The archive cannot do what was asked; the message names what, where and the remedy."""


@dataclass(frozen=True)
class ArchiveSettings:
    """What `xbat serve` needs to know.

    Attributes
    ----------
    directory
        Folder of catalog, tables, arrays, configuration, key and log. Made if it is missing.
    readable_storage
        Folders with frames (HDF5) that Tiled may read in place. Frames elsewhere are registered, but every attempt to
        read them is refused.
    port
        TCP port.
    host
        Address to listen on. Anything but a loopback address makes the archive visible to the network (the key still
        protects it, but travels unencrypted).
    api_key
        Letters and digits. Left out: the one stored in `key_file`, made on first use.
    catalog
        ``postgresql://USER:PASSWORD@HOST/DATABASE`` for a catalog that several servers and machines share; the values of
        Events go there as well. Left out: SQLite and DuckDB files in `directory`, for one server.
    arrays
        Folder of long arrays of Events and of analyses; with a shared catalog a shared one. Left out: in `directory`.
    streaming_cache
        ``redis://HOST:PORT/0`` for live views that outlive the server, of any number of runs. Left out: 1000 items in memory.
    """

    directory: Path
    readable_storage: tuple[Path, ...] = ()
    port: int = DEFAULT_PORT
    host: str = "127.0.0.1"
    api_key: str | None = None
    catalog: str | None = field(default=None, repr=False)
    arrays: Path | None = None
    streaming_cache: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Make paths absolute: the server is another process with another working directory."""
        object.__setattr__(self, "directory", Path(self.directory).expanduser().resolve())
        object.__setattr__(
            self, "readable_storage", tuple(Path(path).expanduser().resolve() for path in self.readable_storage)
        )
        arrays = self.directory / "arrays" if self.arrays is None else Path(self.arrays).expanduser().resolve()
        object.__setattr__(self, "arrays", arrays)
        _check_uri(
            "catalog", self.catalog, ("postgresql", "postgresql+asyncpg"), "postgresql://USER:PASSWORD@HOST/DATABASE"
        )
        _check_uri("streaming_cache", self.streaming_cache, ("redis", "rediss"), "redis://HOST:6379/0")
        if not 1 <= self.port <= 65535:
            raise ArchiveError(f"port = {self.port}: not a TCP port, allowed 1 to 65535")
        if self.api_key is not None and not self.api_key.isalnum():
            raise ArchiveError(
                "the API key of the archive may hold letters and digits only (it is pasted into URLs); "
                "leave it out to have one made"
            )

    @property
    def config_file(self) -> Path:
        """Tiled's own configuration, generated anew at every start."""
        return self.directory / "tiled.yml"

    @property
    def key_file(self) -> Path:
        """The single-user API key, mode 600."""
        return self.directory / "api_key"

    @property
    def log_file(self) -> Path:
        """What the server writes to stdout and stderr; the log of the start before is kept as ``tiled.log.1``."""
        return self.directory / "tiled.log"

    @property
    def catalog_file(self) -> Path:
        """SQLite catalog."""
        return self.directory / "catalog.db"

    @property
    def exists(self) -> bool:
        """Whether an archive was ever served from the folder."""
        return self.catalog_file.is_file() or self.config_file.is_file()

    @classmethod
    def as_before(cls, directory: Path | str, **changes: Any) -> ArchiveSettings:
        """Return the settings that an archive was served with last, so that nobody has to repeat them.

        `changes` win over them; those that are None do not count.

        Folders with frames are those of last time, and ``frames`` beside the archive, as far as they exist.
        """
        import yaml

        given = {name: value for name, value in changes.items() if value is not None}
        plain = cls(Path(directory), **given)
        content: dict[str, Any] = {}
        if plain.config_file.is_file():
            try:
                content = yaml.safe_load(plain.config_file.read_text())
                catalog, cache = content["catalog"], content["streaming_cache"]["uri"]
                arrays = catalog["writable_storage"][0]
            except (OSError, yaml.YAMLError, KeyError, TypeError, IndexError) as error:
                raise ArchiveError(
                    f"{plain.config_file}: is not as xbat_live wrote it ({error}); delete it and say how to serve the archive"
                ) from error
            before = {
                "catalog": None if catalog["uri"].startswith("sqlite") else catalog["uri"],
                "streaming_cache": None if cache == "memory" else cache,
                "arrays": Path(arrays),
                "readable_storage": tuple(map(Path, catalog["readable_storage"] or ())),
            }
            given = {name: value for name, value in before.items() if value is not None} | given
        if "readable_storage" not in changes or changes["readable_storage"] is None:
            candidates = (*given.get("readable_storage", ()), plain.directory.parent / "frames")
            given["readable_storage"] = tuple(dict.fromkeys(path for path in candidates if path.is_dir()))
        return cls(Path(directory), **given)

    @property
    def base_url(self) -> str:
        """Root of the server, without trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def uri(self) -> str:
        """What ``tiled.client.from_uri`` takes, with the key as `api_key`."""
        return f"{self.base_url}/api/v1"

    @property
    def ui_url(self) -> str:
        """Tiled's own pages (the front page ``/`` needs the internet, these do not). They ask for the key."""
        return f"{self.base_url}/ui/"

    def ui_url_with_key(self) -> str:
        """Return a link that logs the browser in (the server turns the key into a cookie). Not for logs."""
        return f"{self.ui_url}?api_key={self.key()}"

    def key(self) -> str:
        """Return the API key, creating `key_file` when there is none yet."""
        return self.api_key or _stored_key(self.key_file)

    def prepare(self) -> Path:
        """Make the folder and write the configuration.

        Returns
        -------
        Path
            The configuration file.

        Raises
        ------
        ArchiveError
            The folder cannot be made or written, or a `readable_storage` folder is missing.
        """
        for path in self.readable_storage:
            if not path.is_dir():
                raise ArchiveError(
                    f"readable_storage {path}: no such folder; Tiled would refuse every frame in it "
                    '("Refusing to serve ... outside the readable storage area"). '
                    "Make it, or name the folder the camera writes to"
                )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            assert self.arrays is not None  # made absolute in the beginning
            self.arrays.mkdir(parents=True, exist_ok=True)
            _write_private(self.config_file, self.configuration())
        except OSError as error:
            raise ArchiveError(
                f"archive folder {self.directory}: cannot be written ({error}); free the disk or name another folder"
            ) from error
        return self.config_file

    def configuration(self) -> str:
        """Return Tiled's configuration as commented YAML."""
        catalog = self.catalog or f"sqlite:///{self.catalog_file}"
        tables = self.catalog or f"duckdb:///{self.directory / 'tables.duckdb'}"
        readable = "\n".join(f"    - {json.dumps(str(path))}" for path in self.readable_storage) or "    []"
        return f"""\
# Written by xbat_live at every start of the archive: changes here are lost. Settings live in the [archive] section
# of the experiment, or in the options of `xbat serve`. To run the same server by hand:
#   TILED_SINGLE_USER_API_KEY=$(cat api_key) tiled serve config tiled.yml
catalog:
  # What there is: runs, streams, where their data lie.
  uri: {json.dumps(catalog)}
  # Lets clients look runs up by uid, scan number or -1 for the last.
  specs:
    - {{name: CatalogOfBlueskyRuns, version: "3.0"}}
  # Values of Events go into tables, long arrays of Events into zarr. Frames do not come here.
  writable_storage:
    - {json.dumps(str(self.arrays))}
    - {json.dumps(tables)}
  # Frames are read in place, from these folders and no other; a file that was cut off is refused.
  readable_storage:
{readable}
  adapters_by_mimetype:
    application/x-hdf5: "xbat_live.archive.served_files:WholeHDF5Adapter"
# The single user's key comes from the environment, it is stored in `api_key` (mode 600) and not in this file.
authentication:
  allow_anonymous_access: false
# Live views follow a run through a websocket. In memory the cache holds 1000 items in all and dies with the server.
streaming_cache:
  uri: {json.dumps(self.streaming_cache or "memory")}
# run.documents() and run.validate() need these two of bluesky-tiled-plugins.
media_types:
  BlueskyRun:
    application/json-seq: "bluesky_tiled_plugins.exporters:json_seq_exporter"
routers:
  - "bluesky_tiled_plugins.routers.validator:router"
uvicorn:
  host: {json.dumps(self.host)}
  port: {self.port}
  # A line per request would hold the key of links such as /ui/?api_key=...
  access_log: false
"""


def _check_uri(name: str, value: str | None, schemes: tuple[str, ...], example: str) -> None:
    if value is not None and value.partition("://")[0] not in schemes:
        raise ArchiveError(f"{name}: {value.partition('://')[0]!r} is no address of one; write {example}")


def _write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read: it may hold the password of a database."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _stored_key(path: Path) -> str:
    """Return the key in `path`, making it when it is missing and mending its mode when others could read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise ArchiveError(f"API key file {path}: cannot be made ({error}); make its folder writable") from error
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            path.chmod(0o600)
            logger.warning(
                "%s had mode %o and could be read by others; it is 600 now. Delete it to have a new key made",
                path,
                mode,
            )
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveError(
            f"API key file {path}: cannot be read ({error}); delete it to have a new key made"
        ) from error
    if not key.isalnum():
        raise ArchiveError(f"API key file {path}: holds no key (letters and digits); delete it to have a new one made")
    return key
