"""Frames recorded elsewhere: Xradia ``.xrm``/``.txrm`` (OLE), TIFF, HDF5 (Data Exchange, NXtomo, areaDetector).

Headers first, pixels when needed. Used by the simulator, which plays them, and by the importer, which makes runs of them.
"""

from xbat_live.recordings.find import find_all, find_recordings, frame_files, read_all
from xbat_live.recordings.model import FrameKind, Recording, RecordingError

__all__ = ["FrameKind", "Recording", "RecordingError", "find_all", "find_recordings", "frame_files", "read_all"]
