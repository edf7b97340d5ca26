"""Rate of `xbat export` to NeXus against `shutil.copyfile` of the same bytes, by turns; frames in a local HDF5 file.

What the archive is asked for once per run (the tables: about 40 requests, whatever the number of frames) is told apart.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from xbat_live.archive.frame_stack import Frames, LocalFrames
from xbat_live.exchange.frame_set import FrameSet
from xbat_live.exchange.nexus import write_nexus
from xbat_live.exchange.record import RunRecord

SHAPE = (654, 678)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "camera.h5"
        rng = np.random.default_rng(0)
        with h5py.File(source, "w", libver="latest") as file:
            data = file.create_dataset("entry/data/data", (options.frames, *SHAPE), "u2", chunks=(1, *SHAPE))
            for row in range(options.frames):
                data[row] = rng.integers(0, 4000, SHAPE, dtype="u2")
        frames = frame_set(source, options.frames)
        record = RunRecord({"uid": "0" * 36, "time": 1e9, "versions": {}}, {}, ())
        copies, exports = [], []
        for _ in range(options.repeats):
            for target, times, work in (
                (folder / "copy.h5", copies, lambda out: shutil.copyfile(source, out)),
                (folder / "run.nxs", exports, lambda out: write_nexus(out, record, frames)),
            ):
                began = time.perf_counter()
                work(target)
                times.append(time.perf_counter() - began)
                target.unlink()
        megabytes = source.stat().st_size / 1e6
        for what, times in (("copyfile", copies), ("export", exports)):
            best, middle = min(times), statistics.median(times)
            print(
                f"{what:9} min {best:.3f} s ({megabytes / best:.0f} MB/s), median {middle:.3f} s ({megabytes / middle:.0f} MB/s)"
            )
        ratios = [copy / export for copy, export in zip(copies, exports, strict=True)]
        print(
            f"export at {min(copies) / min(exports):.2f} (min), {statistics.median(ratios):.2f} (median) of the rate of copying"
        )


def frame_set(source: Path, n: int) -> FrameSet:
    local = LocalFrames(source, "/entry/data/data", slice(0, n))
    stack = Frames(shape=(n, *SHAPE), dtype=np.dtype("u2"), _array=None, _run=None, _file=local)
    table = pd.DataFrame(
        {
            "stream": "primary",
            "row": np.arange(n),
            "seq_num": np.arange(1, n + 1),
            "time": 1e9 + np.arange(n),
            "image_key": 0,
            "verdict": "accepted",
        }
    )
    return FrameSet({"primary": stack}, table, SHAPE, np.dtype("u2"), 0.03324)


if __name__ == "__main__":
    main()
