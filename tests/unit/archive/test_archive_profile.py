"""The Tiled profile: written for the user alone, never over one of somebody else, taken back when a server was temporary."""

from __future__ import annotations

import stat

import pytest
import tiled.profiles

from xbat_live.archive import ArchiveError, install_profile, open_archive, read_profile, temporary_profile

URI = "http://127.0.0.1:8751/api/v1"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Profiles of the site and of the user, in this order of precedence."""
    for name in ("XBAT_ARCHIVE__URI", "XBAT_ARCHIVE__API_KEY", "TILED_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    site, user = tmp_path / "site", tmp_path / "user"
    site.mkdir()
    monkeypatch.setattr(tiled.profiles, "paths", [site, user])
    yield site, user
    tiled.profiles.load_profiles.cache_clear()


def test_profile_is_readable_by_its_owner_alone_and_replaced(folders, tmp_path):
    for uri, key in ((URI, "one"), ("http://127.0.0.1:9/api/v1", "two")):
        file = install_profile(uri, key, directory=tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        found = read_profile()
        assert (found.uri, found.api_key, found.file) == (uri, key, file)
    assert [path.name for path in folders[1].iterdir()] == ["xbat.yml"]
    assert tiled.profiles.load_profiles()["xbat"][1] == {"uri": "http://127.0.0.1:9/api/v1?api_key=two"}


@pytest.mark.parametrize("where", ["same file", "another file of the user", "the site's"])
def test_foreign_profile_is_left_alone(where, folders, tmp_path):
    site, user = folders
    user.mkdir()
    file = {"same file": user / "xbat.yml", "another file of the user": user / "mine.yml", "the site's": site / "a.yml"}
    file[where].write_text("xbat:\n  uri: http://beamline/api/v1\n")
    with pytest.raises(ArchiveError, match="was not written by xbat_live and is left as it is; rename it"):
        install_profile(URI, "key", directory=tmp_path)
    assert file[where].read_text() == "xbat:\n  uri: http://beamline/api/v1\n"
    assert read_profile().uri == "http://beamline/api/v1"
    assert install_profile(URI, "key", directory=tmp_path, name="other").name == "other.yml"


def test_temporary_profile_gives_back_what_was_there(tmp_path):
    with temporary_profile(URI, "run", directory=tmp_path):
        assert read_profile().api_key == "run"
    assert read_profile() is None
    install_profile(URI, "lasting", directory=tmp_path)
    with temporary_profile("http://127.0.0.1:9/api/v1", "run", directory=tmp_path) as file:
        assert read_profile().api_key == "run"
    assert read_profile().api_key == "lasting"
    with temporary_profile("http://127.0.0.1:9/api/v1", "run", directory=tmp_path):
        install_profile(URI, "newer", directory=tmp_path)
    assert read_profile().api_key == "newer", "another server has taken over meanwhile"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_which_archive_is_meant_and_that_it_does_not_answer(tmp_path):
    with pytest.raises(
        ArchiveError, match=r"which archive\? There is no Tiled profile 'xbat' and no XBAT_ARCHIVE__URI"
    ):
        open_archive()
    install_profile("http://127.0.0.1:1/api/v1", "key", directory=tmp_path)
    with pytest.raises(ArchiveError, match=r"no Tiled server answers at .*address from the Tiled profile .*xbat\.yml"):
        open_archive()
    with pytest.raises(ArchiveError, match="no archive there"):
        open_archive(folder=tmp_path / "nothing")
    with pytest.raises(ArchiveError, match="give one of uri, folder and profile"):
        open_archive(folder=tmp_path, uri=URI)
