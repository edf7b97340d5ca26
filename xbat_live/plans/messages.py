"""The few messages of which every exposure has dozens, made without bluesky's stubs.

Those format the call stack at every call, for a warning: half a millisecond in a nested plan. The messages are the same.
"""

from __future__ import annotations

from typing import Any

from bluesky.utils import Msg, MsgGenerator, short_uid


def read(signal: Any) -> MsgGenerator[Any]:
    """Plan stub: return the value of a signal, or of the first signal of a device; as ``bps.rd``."""
    reading = yield Msg("read", signal)
    if not reading:  # a simulator of plans
        return 0
    return next(iter(reading.values()))["value"]


def put(device: Any, value: Any, *, group: str | None = None) -> MsgGenerator[Any]:
    """Plan stub: set a device; without `group` wait until it is there. Return its status; as ``bps.abs_set``."""
    own = group or short_uid("set")
    status = yield Msg("set", device, value, group=own)
    if group is None:
        yield Msg("wait", None, group=own, error_on_timeout=True, timeout=None, watch=())
    return status


def wait(group: str, timeout_s: float) -> MsgGenerator[None]:
    """Plan stub: wait for a group, but not longer than `timeout_s`; as ``bps.wait`` without an error."""
    yield Msg("wait", None, group=group, error_on_timeout=False, timeout=timeout_s, watch=())


def sleep(seconds: float) -> MsgGenerator[None]:
    """Plan stub: as ``bps.sleep``."""
    yield Msg("sleep", None, seconds)
