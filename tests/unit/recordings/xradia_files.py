"""Xradia files as the instruments write them, with headers the tests know."""

import numpy as np
from ole_writer import write_ole

AXES = (("Sample X", "um"), ("Sample Y", "um"), ("Zoneplate Z", "\xb5m"), ("Sample Theta", "deg"))


def xradia_streams(
    images,
    *,
    energy_ev=0.0,
    exposure_s=0.5,
    pixel_size_um=0.0312,
    angles_deg=(6.974469,),
    position_um=(-5178.05, 5216.9, 3552.0),
    dates=("05/29/16 15:02:37",),
):
    """Streams of a file with `images` (n, ny, nx), uint16 or float32."""
    images = np.asarray(images)
    n, rows, columns = images.shape

    def u4(*values):
        return np.array(values, "<u4").tobytes()

    def f4(*values):
        return np.resize(np.array(values, "<f4"), n).tobytes()

    def text(values, length):
        return b"".join(value.encode("latin-1").ljust(length, b"\0") for value in values)

    streams = {
        "ImageInfo/ImageHeight": u4(rows),
        "ImageInfo/ImageWidth": u4(columns),
        "ImageInfo/NoOfImages": u4(n),
        "ImageInfo/ImagesTaken": u4(n),
        "ImageInfo/DataType": u4(5 if images.dtype == np.uint16 else 10),
        "ImageInfo/PixelSize": np.array([pixel_size_um], "<f4").tobytes(),
        "ImageInfo/Energy": f4(energy_ev),
        "ImageInfo/ExpTimes": f4(exposure_s),
        "ImageInfo/Angles": f4(*angles_deg),
        "ImageInfo/XPosition": f4(position_um[0]),
        "ImageInfo/YPosition": f4(position_um[1]),
        "ImageInfo/ZPosition": f4(position_um[2]),
        "ImageInfo/Date": text([dates[i % len(dates)] for i in range(n)], 40),
        "PositionInfo/TotalAxis": u4(len(AXES)),
        "PositionInfo/AxisNames": text([name for name, _ in AXES], 25),
        "PositionInfo/AxisUnits": text([unit for _, unit in AXES], 15),
        "PositionInfo/MotorPositions": np.resize(np.array([1.5, 2.5, -1670.0531, 6.5], "<f4"), n * len(AXES)).tobytes(),
    }
    for i, image in enumerate(images):
        streams[f"ImageData{i // 100 + 1}/Image{i + 1}"] = image.astype(image.dtype.newbyteorder("<")).tobytes()
    return streams


def write_xrm(path, image, **header):
    write_ole(path, xradia_streams(np.asarray(image)[None] if np.ndim(image) == 2 else image, **header))
    return path
