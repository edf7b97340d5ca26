"""What a start document keeps of the configuration gives the same configuration again."""

import json
import tomllib
from importlib.resources import files

import pytest

from xbat_live.config import make_config, recorded_config

LAYER = {
    "name": "a",
    "thickness": "3 um",
    "parts": [{"material": "m", "formula": {"H2O": 0.5, "NaCl": 0.5}, "density": "2.3 g/cm**3"}],
}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({}, "the file that `xbat config init` writes"),
        ({"plan.name": "xanes_series", "plan.energies": ["8320 eV", "8.3455 keV"]}, "lists of numbers"),
        ({"sample.layers": [LAYER], "sample.forbidden": [["1 um", "2 um", "3 um", "4 um"]]}, "sections in lists"),
        ({"dose.policy": ["rest", "relocate"], "dose.limits": [{"rate": "1 kGy/s", "window": "1 min"}]}, "unions"),
        ({"protocol": [{"mode": "galvanostatic", "c_rate": "C/30000"}], "camera.roi": [0, 0, 64, 64]}, "a tiny rate"),
        ({"xas.fresh": {"A": ["450 um", "0 um"], "B": ["-1.9 mm", "2 um"]}}, "mappings of places"),
    ],
)
def test_a_recorded_configuration_is_the_same_when_read_back(overrides, reason):
    content = tomllib.loads(files("xbat_live.cli").joinpath("experiment.toml").read_text())
    config = make_config(content, overrides=overrides)
    again = make_config(json.loads(json.dumps(recorded_config(config))))
    assert again.model_dump() == config.model_dump(), reason


@pytest.mark.parametrize(
    "overrides",
    [
        {"archive.api_key": "secret"},
        {"archive.catalog": "postgresql://xbat:secret@db/archive"},
        {"archive.streaming_cache": "redis://:secret@cache:6379/0"},
    ],
)
def test_keys_and_passwords_of_the_archive_are_not_recorded(overrides):
    content = tomllib.loads(files("xbat_live.cli").joinpath("experiment.toml").read_text())
    config = make_config(content, overrides=overrides)
    assert "secret" not in repr(config)
    assert "secret" not in json.dumps(recorded_config(config))
