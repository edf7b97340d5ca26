"""Arrays that were worked out from a run, in Tiled beside the runs: ``analyses/<run uid>/<kind>-<UTC time>``.

Never under the run: a container or an array directly under a run breaks ``run.documents()`` and ``run.validate()``, and repairing a run
would delete it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from xbat_live import __version__
from xbat_live.archive.settings import ArchiveError

logger = logging.getLogger(__name__)

ROOT = "analyses"


@dataclass(frozen=True)
class StoredArray:
    """An array on its way into the archive.

    Attributes
    ----------
    values
        Any shape.
    unit
        As in the streams, e.g. ``"um"``; empty when it has none.
    dims
        A name per dimension.
    meaning
        One line.
    """

    values: np.ndarray
    unit: str
    dims: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class StoredAnalysis:
    """An analysis in the archive.

    Attributes
    ----------
    path
        E.g. ``"analyses/<uid>/motion-20261121T051447Z"``; with a browser under the archive's address, with Tiled by these keys.
    metadata
        Run, versions, parameters and all numbers, units in their names.
    client
        Tiled's client of the container.
    """

    path: str
    metadata: dict[str, Any] = field(repr=False)
    client: Any = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, e.g. ``"path/drift_yx_um"``, ``"pair-3-13/flow_yx_px"``."""
        return tuple(_names(self.client))

    def __getitem__(self, name: str) -> np.ndarray:
        """Read one array.

        Raises
        ------
        ArchiveError
            There is no such array.
        """
        return np.asarray(self._node(name).read())

    def unit(self, name: str) -> str:
        """Return the unit of an array."""
        return str(self._node(name).metadata["unit"])

    def _node(self, name: str) -> Any:
        node = self.client
        try:
            for key in name.split("/"):
                node = node[key]
        except KeyError as error:
            raise ArchiveError(f"{self.path} has no array {name!r}; it has {', '.join(self.names)}") from error
        return node


def new_name(kind: str) -> str:
    """Return a name for an analysis made now, ``<kind>-<UTC time>``."""
    return f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def store_analysis(
    client: Any,
    run_uid: str,
    kind: str,
    arrays: Mapping[str, StoredArray],
    metadata: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
) -> StoredAnalysis:
    """Write arrays worked out from a run into the archive, as a new entry beside earlier ones.

    It is all there or not there: an entry that was not completed is not listed, and is removed when it can be.

    Parameters
    ----------
    client
        Of the archive's root, from `connect`.
    run_uid
        Full uid.
    kind
        E.g. ``"motion"``, ``"dose"``, ``"spectra"``; a name of its own for each sort of analysis.
    arrays
        By name; ``"part/array"`` groups them.
    metadata
        Parameters and numbers, JSON; units in the names. Run, version and time are added.
    name
        From `new_name`; storing twice under one name stores once. Left out: a new one.

    Raises
    ------
    ArchiveError
        The run is not in this archive, or the archive does not take it.
    """
    import httpx

    if child(client, run_uid) is None:
        raise ArchiveError(f"run {run_uid} is not in the archive at {client.uri}; its analysis is not stored")
    about = {
        "analysis": kind,
        "analysis_of": run_uid,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "xbat_live": __version__,
        "complete": False,
        **(metadata or {}),
    }
    try:
        runs = _container(
            _container(client, ROOT, {"holds": "analyses of runs, by uid"}), run_uid, {"analysis_of": run_uid}
        )
        key = name or _free_name(runs, new_name(kind))
        node = child(runs, key) if name else None
        if node is not None:
            if node.metadata.get("complete"):
                return StoredAnalysis(f"{ROOT}/{run_uid}/{key}", dict(node.metadata), node)
            runs.delete_contents(key, recursive=True, external_only=False)
        node = runs.create_container(key=key, metadata=about)
        try:
            _write(node, arrays, run_uid)
            node.update_metadata({"complete": True})
        except BaseException:
            _remove(runs, key)
            raise
    except httpx.HTTPError as error:
        raise ArchiveError(f"the archive at {client.uri} did not take the analysis: {error}") from error
    return StoredAnalysis(f"{ROOT}/{run_uid}/{key}", dict(node.metadata), node)


def _write(node: Any, arrays: Mapping[str, StoredArray], run_uid: str) -> None:
    parts: dict[str, Any] = {}
    for path, array in arrays.items():
        part, _, key = path.rpartition("/")
        if part and part not in parts:
            parts[part] = node.create_container(key=part, metadata={"analysis_of": run_uid})
        parts.get(part, node).write_array(
            np.ascontiguousarray(array.values),
            key=key,
            metadata={"unit": array.unit, "meaning": array.meaning},
            dims=list(array.dims),
        )


def list_analyses(client: Any, run_uid: str, kind: str) -> list[str]:
    """Return the names of the complete analyses of a run, oldest first."""
    runs = child(child(client, ROOT), run_uid)
    if runs is None:
        return []
    return sorted(name for name, node in runs.items() if name.startswith(f"{kind}-") and node.metadata.get("complete"))


def open_analysis(client: Any, run_uid: str, name: str = "last", kind: str = "motion") -> StoredAnalysis:
    """Open an analysis of a run.

    Parameters
    ----------
    client
        Of the archive's root.
    run_uid
        Full uid.
    name
        From `list_analyses`, or ``"last"``.
    kind
        What ``"last"`` is of.

    Raises
    ------
    ArchiveError
        There is none.
    """
    known = list_analyses(client, run_uid, kind)
    if not known or name not in ("last", *known):
        raise ArchiveError(f"run {run_uid[:8]} has no {kind} analysis {name!r}; it has {', '.join(known) or 'none'}")
    key = known[-1] if name == "last" else name
    node = child(child(client, ROOT), run_uid)[key]
    return StoredAnalysis(f"{ROOT}/{run_uid}/{key}", dict(node.metadata), node)


def child(parent: Any, key: str) -> Any:
    """Return an entry, None when it is not there. The client of runs takes keys for uids: go past it."""
    from tiled.client.container import Container

    if parent is None:
        return None
    try:
        return Container.__getitem__(parent, key)
    except KeyError:
        return None


def _container(parent: Any, key: str, metadata: dict[str, Any]) -> Any:
    import httpx

    found = child(parent, key)
    if found is not None:
        return found
    try:
        return parent.create_container(key=key, metadata=metadata)
    except httpx.HTTPStatusError as error:
        # Another writer may have made it in the meantime.
        if error.response.status_code == httpx.codes.CONFLICT and (found := child(parent, key)) is not None:
            return found
        raise


def _free_name(parent: Any, name: str) -> str:
    taken = set(parent.keys())
    names = (name, *(f"{name}-{i}" for i in range(2, 1000)))
    return next(candidate for candidate in names if candidate not in taken)


def _remove(parent: Any, key: str) -> None:
    try:
        parent.delete_contents(key, recursive=True, external_only=False)
    except Exception:  # it stays behind, marked as not complete, and is not listed
        logger.warning("the incomplete analysis %s could not be removed from the archive", key)


def _names(node: Any, before: str = "") -> Iterator[str]:
    for key, item in node.items():
        if hasattr(item, "items"):
            yield from _names(item, f"{before}{key}/")
        else:
            yield before + key
