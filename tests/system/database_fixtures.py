"""PostgreSQL and Redis as Debian ships them, on loopback, with data folders and ports of their own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from archive_fixtures import free_port

CATALOG_USER = "xbat"


def find_postgres():
    """Folder of PostgreSQL's programs; skips the test when they are not here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    return found[-1].parent if found else Path(on_path).resolve().parent


def _user():
    """How to run a program as somebody who is not root, which PostgreSQL insists on: a prefix of the command, and who owns the data."""
    if os.getuid() != 0:
        return [], None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            if shutil.which("setpriv") is None:
                pytest.skip("setpriv is not here, and PostgreSQL does not run as root")
            return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"], entry
    pytest.skip("there is no user postgres or nobody, and PostgreSQL does not run as root")


@contextlib.contextmanager
def postgres(folder: Path):
    """Start a database server on new data; yield the address of an empty database."""
    programs, (prefix, owner) = find_postgres(), _user()
    port = free_port()
    folder.mkdir(mode=0o700)
    if owner is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for parent in folder.parents:  # pytest's folders are for their owner alone
            if not os.stat(parent).st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    data = folder / "data"
    subprocess.run(
        [*prefix, programs / "initdb", "--pgdata", data, "--auth=trust", "--username", CATALOG_USER, "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"]
    options = [option for setting in settings for option in ("-c", setting)]
    with (
        (folder / "log").open("wb") as log,
        _running([*prefix, programs / "postgres", "-D", data, "-p", str(port), *options], log, folder),
    ):
        address = ["--host=127.0.0.1", f"--port={port}", f"--username={CATALOG_USER}"]
        _wait(lambda: subprocess.run([programs / "pg_isready", "-q", *address], check=False).returncode == 0, folder)
        subprocess.run([programs / "createdb", *address, "archive"], check=True)
        yield f"postgresql://{CATALOG_USER}:secret@127.0.0.1:{port}/archive"


@contextlib.contextmanager
def redis(folder: Path):
    """Start a cache; yield its address."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed (Debian: redis-server)")
    port = free_port()
    folder.mkdir()
    with (
        (folder / "log").open("wb") as log,
        _running([program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder], log, folder),
    ):
        _wait(lambda: b"Ready to accept connections" in (folder / "log").read_bytes(), folder)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def _running(command, log, folder):
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(ready, folder, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)
