"""What the Tiled server does before it reads frames in place: a file that was cut off is refused, instead of zeros for what is missing."""

from __future__ import annotations

from typing import Any

from tiled.adapters.hdf5 import HDF5Adapter
from tiled.utils import path_from_uri

from xbat_live.archive.whole_files import cut_off


class WholeHDF5Adapter(HDF5Adapter):
    """Tiled's adapter of HDF5 files, for whole files only."""

    @classmethod
    def from_catalog(cls, data_source: Any, node: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return Tiled's adapter.

        Raises
        ------
        OSError
            A file is missing or cut off.
        """
        for asset in data_source.assets:
            path = path_from_uri(asset.data_uri)
            if told := cut_off(path):
                raise OSError(f"{path}: {told}")
        return HDF5Adapter.from_catalog(data_source, node, *args, **kwargs)
