"""Settings of the archive: the key is made once and kept secret, wrong settings are told with their remedy."""

import stat
from pathlib import Path

import pytest
import yaml

from xbat_live.archive import ArchiveError, ArchiveSettings


def test_key_is_made_once_and_only_the_owner_can_read_it(tmp_path):
    settings = ArchiveSettings(tmp_path / "archive")
    key = settings.key()
    assert key.isalnum()
    assert len(key) == 64
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600
    assert ArchiveSettings(tmp_path / "archive").key() == key


def test_key_file_that_others_could_read_is_mended_and_told_without_the_key(tmp_path, caplog):
    settings = ArchiveSettings(tmp_path)
    settings.key_file.write_text("abc123\n")
    settings.key_file.chmod(0o644)
    assert settings.key() == "abc123"
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600
    assert "had mode 644" in caplog.text
    assert "abc123" not in caplog.text


def test_given_key_is_used_and_not_stored(tmp_path):
    settings = ArchiveSettings(tmp_path, api_key="given")
    assert settings.key() == "given"
    assert not settings.key_file.exists()
    assert settings.ui_url_with_key() == "http://127.0.0.1:8751/ui/?api_key=given"


def test_configuration_is_what_tiled_needs_and_holds_no_key(tmp_path):
    frames = tmp_path / "frames with space"
    frames.mkdir()
    settings = ArchiveSettings(tmp_path / "a", readable_storage=(frames,), port=9000)
    text = settings.prepare().read_text()
    config = yaml.safe_load(text)
    assert settings.key() not in text
    assert config["catalog"]["readable_storage"] == [str(frames)]
    assert config["catalog"]["uri"] == f"sqlite:///{tmp_path}/a/catalog.db"
    assert config["streaming_cache"] == {"uri": "memory"}
    assert "application/json-seq" in config["media_types"]["BlueskyRun"], "run.documents() answers 406 without it"
    assert config["routers"] == ["bluesky_tiled_plugins.routers.validator:router"], "run.validate() needs it"
    assert config["uvicorn"] == {"host": "127.0.0.1", "port": 9000, "access_log": False}, "the log would hold ?api_key="


def test_configuration_without_frames_folder_is_valid_yaml(tmp_path):
    assert yaml.safe_load(ArchiveSettings(tmp_path).configuration())["catalog"]["readable_storage"] == []


def test_relative_folders_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ArchiveSettings(Path("a"), readable_storage=(Path("f"),))
    assert settings.directory == tmp_path / "a"
    assert settings.readable_storage == (tmp_path / "f",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"port": 0}, "port = 0: not a TCP port, allowed 1 to 65535", id="port too low"),
        pytest.param({"port": 65536}, "port = 65536", id="port too high"),
        pytest.param({"api_key": "a-b"}, "letters and digits only", id="key that Tiled refuses"),
        pytest.param({"api_key": ""}, "letters and digits only", id="empty key would open the archive"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, options, message):
    with pytest.raises(ArchiveError, match=message):
        ArchiveSettings(tmp_path, **options)


def test_missing_frames_folder_is_named_with_what_tiled_would_say(tmp_path):
    with pytest.raises(ArchiveError, match=r"readable_storage .*nowhere: no such folder.*Refusing to serve.*Make it"):
        ArchiveSettings(tmp_path, readable_storage=(tmp_path / "nowhere",)).prepare()


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match=r"archive folder .*file: cannot be written"):
        ArchiveSettings(tmp_path / "file").prepare()
    with pytest.raises(ArchiveError, match="API key file"):
        ArchiveSettings(tmp_path / "file").key()


def test_empty_key_file_is_refused(tmp_path):
    (tmp_path / "api_key").touch(mode=0o600)
    with pytest.raises(ArchiveError, match="holds no key"):
        ArchiveSettings(tmp_path).key()


@pytest.mark.parametrize(
    ("logged", "clean"),
    [
        ("pool: postgresql+asyncpg://xbat:s3cr@t@db:5432/a done", "pool: postgresql+asyncpg://xbat:***@db:5432/a done"),
        ("redis://:secret@cache:6379/0", "redis://:***@cache:6379/0"),
        ("GET /ui/?api_key=abc123&x=1", "GET /ui/?api_key=***&x=1"),
        ("http://127.0.0.1:8751/api/v1", "http://127.0.0.1:8751/api/v1"),
    ],
)
def test_secrets_are_taken_out_of_the_log(logged, clean):
    from xbat_live.archive.serving import redact

    assert redact(logged) == clean


def test_an_archive_is_served_as_last_time(tmp_path):
    frames, more = tmp_path / "frames", tmp_path / "more"
    frames.mkdir()
    more.mkdir()
    assert ArchiveSettings.as_before(tmp_path / "archive").readable_storage == (frames,), "beside the archive"
    first = ArchiveSettings(
        tmp_path / "archive", (more,), catalog="postgresql://a:b@db/c", streaming_cache="redis://cache/0"
    )
    first.prepare()
    assert first.config_file.stat().st_mode & 0o777 == 0o600
    again = ArchiveSettings.as_before(tmp_path / "archive", port=9000, catalog=None)
    assert (again.catalog, again.streaming_cache, again.port) == (first.catalog, first.streaming_cache, 9000)
    assert again.readable_storage == (more, frames)
    more.rmdir()
    assert ArchiveSettings.as_before(tmp_path / "archive").readable_storage == (frames,), (
        "a folder that is gone is left out"
    )
    first.config_file.write_text("rubbish")
    with pytest.raises(ArchiveError, match="is not as xbat_live wrote it"):
        ArchiveSettings.as_before(tmp_path / "archive")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"catalog": "mysql://a@b/c"}, "catalog: 'mysql' is no address of one; write postgresql://"),
        ({"streaming_cache": "cache:6379"}, "streaming_cache: 'cache:6379' is no address of one; write redis://"),
    ],
)
def test_addresses_of_databases_are_checked(wrong, told, tmp_path):
    with pytest.raises(ArchiveError, match=told):
        ArchiveSettings(tmp_path, **wrong)
