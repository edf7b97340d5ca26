"""X-ray dose: physics of layer stacks, maps on the sample, a durable ledger, limits that refuse, fresh spots.

Pure numerics and one SQLite file; knows nothing of devices or plans.
"""

from __future__ import annotations

from xbat_live.dose import presets
from xbat_live.dose.limits import DoseLimit
from xbat_live.dose.materials import Material
from xbat_live.dose.stack import Layer, LayerStack

__all__ = ["DoseLimit", "Layer", "LayerStack", "Material", "presets"]
