"""Wall time of ``xbat plan`` on a plan of 10,000 frames of the sample, and where it goes.

Usage: ``python benchmarks/forecast.py [--frames 10000] [--repeat 3]``. The bound of issue 3 is 2 s on a quiet machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BOUND_S = 2.0
CASES = {
    "two fields, a flat at every point": ("plan.n_points={half}", "dose.limit=1 GGy"),
    "one field, a flat at every point": ("plan.n_points={all}", "dose.limit=1 GGy"),
    "two fields, flats every 2 h": ("plan.n_points={half}", "dose.limit=1 GGy", "plan.flat_time_to_live=2 h"),
    "two fields, ends with NO-GO": ("plan.n_points={half}", "dose.limit=1 MGy"),
    "two fields, 20 % rejected": ("plan.n_points={half}", "dose.limit=1 GGy"),
}
STEPS = """
import sys, time
start = time.perf_counter()
def step(name):
    global start
    now = time.perf_counter()
    print(f"  {name:44s} {now - start:6.2f} s")
    start = time.perf_counter()
from pathlib import Path
import xbat_live.cli.main
from xbat_live.config import load_config
step("command line")
config = load_config(Path(sys.argv[1]), dict(item.split("=", 1) for item in sys.argv[2:]))
step("configuration")
from xbat_live.forecast import forecast
step("import of plans, guard, account")
found = forecast(config)
step(f"walk of {found.frames} frames, {found.flats} flats")
print("  ophyd", "imported" if "ophyd" in sys.modules else "not imported", "| xraydb", "imported" if "xraydb" in sys.modules else "not")
"""


def command(code: str, *arguments: str) -> float:
    """Run Python and return its wall time, s."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *code.split(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return time.perf_counter() - start


def filled(changes: tuple[str, ...], frames: int) -> list[str]:
    """Return the changes of a case for a number of frames."""
    return [change.format(half=frames // 2, all=frames) for change in changes]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "my-cell.toml"
        subprocess.run(
            [sys.executable, "-m", "xbat_live.cli.main", "config", "init", str(file)], check=True, capture_output=True
        )
        one_field = Path(folder) / "one-field.toml"
        one_field.write_text(file.read_text().replace(', ["30 um", "0 um"]]', "]"))
        print(f"xbat plan, {options.frames} frames of the sample, best of {options.repeat} (bound {BOUND_S:g} s)")
        for name, changes in CASES.items():
            more = [word for change in filled(changes, options.frames) for word in ("--set", change)]
            more += ["--reject", "0.2"] if "rejected" in name else []
            chosen = one_field if "one field" in name else file
            best = min(command("-m xbat_live.cli.main plan", str(chosen), *more) for _ in range(options.repeat))
            print(f"  {name:44s} {best:6.2f} s{'' if best <= BOUND_S else '  ABOVE THE BOUND'}")
        print("steps of the first case")
        changes = [change.format(half=options.frames // 2) for change in CASES["two fields, a flat at every point"]]
        print(
            subprocess.run(
                [sys.executable, "-c", STEPS, str(file), *changes], capture_output=True, text=True, check=True
            ).stdout
        )


if __name__ == "__main__":
    main()
