"""Pause in the middle of an exposure, resume, and tell what happened; a client process on a simulator.

Usage: pause_client.py EXPERIMENT.toml
"""

import json
import sys
import threading
import time
from pathlib import Path

from xbat_live.config import load_config
from xbat_live.devices import configure_channel_access

config = load_config(Path(sys.argv[1]))
configure_channel_access(config.beamline.channel_access.environment())

from bluesky.utils import RunEngineInterrupted  # noqa: E402

from xbat_live.session import open_session  # noqa: E402


def main() -> None:
    events, verdicts = [], []
    with open_session(config) as session:
        engine, shutter = session.run_engine, session.beamline.shutter

        def count(name, doc):
            if name == "event" and doc["data"].get("point_frame_type") == "Normal":
                events.append(doc["data"]["camera_frame_index"])
            if name == "event" and "analysis_verdict" in doc["data"]:
                verdicts.append(doc["data"]["analysis_verdict"])

        engine.subscribe(count)

        def pause_in_an_exposure():
            while len(events) < 3 or shutter.status.get() != "Open":
                time.sleep(0.002)
            engine.request_pause(defer=False)

        threading.Thread(target=pause_in_an_exposure, daemon=True).start()
        try:
            engine(session.plan())
        except RunEngineInterrupted:
            time.sleep(0.5)
        state, status = engine.state, shutter.status.get()
        result = engine.resume()
        print(
            json.dumps(
                {
                    "paused": state,
                    "shutter_in_pause": status,
                    "events": events,
                    "verdicts": verdicts,
                    "exit_status": result.exit_status,
                    "frames": result.plan_result.frames,
                    "open_time_s": session.guard.account.summary()["open_time_s"],
                    "counter_s": shutter.open_time_s.get(),
                    "unsettled": len(session.guard.account.unsettled),
                }
            )
        )


main()
