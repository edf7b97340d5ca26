"""A run with everything that an export has to keep, as it comes into the archive: spectra, flats, darks, verdicts, dose, decisions."""

import json
import uuid

import h5py
import numpy as np

from xbat_live.exchange.incoming import IncomingRun
from xbat_live.exchange.record import RunRecord, StreamRecord
from xbat_live.recordings import Recording

ENERGIES_EV = (8320.0, 8340.0, 8345.0, 8380.0)
ABSORPTION = (0.2, 0.5, 0.9, 0.7)
SHAPE = (24, 32)
DARK_COUNTS, FLAT_COUNTS = 100, 20_000
REJECTED = (3, 8)


def spectral_run(folder, *, repeats=3, seed=0):
    """A run of 4 energies x `repeats` frames, 2 flats per energy (half as long exposed), 3 darks; frames 3 and 8 are rejected."""
    rng = np.random.default_rng(seed)
    uid = str(uuid.uuid4())
    n = len(ENERGIES_EV) * repeats
    energy = np.repeat(ENERGIES_EV, repeats)
    stacks = {
        "primary": [
            rng.poisson(FLAT_COUNTS * np.exp(-mu), SHAPE) + DARK_COUNTS for mu in np.repeat(ABSORPTION, repeats)
        ],
        "flat": [rng.poisson(FLAT_COUNTS / 2, SHAPE) + DARK_COUNTS for _ in range(2 * len(ENERGIES_EV))],
        "dark": [rng.poisson(DARK_COUNTS, SHAPE) for _ in range(3)],
    }
    path = folder / f"camera-{uid[:8]}.h5"
    datasets = {"primary": "entry/data/data", "flat": "entry/data/flat", "dark": "entry/data/dark"}
    with h5py.File(path, "w", libver="latest") as file:
        for name, images in stacks.items():
            file.create_dataset(datasets[name], data=np.array(images, "u2"), chunks=(1, *SHAPE))
    times = {
        "dark": 1e9 + np.arange(3),
        "flat": 1e9 + 10 + 4.0 * np.arange(8),
        "primary": 1e9 + 12 + 1.25 * np.arange(n),
    }
    columns = {name: _camera(path, datasets[name], times[name]) for name in datasets}
    columns["primary"] |= {
        "mono_energy": energy,
        "point_exposure_s": np.full(n, 0.5),
        "point_index": np.zeros(n, int),
        "point_spot": np.zeros(n, int),
        "point_field": np.array(["A"] * n, object),
        "point_dose_gy": 1e3 * (1 + np.arange(n, dtype=float)),
        "point_dose_reserved_gy": np.full(n, 1.1e3),
        "point_dose_delivered_gy": np.full(n, 1e3),
        "point_open_time_s": np.full(n, 0.5),
        "point_light_fraction": np.ones(n),
        "stage_x": rng.normal(0, 1, n),
        "stage_y": rng.normal(0, 1, n),
        "stage_theta": np.linspace(0, 1, n),
        "i0_current_na": rng.normal(100, 1, n),
        "potentiostat_soc": np.linspace(0.1, 0.2, n),
        "note": np.array(['text with "quotes", commas\nand µ'] * n, object),
    }
    flats = np.repeat(ENERGIES_EV, 2)
    columns["flat"] |= {"mono_energy": flats, "point_exposure_s": np.full(8, 0.25), "point_light_fraction": np.ones(8)}
    streams = [_stream(name, told, image=True) for name, told in columns.items()]
    streams += [_stream("analysis", _analysis(times["primary"])), _stream("decision", _decision())]
    start = {
        "uid": uid,
        "time": 1e9,
        "scan_id": 7,
        "plan_name": "xanes_series",
        "sample": "NMC-cell",
        "operator": "A. Scientist",
        "pixel_size_um": 0.0312,
        "dose_limit_gy": 1e6,
        "dose": {
            "model": "attenuation",
            "model_version": 1,
            "material": "NMC622",
            "layer": "cathode",
            "sigma_rel": 0.05,
        },
        "versions": {"xbat_live": "0.1.0"},
        "hints": {"dimensions": [[["mono_energy"], "primary"]]},
        "imported": {"files": [str(path)], "digest": uid},
    }
    stop = {
        "uid": str(uuid.uuid4()),
        "time": 1e9 + 40,
        "run_start": uid,
        "exit_status": "success",
        "reason": "",
        "num_events": {stream.name: len(stream) for stream in streams},
    }
    frames = {
        name: [Recording(path, i, SHAPE, "<u2", dataset=datasets[name]) for i in range(len(images))]
        for name, images in stacks.items()
    }
    return IncomingRun(RunRecord(start, stop, tuple(streams)), frames)


def _camera(path, dataset, times):
    n = len(times)
    return {
        "seq_num": np.arange(1, n + 1),
        "time": times,
        "camera_frame_file": np.array([str(path)] * n, object),
        "camera_frame_dataset": np.array([f"/{dataset}"] * n, object),
        "camera_frame_index": np.arange(n),
    }


def _analysis(times):
    n = len(times)
    accepted = np.array([int(i not in REJECTED) for i in range(n)])
    return {
        "seq_num": np.arange(1, n + 1),
        "time": times + 0.1,
        "analysis_seq_num": np.arange(1, n + 1),
        "analysis_stream": np.array(["primary"] * n, object),
        "analysis_verdict": np.array(["accepted" if ok else "blurred" for ok in accepted], object),
        "analysis_accepted": accepted,
        "analysis_shift_y_px": np.where(accepted, 0.25, np.nan),
        "analysis_shift_x_px": np.where(accepted, -0.5, np.nan),
    }


def _decision():
    return {
        "seq_num": np.array([1]),
        "time": np.array([1e9 + 39.0]),
        "decision_action": np.array(["end"], object),
        "decision_inputs": np.array([json.dumps({"fraction": 0.5})], object),
        "decision_threshold": np.array([np.nan]),
    }


def _stream(name, columns, *, image=False):
    units = {"mono_energy": "eV", "stage_x": "um", "stage_y": "um", "stage_theta": "deg", "i0_current_na": "nA"}
    data_keys = {}
    for key, values in columns.items():
        if key in ("seq_num", "time"):
            continue
        told = {"O": ("string", None), "i": ("integer", "<i8"), "f": ("number", "<f8")}[values.dtype.kind]
        data_keys[key] = {"source": "test", "dtype": told[0], "shape": [], "object_name": key.split("_")[0]}
        data_keys[key] |= {"dtype_numpy": told[1]} if told[1] else {}
        unit = units.get(key) or {"gy": "Gy", "s": "s"}.get(key.rsplit("_", 1)[-1], "")
        data_keys[key] |= {"units": unit} if unit else {}
    if image:
        data_keys["camera_image"] = {
            "source": "test",
            "dtype": "array",
            "dtype_numpy": "<u2",
            "shape": [1, *SHAPE],
            "external": "STREAM:",
            "units": "counts",
            "object_name": "camera",
        }
    devices = {told["object_name"] for told in data_keys.values()}
    configuration = {device: {"data": {}, "timestamps": {}, "data_keys": {}} for device in sorted(devices)}
    descriptor = {
        "data_keys": data_keys,
        "configuration": configuration,
        "hints": {},
        "time": float(columns["time"][0]),
    }
    return StreamRecord(name, descriptor, columns, "camera_image" if image else None)
