"""Work on parts of a cube in a few threads, each with one thread of the BLAS.

numpy lets go of the interpreter while it computes. The BLAS shares even small products among all cores, and its threads wait for one
another: on a busy machine ten times as long as the product takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

MOST_THREADS = 4
Part = TypeVar("Part")
Result = TypeVar("Result")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through the libraries of the process: once


def single_blas() -> AbstractContextManager[object]:
    """Return a context in which the BLAS has one thread."""
    return _controller().limit(limits=1, user_api="blas")


def in_threads(function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """Return what `function` gives for each part, in their order; numpy's error state of the caller is not passed on."""
    work = list(parts)
    threads = min(os.cpu_count() or 1, MOST_THREADS, len(work))
    with single_blas():
        if threads < 2:
            return [function(part) for part in work]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, work))
