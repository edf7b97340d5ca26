"""A Tiled server for the whole test session, and a camera that writes real HDF5 files with three datasets."""

import contextlib
import socket
import time
import uuid
from collections import deque
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from ophyd import Device
from ophyd.status import DeviceStatus

from xbat_live.archive import TiledServer, connect

DATASETS = {"Normal": "/entry/data/data", "FlatField": "/entry/data/flat", "Background": "/entry/data/dark"}
STREAMS = {"primary": "Normal", "flat": "FlatField", "dark": "Background"}
_SERVER = pytest.StashKey()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def tiled_server(request, tmp_path_factory):
    """The session's server; frames under `tiled_server.settings.readable_storage[0]` are served."""
    # In the stash: a session fixture imported into several test modules would start one server for each of them.
    if _SERVER not in request.config.stash:
        directory = tmp_path_factory.mktemp("tiled")
        (directory / "frames").mkdir()
        server = TiledServer(directory / "archive", port=free_port(), readable_storage=[directory / "frames"])
        server.start()
        request.config.add_cleanup(server.stop)
        server.wait_ready(90)
        request.config.stash[_SERVER] = server
    return request.config.stash[_SERVER]


@pytest.fixture
def client(tiled_server):
    """A client of the session's server."""
    with connected(tiled_server) as made:
        yield made


@contextlib.contextmanager
def connected(server):
    """Connect, and close the connections afterwards."""
    made = connect(server.uri, server.api_key)
    try:
        yield made
    finally:
        made.context.close()


@pytest.fixture
def frames_directory(tiled_server):
    return tiled_server.settings.readable_storage[0]


class FileCamera(Device):
    """Writes frames to HDF5 as the beamline does: one file per run, a dataset and a Resource per frame type."""

    def __init__(self, directory: Path, *, shape=(24, 32), name="cam"):
        super().__init__(name=name)
        self.directory = Path(directory)
        self.frame_shape = shape
        self.frame_type = "Normal"
        self.path = None
        self._rng = np.random.default_rng(1)
        self._documents = deque()
        self._file = None

    def stage(self):
        self.path = self.directory / f"{uuid.uuid4().hex}.h5"
        self._file = h5py.File(self.path, "w", libver="latest")
        for dataset in DATASETS.values():
            self._file.create_dataset(
                dataset,
                (0, *self.frame_shape),
                maxshape=(None, *self.frame_shape),
                chunks=(1, *self.frame_shape),
                dtype="u2",
            )
        self._file.swmr_mode = True
        self._resources = {}
        return super().stage()

    def trigger(self):
        """Expose: a frame in the file, whether or not an Event will refer to it."""
        data = self._file[DATASETS[self.frame_type]]
        data.resize(len(data) + 1, axis=0)
        data[-1] = self._rng.integers(0, 65536, self.frame_shape, dtype="u2")
        self._file.flush()
        status = DeviceStatus(self)
        status.set_finished()
        return status

    def _resource(self):
        if self.frame_type not in self._resources:
            kwargs = {"frame_per_point": 1}
            if self.frame_type != "Normal":
                kwargs["dataset"] = DATASETS[self.frame_type]
            resource = {
                "uid": str(uuid.uuid4()),
                "spec": "AD_HDF5" if self.frame_type == "Normal" else "HDF5",
                "root": "/",
                "resource_path": str(self.path.relative_to("/")),
                "resource_kwargs": kwargs,
                "path_semantics": "posix",
            }
            self._resources[self.frame_type] = resource["uid"]
            self._documents.append(("resource", resource))
        return self._resources[self.frame_type]

    def read(self):
        resource = self._resource()
        index = len(self._file[DATASETS[self.frame_type]]) - 1
        datum_id = f"{resource}/{uuid.uuid4().hex[:8]}"
        self._documents.append(
            ("datum", {"resource": resource, "datum_id": datum_id, "datum_kwargs": {"point_number": index}})
        )
        return {f"{self.name}_image": {"value": datum_id, "timestamp": time.time()}}

    def describe(self):
        return {
            f"{self.name}_image": {
                "shape": [1, *self.frame_shape],
                "source": "PV:XBAT:CAM:",
                "dtype": "array",
                "dtype_numpy": "<u2",
                "external": "FILESTORE:",
            }
        }

    def collect_asset_docs(self):
        documents = list(self._documents)
        self._documents.clear()
        yield from documents

    def unstage(self):
        if self._file is not None:
            self._file.close()
            self._file = None
        return super().unstage()


def frame_plan(camera, sequence, *, readables=(), md=None, at=None):
    """Plan: one run over `sequence` of stream names; ``"primary!"`` is a frame that gets no Event (an orphan).

    `at` maps positions in the sequence to functions called there, or to plans.
    """

    @bpp.stage_decorator([camera])
    @bpp.run_decorator(md=md or {})
    def inner():
        for position, entry in enumerate(sequence):
            if at and position in at:
                yield from at[position]() or ()
            stream = entry.rstrip("!")
            camera.frame_type = STREAMS[stream]
            yield from bps.trigger(camera, wait=True)
            if not entry.endswith("!"):
                yield from bps.create(stream)
                for device in (camera, *readables):
                    yield from bps.read(device)
                yield from bps.save()

    return inner()


def frames_of_events(path, sequence, stream):
    """What the archive has to serve: the frames of `stream` in the file that have an Event, read by h5py."""
    entries = [entry for entry in sequence if entry.rstrip("!") == stream]
    with h5py.File(path, "r", libver="latest", swmr=True) as file:  # also a file that a crash left open
        data = file[DATASETS[STREAMS[stream]]][:]
    assert len(data) == len(entries)
    return data[[not entry.endswith("!") for entry in entries]]


def wait_for(condition, what, timeout_s=60):
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for: {what}"
        time.sleep(0.02)
