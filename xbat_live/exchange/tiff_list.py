"""Tell Tiled of a stream whose frames are TIFF files of any names."""

from __future__ import annotations

from typing import Any

from bluesky_tiled_plugins.writing.consolidators import CONSOLIDATOR_REGISTRY, TIFFConsolidator

from xbat_live.exchange.placing import TIFF_TYPE


class TiffListConsolidator(TIFFConsolidator):
    """Take the files' names from the resource's parameter ``files``; the plugin's own expects names with a running number."""

    def get_datum_uri(self, indx: int) -> str:
        """Return the address of the file of frame `indx`."""
        files: list[str] | None = self._sres_parameters.get("files")
        return str(super().get_datum_uri(indx)) if files is None else files[indx]

    def adapter_parameters(self) -> dict[str, Any]:
        """Return what the server's reader gets: not the list, it has the files as assets."""
        return {name: value for name, value in super().adapter_parameters().items() if name != "files"}


def use_file_lists() -> None:
    """Make `bluesky_tiled_plugins` use `TiffListConsolidator` in this process."""
    CONSOLIDATOR_REGISTRY[TIFF_TYPE] = TiffListConsolidator
