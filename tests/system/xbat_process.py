"""The command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any


def xbat(*arguments: str, **kwargs: Any) -> subprocess.Popen[str]:
    """Start ``xbat`` in a process group of its own."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""} | kwargs.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-m", "xbat_live.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
        **kwargs,
    )
