"""databroker's interface of old over the archive, for programs that were written for it: needs the extra ``databroker``."""

from __future__ import annotations

from typing import Any

from xbat_live.archive.opening import open_archive
from xbat_live.archive.settings import ArchiveError


def broker(client: Any = None, **where: Any) -> Any:
    """Return a ``databroker.Broker`` over the runs of an archive, oldest first, so that ``db[-1]`` is the last run.

    Parameters
    ----------
    client
        Of the archive's root, e.g. ``databroker.catalog["xbat"]``; None: the archive is found as by `xbat_live.open`.
    where
        ``uri``, ``api_key``, ``folder`` or ``profile``; see `xbat_live.open`.

    Returns
    -------
    databroker.Broker
        ``db[uid]``, ``db[scan_id]``, ``db[-1]``, ``db(sample="cell-7")``; a header has ``start``, ``stop``, ``table()``, ``data(key)``,
        ``documents()``. Replays are runs too. What databroker 2.0.2 itself cannot do over Tiled: ``get_images``,
        ``documents(fill=True)``, ``db[-3:]``.

    Raises
    ------
    ArchiveError
        databroker is not installed, or no archive is found.
    """
    try:
        from databroker import Broker
    except ImportError as error:
        raise ArchiveError(
            f"databroker cannot be used ({error}); install it: pip install 'xbat-live[databroker]'"
        ) from error
    import bluesky_tiled_plugins  # noqa: F401  (registers the clients of runs and streams)
    from tiled.queries import SpecsQuery

    root = client if client is not None else open_archive(**where)
    # Analyses stand beside the runs; a Broker would take one of them for the last run.
    return Broker(root.search(SpecsQuery(["BlueskyRun"])).sort(("start.time", 1)))
