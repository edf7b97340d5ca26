"""The archive outgrown: PostgreSQL catalog and Redis cache pass the tests that the SQLite archive passes, and are shared."""

import sys
from pathlib import Path

import numpy as np
import pytest
import test_archive_faults as faults
import test_archive_serving as serving
from bluesky import RunEngine

sys.path.append(str(Path(__file__).parent))  # importlib mode does not
from archive_fixtures import FileCamera, client, connected, frame_plan, frames_directory, frames_of_events, free_port
from database_fixtures import postgres, redis

from xbat_live.archive import ArchiveSettings, ArchiveWriter, TiledServer, open_run
from xbat_live.archive.search import Criteria, search_runs

__all__ = ["camera", "client", "frames_directory"]
pytestmark = [pytest.mark.system, pytest.mark.long]
camera = serving.camera


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("databases")
    with postgres(folder / "postgres") as catalog, redis(folder / "redis") as cache:
        yield {"catalog": catalog, "streaming_cache": cache, "arrays": folder / "arrays"}


@pytest.fixture(scope="module")
def tiled_server(databases, tmp_path_factory):
    """In the place of the SQLite archive's server."""
    directory = tmp_path_factory.mktemp("shared")
    (directory / "frames").mkdir()
    with TiledServer(directory / "archive", readable_storage=[directory / "frames"], **databases) as server:
        yield server


# The same tests, on the other database.
test_frames_can_be_read_while_the_run_goes_on = serving.test_frames_can_be_read_while_the_run_goes_on
test_run_is_found_and_read_in_one_line_each = serving.test_run_is_found_and_read_in_one_line_each
test_frames_outside_are_told = serving.test_frames_outside_the_readable_storage_are_told_at_the_end_of_the_run
test_wrong_key = serving.test_wrong_key
test_complete_run_is_never_overwritten = serving.test_run_that_is_complete_in_tiled_is_never_overwritten
test_analyses = serving.test_analysis_is_stored_beside_the_run_once_and_through_the_backup
test_search = serving.test_runs_are_found_by_what_they_were
test_acquisition_killed = faults.test_acquisition_killed
test_run_that_tiled_never_saw_is_inserted = faults.test_run_that_tiled_never_saw_is_inserted


def test_every_event_gets_its_own_frame_bit_for_bit(tiled_server, client, camera, tmp_path):
    """One of the sequences; where the frames lie in their file is nothing to the database."""
    sequence = "flat primary primary! primary flat! flat primary! dark primary"
    serving.test_every_event_gets_its_own_frame_bit_for_bit(sequence, tiled_server, client, camera, tmp_path)


def test_several_servers_and_acquisitions_share_one_catalog(tiled_server, databases, tmp_path_factory, tmp_path):
    """Two machines write through servers of their own at the same time; every reader of either server sees both runs whole."""
    frames = tiled_server.settings.readable_storage[0]
    second_folder = tmp_path_factory.mktemp("second") / "archive"
    with TiledServer(second_folder, port=free_port(), readable_storage=[frames], **databases) as second:
        servers = (tiled_server, second)
        cameras = [FileCamera(frames, name="cam"), FileCamera(frames, name="cam")]
        writers = [
            ArchiveWriter(server.uri, server.api_key, backup_directory=tmp_path / str(number))
            for number, server in enumerate(servers)
        ]
        sequence, uids = ["flat", *["primary"] * 6], []
        for camera_, writer in zip(cameras, writers, strict=True):
            engine = RunEngine({}, context_managers=[])
            engine.subscribe(writer)
            uids.append(engine(frame_plan(camera_, sequence))[0])
        assert all(writer.close(timeout_s=60).complete for writer in writers)
        for server in servers:
            with connected(server) as reader:
                for uid, camera_ in zip(uids, cameras, strict=True):
                    run = open_run(reader, uid)
                    expected = frames_of_events(camera_.path, sequence, "primary")
                    np.testing.assert_array_equal(run.frame_stack(direct=False)[:], expected)
                    assert run.client.validate(fix_errors=False, raise_on_error=True)
            assert {run.uid for run in search_runs(server.uri, server.api_key, Criteria(outcome="success"))} >= set(
                uids
            )


def test_the_password_of_the_database_is_in_no_log_and_for_nobody_else(tiled_server):
    settings = tiled_server.settings
    assert settings.config_file.stat().st_mode & 0o077 == 0
    assert "secret" in settings.config_file.read_text(), "where Tiled reads it"
    assert "secret" not in settings.log_file.read_text()
    assert "secret" not in repr(settings)


def test_an_archive_is_served_again_as_it_was(tiled_server):
    settings = tiled_server.settings
    again = ArchiveSettings.as_before(settings.directory)
    assert (again.catalog, again.streaming_cache, again.arrays, again.readable_storage) == (
        settings.catalog,
        settings.streaming_cache,
        settings.arrays,
        settings.readable_storage,
    )
