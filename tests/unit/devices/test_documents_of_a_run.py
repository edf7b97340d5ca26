"""What a RunEngine makes of the devices: streams, data keys with units, hints, one datum per Event."""

from __future__ import annotations

from collections import defaultdict

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import event_model
from bluesky import RunEngine
from ophyd.sim import make_fake_device

from xbat_live.devices import AnalysisRecord, IonChamber, PointRecord, StorageRing


def test_a_run_with_flats_and_frames(camera, shutter):
    i0, ring = (
        make_fake_device(cls)(f"{name}:", name=name) for cls, name in ((IonChamber, "i0"), (StorageRing, "ring"))
    )
    for signal in (i0.current_na, ring.current_ma):
        signal.sim_put(1.0)
    point, analysis = PointRecord(name="point"), AnalysisRecord(name="analysis")
    readables = (camera, point, i0, ring, shutter)

    @bpp.stage_decorator([camera, shutter])
    @bpp.run_decorator(md={})
    def plan():
        yield from bps.declare_stream(*readables, name="primary")
        for kind, stream in (("FlatField", "flat"), ("Normal", "primary"), ("Normal", "primary")):
            yield from bps.abs_set(camera.frame_type, kind, wait=True)
            yield from bps.abs_set(shutter, "Open", wait=True)
            yield from bps.trigger(camera, wait=True)
            yield from bps.abs_set(shutter, "Closed", wait=True)
            point.fill(frame_type=kind, dose_gy=12.5)
            yield from bps.create(name=stream)
            for device in readables:
                yield from bps.read(device)
            yield from bps.save()
        yield from bps.create(name="analysis")
        yield from bps.read(analysis)
        yield from bps.save()

    documents = defaultdict(list)

    def keep(name, doc):
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
        documents[name].append(doc)

    RunEngine({}, context_managers=[])(plan(), keep)

    descriptors = {doc["name"]: doc for doc in documents["descriptor"]}
    assert set(descriptors) == {"primary", "flat", "analysis"}
    keys = descriptors["primary"]["data_keys"]
    units = {
        key: keys[key].get("units") for key in ("camera_image", "point_dose_gy", "i0_current_na", "ring_current_ma")
    }
    assert units == {"camera_image": "counts", "point_dose_gy": "Gy", "i0_current_na": "nA", "ring_current_ma": "mA"}
    assert descriptors["analysis"]["data_keys"]["analysis_shift_y_px"]["units"] == "px"
    assert descriptors["primary"]["hints"]["i0"]["fields"] == ["i0_current_na"]
    configuration = descriptors["primary"]["configuration"]["camera"]
    assert configuration["data_keys"]["camera_cam_acquire_time"]["units"] == "s"

    rows = {doc["datum_id"]: (doc["resource"], doc["datum_kwargs"]["point_number"]) for doc in documents["datum"]}
    datasets = {doc["uid"]: doc["resource_kwargs"].get("dataset", "/entry/data/data") for doc in documents["resource"]}
    streams = {doc["uid"]: doc["name"] for doc in documents["descriptor"]}
    found = []
    for event in documents["event"]:
        if "camera_image" in event["data"]:
            resource, row = rows[event["data"]["camera_image"]]
            assert row == event["data"]["camera_frame_index"]
            assert datasets[resource] == event["data"]["camera_frame_dataset"]
            found.append((streams[event["descriptor"]], datasets[resource], row))
    assert found == [
        ("flat", "/entry/data/flat", 0),
        ("primary", "/entry/data/data", 0),
        ("primary", "/entry/data/data", 1),
    ]
    assert not shutter.is_open
