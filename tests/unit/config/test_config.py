"""Experiment files: every wrong key is named with file, key, value and remedy."""

from importlib.resources import files
from pathlib import Path

import pytest

from xbat_live.config import ConfigError, ExperimentConfig, load_config, make_config

GOOD = """
[sample]
name = "cell-1"
[beam]
flux = "1e10 ph/s"
[dose]
limit = "300 kGy"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "exp.toml"
    file.write_text(text)
    return file


def test_a_short_file_is_enough(tmp_path):
    config = load_config(write(tmp_path, GOOD))
    assert config.dose.limit_gy == 300e3
    assert config.camera.exposure_s == 0.048
    assert config.path(Path("frames")) == tmp_path / "frames"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('limit = "300 kGy"', 'limt = "300 kGy"'), ["dose.limt", "did you mean 'limit'"]),  # misspelt
        (('limit = "300 kGy"', ""), ["dose.limit", "missing"]),  # no default for what protects the sample
        (('limit = "300 kGy"', 'limit = "300"'), ["dose.limit", "'300'", "no unit"]),
        (('limit = "300 kGy"', 'limit = "300 ms"'), ["dose.limit", "not convertible to Gy"]),
        (('limit = "300 kGy"', 'limit = "-1 Gy"'), ["dose.limit", "below the smallest"]),
        (('flux = "1e10 ph/s"', 'flux = "1e10 ph/s"\nenergy = "8.5 eV"'), ["beam.energy", "did you mean 8.5 keV"]),
        (("[beam]", "[bream]"), ["bream", "did you mean 'beam'"]),
        (('name = "cell-1"', 'name = "../../etc"'), ["sample.name"]),  # it becomes a file name
        (('name = "cell-1"', "name = 3"), ["sample.name"]),
        ((GOOD, GOOD + '[[protocol]]\nmode = "galvanostatic"'), ["protocol.0", 'c_rate = "C/12"']),
        ((GOOD, GOOD + '[[protocol]]\nmode = "hold"\nhold = "4.3 V"'), ["protocol.0", "duration"]),
        ((GOOD, GOOD + '[plan]\nname = "xanes_series"'), ["plan", "needs energies"]),
        ((GOOD, GOOD + "[camera]\nroi = [1, 2]"), ["camera.roi"]),
    ],
)
def test_wrong_files_are_told_key_by_key(tmp_path, change, told):
    file = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(ConfigError) as error:
        load_config(file)
    for part in (str(file), *told):
        assert part in str(error.value)


def test_all_wrong_keys_are_told_at_once(tmp_path):
    file = write(tmp_path, GOOD.replace("limit", "limt").replace("flux", "flx"))
    with pytest.raises(ConfigError, match=r"(?s)beam\.flx.*dose\.limt|dose\.limt.*beam\.flx"):
        load_config(file)


@pytest.mark.parametrize(("text", "told"), [("[dose", "not valid TOML"), ("\x00", "not valid TOML")])
def test_no_toml(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told):
        load_config(write(tmp_path, text))


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="xbat config init"):
        load_config(tmp_path / "absent.toml")


def test_environment_wins_over_file_and_command_line_over_both(tmp_path, monkeypatch):
    file = write(tmp_path, GOOD)
    monkeypatch.setenv("XBAT_DOSE__LIMIT", "1 MGy")
    assert load_config(file).dose.limit_gy == 1e6
    assert load_config(file, {"dose.limit": "2 MGy"}).dose.limit_gy == 2e6
    assert load_config(file).dose.limit_gy == 1e6  # the override did not change the environment


def test_api_key_is_not_shown(tmp_path):
    config = load_config(write(tmp_path, GOOD + '[archive]\napi_key = "topsecret"'))
    assert "topsecret" not in repr(config)


@pytest.mark.parametrize("name", ["experiment.toml", "demo.toml"])
def test_shipped_files_are_valid(name):
    content = files("xbat_live.cli").joinpath(name).read_text()
    import tomllib

    assert make_config(tomllib.loads(content)).plan.name == "operando_txm_series"


def test_schema_knows_the_units():
    schema = ExperimentConfig.model_json_schema(by_alias=True)
    assert schema["$defs"]["DoseSection"]["properties"]["limit"]["examples"] == ["300 kGy"]


@pytest.mark.parametrize(
    ("matrix", "why"),
    [
        ([[1, 0], [0, 0]], "determinant is 0"),
        ([[2, 0], [0, 2]], "determinant is 4"),
        ([[float("nan"), 0], [0, 1]], "finite"),
        ([[1, 0]], "image_to_stage"),
    ],
)
def test_a_mounting_that_cannot_be_is_refused(matrix, why):
    content = {"sample": {"name": "a"}, "beam": {"flux": "1e10 ph/s"}, "dose": {"limit": "1 MGy"}}
    assert make_config(content | {"camera": {"image_to_stage": [[-1, 0], [0, 1]]}}).camera.image_to_stage[0] == (-1, 0)
    with pytest.raises(ConfigError, match=why):
        make_config(content | {"camera": {"image_to_stage": matrix}})
