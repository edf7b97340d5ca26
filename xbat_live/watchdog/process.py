"""The guard process from its start to its end; `xbat guard` and ``python -m xbat_live.watchdog`` run it."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from xbat_live.config import ExperimentConfig
from xbat_live.watchdog.decide import Rules
from xbat_live.watchdog.only_one import GuardLock, OtherProcess
from xbat_live.watchdog.report import LOG_FILE, Teller, log_to

if TYPE_CHECKING:
    from xbat_live.watchdog.service import GuardService

logger = logging.getLogger(__name__)

ONCE_S = 10.0
_LOOPBACK_GIVE_UP_S = 60.0  # a simulator that is gone does not come back


def run_guard(
    config: ExperimentConfig,
    *,
    parent_pid: int | None = None,
    once: bool = False,
    stream: TextIO | None = None,
    as_json: bool = False,
    ready_fd: int | None = None,
) -> int:
    """Guard the sample of `config` until SIGTERM or SIGINT, or until the parent is gone and everything is in order.

    Parameters
    ----------
    config
        The experiment.
    parent_pid
        Process whose end is waited for; None: the guard stays.
    once
        Settle and count what is open, and end.
    stream, as_json
        Where events are told besides the log; see `Teller`.
    ready_fd
        Gets a line of JSON as soon as the guard watches, and is closed.

    Returns
    -------
    int
        0; with `once` 1 when the shutter is not known to be closed, or something could not be settled.
    """
    log_to(config.path(LOG_FILE))
    teller = Teller(stream, as_json=as_json)
    ledger = config.path(config.dose.ledger_directory) / f"{config.sample.name}.sqlite"
    parent = None if parent_pid is None else OtherProcess(parent_pid)
    stop = threading.Event()
    with GuardLock(ledger) as lock, _Signals(stop.set):
        if not lock.take(stays=parent is None):
            pid, stays = lock.holder()
            if parent is None or stays:
                text = f"sample {config.sample.name} is guarded already by process {pid}; this one ends"
                teller.tell("other", text)
                _say_ready(ready_fd, "other", text)
                return 0
            _prepare(config)
            _say_ready(ready_fd, "standby", f"process {pid} guards sample {config.sample.name} still")
            ready_fd = None
            if not lock.wait(lambda: parent.lives() and not stop.is_set()):
                return 0
        _prepare(config)
        return _watch(config, teller, parent, stop, once=once, ready_fd=ready_fd)


def _prepare(config: ExperimentConfig) -> None:
    """Set up Channel Access and load what takes long."""
    from xbat_live.devices import configure_channel_access, set_default_timeouts

    configure_channel_access(config.beamline.channel_access.environment())
    from xbat_live.watchdog import beam_watch, service  # noqa: F401 - loads ophyd, after the environment is set

    set_default_timeouts()


def _watch(
    config: ExperimentConfig,
    teller: Teller,
    parent: OtherProcess | None,
    stop: threading.Event,
    *,
    once: bool,
    ready_fd: int | None,
) -> int:
    from xbat_live.dose_setup import make_account, open_account
    from xbat_live.watchdog.beam_watch import BeamWatch
    from xbat_live.watchdog.booking import Bookkeeper
    from xbat_live.watchdog.service import GuardService
    from xbat_live.watchdog.tail import LedgerTail, writer_in

    folder = config.path(config.dose.ledger_directory)
    ledger = folder / f"{config.sample.name}.sqlite"
    eyes = BeamWatch(config)
    keeper = Bookkeeper(
        ledger,
        open_account=lambda: open_account(config, wait_s=0.0),
        make_account=lambda opened: make_account(config, opened),
        counter_now=eyes.counter_now,
        outline_um=config.sample.size_um,
        energy_ev=config.beam.energy_ev,
    )
    rules = Rules(
        grace_s=config.watchdog.grace_s,
        give_up_s=Rules.give_up_s if config.beamline.channel_access.port is None else _LOOPBACK_GIVE_UP_S,
    )
    eyes.start()
    service = GuardService(
        eyes,
        LedgerTail(ledger),
        keeper,
        writes=lambda: writer_in(folder),
        teller=teller,
        rules=rules,
        footprint_um=min(config.beam.size_um),
        parent_alive=None if parent is None else parent.lives,
    )
    text = f"guarding sample {config.sample.name}: shutter {eyes.beamline.shutter.prefix}, ledger {ledger}"
    teller.tell("watching", text, pid=os.getpid())
    _say_ready(ready_fd, "watching", text)
    ended = threading.Thread(target=_pass_on, args=(stop, service.request_stop), daemon=True)
    ended.start()
    if once:
        threading.Thread(target=_settle_once, args=(service, stop), daemon=True).start()
    try:
        service.run()
    finally:
        stop.set()
        eyes.stop()
        logger.info("guard of sample %s has ended", config.sample.name)
    return int(once and not service.settled)


def _pass_on(stop: threading.Event, request_stop: Callable[[], None]) -> None:
    stop.wait()
    request_stop()


def _settle_once(service: GuardService, stop: threading.Event) -> None:
    """Ask the guard to end as soon as everything is settled, or it takes too long."""
    deadline_s = time.monotonic() + ONCE_S
    while time.monotonic() < deadline_s and not stop.wait(0.05):
        if service.settled:
            break
    stop.set()


def _say_ready(ready_fd: int | None, state: str, note: str) -> None:
    if ready_fd is None:
        return
    try:
        os.write(ready_fd, json.dumps({"state": state, "note": note}).encode() + b"\n")
    except OSError:  # nobody waits any more
        logger.debug("nobody waits for this guard")
    os.close(ready_fd)


class _Signals:
    """SIGTERM and SIGINT ask for an orderly end; SIGHUP and SIGPIPE are no reason to end."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._previous: dict[int, object] = {}

    def __enter__(self) -> None:
        def ask(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._ask()

        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, ask)
        for number in (signal.SIGHUP, signal.SIGPIPE):
            self._previous[number] = signal.signal(number, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
