"""The configuration a replay runs with: that of the recorded run, with changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from xbat_live.config import ChannelAccess, ExperimentConfig, load_config, make_config
from xbat_live.replay.recording import Recording, ReplayError


def replay_config(recording: Recording, changes: dict[str, Any], *, file: Path | None = None) -> ExperimentConfig:
    """Return the configuration for a replay.

    Parameters
    ----------
    changes
        Values by dotted key, as for ``--set``.
    file
        An experiment file in place of the run's own configuration.

    Raises
    ------
    ReplayError
        The run holds no configuration and no file was given, or its plan cannot be run again.
    ConfigError
        A wrong key or value.
    """
    about = f"run {recording.uid[:8]}" if recording.uid else recording.source
    if recording.frames_alone:
        file = None  # it is in the configuration that was made
    if file is not None:
        config = load_config(file, changes)
    else:
        content = recording.start.get("config")
        if not isinstance(content, dict):
            raise ReplayError(
                f"{about} ({recording.start.get('plan_name', 'unknown plan')}) holds no configuration (it was not run by `xbat run`, "
                "or by an older version); name its experiment file: --config FILE"
            )
        config = make_config(content, source=f"{about}, with --set", overrides=changes)
    if config.uses_microscope:
        raise ReplayError(f"{about} was taken with the microscope ({config.plan.name}): there is no beam to replay")
    known = recording.start.get("plan_name")
    if file is None and known != config.plan.name and "plan.name" not in changes:
        raise ReplayError(
            f"{about} ran the plan {known!r}, its configuration says {config.plan.name!r}: it was started by own code; "
            'replay it with the plan of your choice: --set "plan.name=..."'
        )
    return config


def first_energy_ev(recording: Recording, config: ExperimentConfig) -> float:
    """Return the photon energy that the recording begins with, eV."""
    known = (e.energy_ev for e in recording.exposures if not math.isnan(e.energy_ev))
    return next(known, config.beam.energy_ev)


def with_beamline(config: ExperimentConfig, *, prefix: str, port: int, frames: Path) -> ExperimentConfig:
    """Return `config` for a simulated beamline on this machine whose sensor is as large as the recorded frames; without an archive."""
    beamline = config.beamline.model_copy(
        update={
            "prefix": prefix,
            "device_prefixes": {},
            "channel_access": ChannelAccess(port=port),
            "connection_timeout_s": max(config.beamline.connection_timeout_s, 10.0),
        }
    )
    camera = config.camera.model_copy(update={"roi": None, "directory": frames})
    archive = config.archive.model_copy(update={"enabled": False})
    return config.model_copy(update={"beamline": beamline, "camera": camera, "archive": archive})
