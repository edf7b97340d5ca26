"""What runs inside the process of the archive's Tiled server."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import fcntl
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xbat_live.archive.settings import ArchiveError

KEY_VARIABLE = "TILED_SINGLE_USER_API_KEY"
_PR_SET_PDEATHSIG = 1
_LOCK = "lock"


def child_main(arguments: list[str]) -> None:
    """Entry point of the server's process: ``python -m xbat_live.archive CONFIG [--die-with-parent]``."""
    config, *options = arguments
    parent = os.getppid()
    if "--die-with-parent" in options:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            return
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        _run(Path(config), os.environ[KEY_VARIABLE])
    except ArchiveError as error:
        sys.exit(str(error))


def _end_with_stdin() -> None:
    """End this process when the parent's end of the pipe on stdin is closed."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
    os.kill(os.getpid(), signal.SIGKILL)


def _run(config_file: Path, api_key: str) -> None:
    """Run Tiled as ``tiled serve config`` does, without its banner, which prints the key."""
    import yaml

    written = yaml.safe_load(config_file.read_text())
    with _sole_use(config_file.parent, _address(**written["uvicorn"])):
        import uvicorn
        from tiled.config import parse_configs
        from tiled.server.app import build_app_from_config
        from tiled.server.logging_config import LOGGING_CONFIG

        config = parse_configs(config_file)
        config.authentication.single_user_api_key = api_key
        _initialize(written["catalog"]["uri"], config_file.parent / "catalog.db")
        # uvicorn raises a SIGINT again after its shutdown; a server that was told to end has ended well.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.run(build_app_from_config(config), log_config=_log_config(LOGGING_CONFIG), **config.uvicorn)


def _log_config(template: dict[str, Any]) -> dict[str, Any]:
    """Return Tiled's logging without secrets, and without colour codes when the log is a file."""
    config = copy.deepcopy(template)
    config["filters"] = {**config.get("filters", {}), "secrets": {"()": _without_secrets}}
    for handler in config["handlers"].values():
        handler["filters"] = [*handler.get("filters", []), "secrets"]
    for formatter in config["formatters"].values():
        formatter["use_colors"] = sys.stderr.isatty()
    return config


def _without_secrets() -> logging.Filter:
    """Return a filter that takes passwords and keys out of addresses: Tiled logs that of its database in full."""

    class Redacting(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            message = record.getMessage()
            if (clean := redact(message)) != message:
                record.msg, record.args = clean, ()
            return True

    return Redacting()


def redact(text: str) -> str:
    """Return `text` with the passwords and API keys of addresses replaced by ``***``."""
    text = re.sub(r"(://[^\s:/@]*):[^\s/]*@", r"\1:***@", text)
    return re.sub(r"(api_key=|Apikey )[^\s&'\"]+", r"\1***", text, flags=re.IGNORECASE)


def _address(host: str, port: int, **_: Any) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/api/v1"


def _initialize(uri: str, catalog_file: Path) -> None:
    """Make the catalog's tables here: ``init_if_not_exists`` would start a second Python for it (several seconds)."""
    from tiled.commandline._catalog import init

    if not uri.startswith("sqlite"):
        init(uri, if_not_exists=True)
        return
    if catalog_file.exists():
        return
    unfinished = catalog_file.with_suffix(".db.new")
    unfinished.unlink(missing_ok=True)
    init(f"sqlite:///{unfinished}", if_not_exists=True)
    unfinished.replace(catalog_file)


@contextlib.contextmanager
def _sole_use(directory: Path, uri: str) -> Iterator[None]:
    """Hold the folder's lock: two servers on one SQLite catalog and one table file would damage them."""
    with (directory / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            pid = lock.readline().strip()
            raise ArchiveError(
                f"archive folder {directory}: in use by process {pid}; stop it or name another folder"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n{uri}\n")
        lock.flush()
        yield


def running_uri(directory: Path) -> str | None:
    """Return the address of the server that uses the archive folder `directory` now; None when there is none."""
    try:
        with (directory / _LOCK).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                _, _, uri = lock.read().partition("\n")
                return uri.strip() or None
    except OSError:
        pass
    return None
