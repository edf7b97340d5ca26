"""Energy sweeps of a pretended run: Events of the stream ``xas``, and maps in a real file beside the frames."""

from __future__ import annotations

import numpy as np
from pretend_run import PretendRun

from xbat_live.callbacks.xas_products import XasProducts
from xbat_live.live.feed import LiveFeed
from xbat_live.live.xas_maps import XasMaps


def cube(number: int, *, threshold_gy: float = float("nan"), **more) -> dict:
    """Data of an Event of the stream ``xas``."""
    data = {
        "number": number,
        "place": "C",
        "frames": 580,
        "components": 2,
        "low_dose_gy": 1e6 * number,
        "high_dose_gy": 8e6 * number,
        "low_progress": 0.2 * number,
        "high_progress": 0.1 * number,
        "low_edge_ev": 8345.0 + 0.3 * number,
        "high_edge_ev": 8345.0 + 0.1 * number,
        "low_fractions": "[0.8, 0.2]",
        "high_fractions": "[0.9, 0.1]",
        "r_factor": 0.004,
        "threshold_gy": threshold_gy,
        "threshold_low_gy": 0.8 * threshold_gy,
        "threshold_high_gy": 1.3 * threshold_gy,
        "alarm": "threshold" if threshold_gy == threshold_gy else "",
    } | more
    return {f"xas_{name}": value for name, value in data.items()}


def maps_of(folder, run: PretendRun, feed: LiveFeed, *data: dict):
    """Write maps as the live analysis does, and tell of them as the plan does."""
    shower = XasMaps(feed)
    products = XasProducts(folder)
    for document in run.begin():
        feed(*document)
        shower(*document)
    edge = np.full((60, 40), np.nan)
    for number, values in enumerate(data):
        edge[10:50, 5:35] = 8345.0 + number + np.linspace(0, 1, 30)
        curve = np.concatenate([np.linspace(1, 30, 20) * 1e6, np.full(28, np.nan)])
        row = products.write(
            {
                "fractions": np.stack([edge - 8345 - number, 1 - (edge - 8345 - number)]),
                "edge_ev": edge,
                "curve_dose_gy": curve,
                "curve_edge_ev": np.where(np.isfinite(curve), 8346.0, np.nan),
            }
        )
        event = run.event("xas", values)
        for document in (*products.select(row).collect_asset_docs(), event):
            shower(*document)
            feed(*document)
    return shower, products
