"""Replay of documents against real time: ``python benchmarks/replay.py ARCHIVE [RUN]``, for a run that `xbat demo` has left."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import xbat_live.cli  # noqa: F401 - one thread of the BLAS, as in the command
from xbat_live.archive import open_archive
from xbat_live.replay import compare, load_run, replay_config, replay_documents

REPEATS = 7


def main() -> None:
    """Print the time of each repeat as a ratio to the run's duration."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        client = open_archive(folder=Path(sys.argv[1]))
        recording = load_run(client, sys.argv[2] if len(sys.argv) > 2 else "last", scratch=Path(scratch))
        config = replay_config(recording, {})
        times_s = []
        for _ in range(REPEATS):
            begin_s = time.perf_counter()
            outcome = replay_documents(recording, config)
            times_s.append(time.perf_counter() - begin_s)
        agrees = compare(recording, outcome).agrees
        client.context.close()
    for name, taken_s in (("best", min(times_s)), ("median", statistics.median(times_s)), ("first", times_s[0])):
        ratio = recording.duration_s / taken_s
        sys.stdout.write(
            f"{name:<7} {taken_s:.3f} s of {recording.duration_s:.1f} s: {ratio:.1f} times real time (target 50)\n"
        )
    sys.stdout.write(f"{recording.frames} frames, decisions agree: {agrees}\n")


if __name__ == "__main__":
    main()
