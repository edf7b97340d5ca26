"""Make the README's picture of the live page from a real run: ``python docs/make_live_picture.py docs/images/live-page.png``.

Starts ``xbat demo``, opens its page in Debian's Chromium (``apt-get install chromium``) and takes the picture when the run has relocated
and shows an accepted frame.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
SIZE = {"width": 1480, "height": 860}


def wait(page: Page, script: str, timeout_s: float = 600.0) -> None:
    """Wait until `script` is true in the page; its content security policy forbids Playwright's own way."""
    end_s = time.monotonic() + timeout_s
    while not page.evaluate(script):
        if time.monotonic() > end_s:
            sys.exit(f"not seen in {timeout_s:g} s: {script}")
        page.wait_for_timeout(50)


def take(url: str, out: Path, theme: str, points: int, size: dict[str, int]) -> None:
    """Take the picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_context(viewport=size, color_scheme=theme).new_page()
        page.goto(url)
        wait(page, f"S.points >= {points} && document.querySelectorAll('[data-testid=relocation-arrow]').length >= 1")
        wait(page, "S.lastFrame.accepted && document.querySelector('[data-testid=state]').dataset.state === 'RUNNING'")
        page.wait_for_timeout(300)
        page.screenshot(path=out)
        browser.close()
    with Image.open(out) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--points", type=int, default=28, help="frames before the picture is taken")
    parser.add_argument("--seconds", type=float, default=80.0, help="length of the demonstration")
    parser.add_argument("--size", default="1480x860", help="of the page, px")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "xbat_live.cli.main", "demo", "--port", "0", "--seconds", str(options.seconds)]
        environment = os.environ | {"XBAT_RUNTIME_DIR": f"{folder}/runtime"}
        demo = subprocess.Popen(
            [*command, "--directory", f"{folder}/demo"], stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            url = next(
                found[1] for line in demo.stdout if (found := re.search(r"(http://127\.0\.0\.1:\d+/#k=\S+)", line))
            )
            threading.Thread(target=demo.stdout.read, daemon=True).start()  # nothing waits for a full pipe
            take(url, options.out, options.theme, options.points, {"width": width, "height": height})
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(60)


if __name__ == "__main__":
    main()
