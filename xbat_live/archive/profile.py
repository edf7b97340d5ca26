"""The Tiled profile ``xbat``: what makes ``tiled.client.from_profile("xbat")`` and ``databroker.catalog["xbat"]`` find the archive."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from xbat_live.archive.settings import ArchiveError

PROFILE = "xbat"
_MARK = "# Written by xbat_live"


class ForeignProfileError(ArchiveError):
    """There is a profile of this name that xbat_live did not write; it is left alone."""


@dataclass(frozen=True)
class Profile:
    """Address of an archive, as the profile tells it.

    Attributes
    ----------
    uri
        Of Tiled's API.
    api_key
        None when the profile holds none.
    file
        Where it was found.
    """

    uri: str
    api_key: str | None
    file: Path


def profile_file(name: str = PROFILE) -> Path:
    """Return where the user's profile of this name is kept: ``~/.config/tiled/profiles``, or below ``$TILED_PROFILES``."""
    from tiled import profiles

    return profiles.paths[-1] / f"{name}.yml"


def install_profile(uri: str, api_key: str, *, directory: Path, name: str = PROFILE) -> Path:
    """Write the user's profile, readable by nobody else (mode 600), in place of an older one of xbat_live.

    Parameters
    ----------
    directory
        Folder of the archive, for people who read the file.

    Raises
    ------
    ForeignProfileError
        A profile of this name exists that xbat_live did not write, here or for the whole site; nothing is changed.
    ArchiveError
        The file cannot be written.
    """
    file = profile_file(name)
    if (other := _foreign(name, file)) is not None:
        raise ForeignProfileError(
            f"the Tiled profile {name!r} in {other} was not written by xbat_live and is left as it is; "
            "rename it, or give this archive's profile another name: --profile NAME"
        )
    # Tiled's profiles have no place for a key but the address, where its client takes it out again.
    text = (
        f"{_MARK} when an archive was started: changes here are lost.\n"
        f"# Archive folder: {directory}\n"
        f"{json.dumps(name)}:\n"
        f"  uri: {json.dumps(f'{uri}?api_key={api_key}')}\n"
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_private(file, text)
    except OSError as error:
        raise ArchiveError(
            f"Tiled profile {file}: cannot be written ({error}); mend its folder or use --no-profile"
        ) from error
    _forget_cached()
    return file


@contextmanager
def temporary_profile(uri: str, api_key: str, *, directory: Path, name: str = PROFILE) -> Iterator[Path]:
    """Have the profile point to an archive that ends with this process; what stood there before comes back.

    Raises
    ------
    ForeignProfileError
        See `install_profile`.
    """
    file = profile_file(name)
    before = file.read_text() if file.is_file() else None
    install_profile(uri, api_key, directory=directory, name=name)
    try:
        yield file
    finally:
        found = read_profile(name)
        if found is not None and found.file == file and found.uri == uri:  # else somebody else's by now
            if before is None:
                file.unlink(missing_ok=True)
            else:
                _write_private(file, before)
            _forget_cached()


def read_profile(name: str = PROFILE) -> Profile | None:
    """Return the profile of this name that Tiled would use; None when there is none.

    Raises
    ------
    ArchiveError
        It is no address of a server.
    """
    from tiled import profiles

    _forget_cached()
    found = profiles.load_profiles().get(name)
    if found is None:
        return None
    file, content = found
    uri = content.get("uri")
    if not uri:
        raise ArchiveError(f"the Tiled profile {name!r} in {file} names no uri; give --uri or another --profile")
    parts = urlsplit(uri)
    keys = parse_qs(parts.query).get("api_key", [])
    return Profile(parts._replace(query="").geturl(), keys[0] if keys else None, Path(file))


def _foreign(name: str, own: Path) -> Path | None:
    """Return the file of a profile of this name that is not ours, None when there is none."""
    from tiled import profiles

    _forget_cached()
    if own.is_file():
        try:
            if not own.read_text().startswith(_MARK):
                return own
        except (OSError, UnicodeDecodeError):
            return own
    for level in profiles.gather_profiles(profiles.paths, strict=False):
        for file, content in level.items():
            if name in content and Path(file) != own:
                return Path(file)
    return None


def _write_private(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _forget_cached() -> None:
    from tiled import profiles

    profiles.load_profiles.cache_clear()
