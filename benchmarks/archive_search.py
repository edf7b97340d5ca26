"""`xbat ls` over a catalog of many runs: how long a list takes, against the server's answer to its smallest question.

The catalog is made of one real run's metadata, written straight into SQLite (through Tiled it would take an hour).
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from xbat_live.archive import TiledServer
from xbat_live.archive.search import Criteria, search_runs

REPEATS = 15
STREAMS = ("analysis", "dark", "decision", "flat", "primary", "spots")


def fill(catalog: Path, n: int) -> None:
    """Write `n` runs of six streams into the catalog, one each 20 minutes until now, start documents of realistic size."""
    rng = np.random.default_rng(0)
    part = {"material": "NMC622", "formula": "LiNi0.6Mn0.2Co0.2O2", "density_g_cm3": 4.7, "volume_fraction": 0.6}
    layers = [{"name": f"layer {i}", "thickness_um": 10.0, "parts": [part, part]} for i in range(8)]
    now = time.time()
    insert = "INSERT INTO nodes (parent, key, structure_family, metadata, specs) VALUES (?, ?, 'container', ?, ?)"
    with sqlite3.connect(catalog) as database:
        for number in range(n):
            uid, begun = str(uuid.uuid4()), now - 1200.0 * (n - number)
            start = {
                "uid": uid,
                "time": begun,
                "scan_id": number + 1,
                "plan_name": ("operando_txm_series", "xanes_series")[number % 2],
                "plan_args": {f"argument_{i}": float(i) for i in range(30)},
                "sample": f"cell-{number % 40}",
                "operator": "benchmark",
                "dose": {"stack": {"layers": layers}, "limits": layers[:2]},
            }
            status = "success" if number % 17 else "fail"
            stop = {"uid": str(uuid.uuid4()), "time": begun + 900, "run_start": uid, "exit_status": status}
            summary = {
                "frames": 300,
                "accepted": 280,
                "rejected": 20,
                "relocations": 2,
                "duration_s": 900.0,
                "outcome": "completed",
                "dose_gy": float(rng.uniform(1e3, 1e6)),
            }
            metadata = json.dumps({"start": start, "stop": stop, "summary": summary})
            run = database.execute(insert, (0, uid, metadata, _spec("BlueskyRun"))).lastrowid
            for stream in STREAMS:
                database.execute(insert, (run, stream, "{}", _spec("BlueskyEventStream")))


def _spec(name: str) -> str:
    return json.dumps([{"name": name, "version": "3.0"}], separators=(",", ":"))  # as Tiled writes and searches them


def timed(question: Callable[[], object]) -> list[float]:
    """Return the duration of `REPEATS` questions, s."""
    durations = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        question()
        durations.append(time.perf_counter() - begun)
    return durations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    n = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        with TiledServer(Path(folder) / "archive"):
            pass
        fill(Path(folder) / "archive" / "catalog.db", n)
        with TiledServer(Path(folder) / "archive") as server:
            since = time.time() - 86400.0

            def ask(limit: int = 50, **criteria: Any) -> Callable[[], object]:
                return lambda: search_runs(server.uri, server.api_key, Criteria(**criteria), limit=limit)

            questions = {
                "smallest answer of the server": lambda: httpx.get(
                    f"{server.uri}/", trust_env=False
                ).raise_for_status(),
                "latest 50 runs": ask(),
                "since yesterday": ask(300, since_s=since),
                "since yesterday, one sample": ask(since_s=since, sample="cell-7"),
                "all failed of one plan, latest 50": ask(outcome="fail", plan="xanes_series"),
                "dose above 990 kGy, latest 50": ask(least_dose_gy=990e3),
                "outcome in words, latest 50": ask(outcome="complete"),
                "all of them": ask(n),
            }
            print(f"{n} runs in the catalog; min / median of {REPEATS}, s")
            for name, question in questions.items():
                durations = timed(question)
                assert question(), f"{name}: nothing found"
                print(f"  {name:36s} {min(durations):7.3f} {statistics.median(durations):7.3f}")
            command = [sys.executable, "-m", "xbat_live.cli.main", "ls", "--since", "yesterday", "--json"]
            environment = os.environ | {"XBAT_ARCHIVE__URI": server.uri, "XBAT_ARCHIVE__API_KEY": server.api_key}
            durations = timed(lambda: subprocess.run(command, check=True, capture_output=True, env=environment))
            print(f"  {'the command, imports included':36s} {min(durations):7.3f} {statistics.median(durations):7.3f}")


if __name__ == "__main__":
    main()
