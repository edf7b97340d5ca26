"""Which runs there are: found by the server, told in one request."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from xbat_live.archive.connecting import REQUEST_TIMEOUT_S, is_local, no_answer, not_tiled, refused
from xbat_live.archive.settings import ArchiveError

KEY = "summary"
PAGE = 300  # of Tiled, at most
_NEEDED = (
    f"{{start: start.{{uid: uid, time: time, scan_id: scan_id, sample: sample, plan_name: plan_name, operator: operator}}, "
    f"stop: stop, {KEY}: {KEY}}}"
)
_AGES = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class FoundRun:
    """A run in a list of runs.

    Attributes
    ----------
    uid, scan_id, time_s, sample, plan, operator
        From its start document; `time_s` is Unix time.
    outcome
        Why it ended, or ``"running"``.
    frames, rejected, relocations
        None where the archive has no summary of the run.
    dose_gy
        Highest dose of the limited material at the places exposed, Gy; None where none was counted.
    duration_s
        None while it runs.
    """

    uid: str
    scan_id: int | None
    time_s: float
    sample: str
    plan: str
    operator: str
    outcome: str
    frames: int | None
    rejected: int | None
    relocations: int | None
    dose_gy: float | None
    duration_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self) | {"time": datetime.fromtimestamp(self.time_s).astimezone().isoformat(timespec="seconds")}


@dataclass(frozen=True)
class Criteria:
    """What is asked of a run; what is left out does not matter.

    Attributes
    ----------
    since_s, until_s
        When it began: from, and before, Unix time.
    sample, plan
        Names; ``%`` stands for any characters.
    outcome
        ``"success"``, ``"fail"``, ``"abort"``, ``"running"``, or words of the reason, e.g. ``"time is up"``.
    least_dose_gy, most_dose_gy
        Bounds of the highest dose, Gy. Runs without a dose fit neither.
    """

    since_s: float | None = None
    until_s: float | None = None
    sample: str | None = None
    plan: str | None = None
    outcome: str | None = None
    least_dose_gy: float | None = None
    most_dose_gy: float | None = None


def search_runs(uri: str, api_key: str | None, criteria: Criteria | None = None, *, limit: int = 50) -> list[FoundRun]:
    """Return the runs that fit `criteria`, the latest first.

    The server filters, sorts and sends what is needed of them, in one request per 300 runs. Asked directly: loading Tiled's
    client takes longer than the answer.

    Parameters
    ----------
    uri
        Of Tiled's API, e.g. ``http://127.0.0.1:8751/api/v1``.
    api_key
        Its key.
    limit
        At most so many.

    Raises
    ------
    ArchiveError
        `limit` is below 1, the archive does not answer, or it refuses the key.
    """
    if limit < 1:
        raise ArchiveError(f"limit {limit}: at least 1 run is asked for")
    found: list[FoundRun] = []
    while len(found) < limit:
        size = min(limit - len(found), PAGE)
        page: dict[str, Any] = {
            "page[offset]": len(found),
            "page[limit]": size,
            "sort": "-start.time",
            "fields": "metadata",
        }
        page |= {"select_metadata": _NEEDED, "omit_links": "true"}
        answer = _asked(uri, api_key, page | _filters(criteria or Criteria()))
        try:
            items = json.loads(answer)["data"]
            found += [_found(item["attributes"]["metadata"]["selected"]) for item in items]
        except (ValueError, TypeError, KeyError) as error:
            raise not_tiled(uri) from error
        if len(items) < size:
            break
    return found


class _NoRedirect(HTTPRedirectHandler):
    """The key goes to no other server."""

    def redirect_request(self, *told: Any) -> None:
        """Follow nothing."""


def _asked(uri: str, api_key: str | None, page: dict[str, Any]) -> bytes:
    """Return the server's answer. By the standard library: httpx takes longer to load than 10 000 runs to search."""
    if not uri.startswith(("http://", "https://")):
        raise no_answer(uri)
    headers = {} if api_key is None else {"Authorization": f"Apikey {api_key}"}
    opener = build_opener(_NoRedirect, *([ProxyHandler({})] if is_local(uri) else []))
    try:
        request = Request(f"{uri.rstrip('/')}/search/?{urlencode(page, doseq=True)}", headers=headers)
        with opener.open(request, timeout=REQUEST_TIMEOUT_S) as answer:
            content: bytes = answer.read()
    except HTTPError as error:
        error.close()
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise refused(uri) from error
        if error.code == HTTPStatus.NOT_FOUND:
            raise not_tiled(uri) from error
        raise ArchiveError(f"the archive at {uri} cannot be searched: {error}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise no_answer(uri) from error
    return content


def _filters(criteria: Criteria) -> dict[str, list[str]]:
    """Return the criteria as Tiled's server takes them; the same as its client's queries would become."""
    filters: dict[str, list[str]] = {}

    def ask(name: str, **fields: str) -> None:
        for field, value in fields.items():
            filters.setdefault(f"filter[{name}][condition][{field}]", []).append(value)

    ask("specs", include=json.dumps(["BlueskyRun"]), exclude=json.dumps([]))
    bounds = (
        ("ge", "start.time", criteria.since_s),
        ("lt", "start.time", criteria.until_s),
        ("ge", f"{KEY}.dose_gy", criteria.least_dose_gy),
        ("le", f"{KEY}.dose_gy", criteria.most_dose_gy),
    )
    for operator, key, bound in bounds:
        if bound is not None:
            ask("comparison", operator=operator, key=key, value=json.dumps(bound))
    outcome, status = criteria.outcome, None
    if outcome == "running":
        ask("keypresent", key="stop", exists="false")
    elif outcome in ("success", "fail", "abort"):
        status = outcome
    elif outcome is not None:
        ask("like", key=f"{KEY}.outcome", pattern=json.dumps(f"%{outcome}%"))
    names = (("start.sample", criteria.sample), ("start.plan_name", criteria.plan), ("stop.exit_status", status))
    for key, wanted in names:
        if wanted is not None and "%" in wanted:
            ask("like", key=key, pattern=json.dumps(wanted))
        elif wanted is not None:
            ask("eq", key=key, value=json.dumps(wanted))
    return filters


def _found(metadata: Any) -> FoundRun:
    start, stop, summary = metadata["start"], metadata.get("stop") or {}, metadata.get(KEY) or {}
    return FoundRun(
        uid=start["uid"],
        scan_id=start.get("scan_id"),
        time_s=start["time"],
        sample=str(start.get("sample", "")),
        plan=str(start.get("plan_name", "")),
        operator=str(start.get("operator", "")),
        outcome=str(summary.get("outcome") or stop.get("exit_status", "running")),
        frames=summary.get("frames", (stop.get("num_events") or {}).get("primary")),
        rejected=summary.get("rejected"),
        relocations=summary.get("relocations"),
        dose_gy=summary.get("dose_gy"),
        duration_s=summary.get("duration_s", stop["time"] - start["time"] if stop else None),
    )


def parse_time(text: str, now: datetime | None = None) -> float:
    """Return the Unix time, s, that `text` means: ``"today"``, ``"yesterday"`` (their beginning), an age, or a date.

    Parameters
    ----------
    text
        Also ``"30 min"``, ``"6 h"``, ``"3 d"``, ``"2 w"`` ago, and ISO 8601: ``"2026-11-21"``, ``"2026-11-21 14:30"``, local
        time unless it says otherwise.
    now
        Left out: now.

    Raises
    ------
    ValueError
        It means no time.
    """
    present = now or datetime.now().astimezone()
    midnight = present.replace(hour=0, minute=0, second=0, microsecond=0)
    words = text.strip().lower()
    if words in ("today", "yesterday"):
        return (midnight - timedelta(days=words == "yesterday")).timestamp()
    if age := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(min|h|d|w)", words):
        return (present - timedelta(**{_AGES[age[2]]: float(age[1])})).timestamp()
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError as error:
        raise ValueError(
            f'{text!r} is no time; write "today", "yesterday", an age like "6 h" or "3 d", or a date like "2026-11-21 14:30"'
        ) from error
