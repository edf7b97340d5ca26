"""Progress of a protocol on disk: never half written, not mistaken for another one, and a cube that was cut short is told."""

from __future__ import annotations

import json

import pytest

from xbat_live.plans import ProtocolMismatchError, ProtocolState, load_state, save_state

ARGUMENTS = {"n_frames": 580, "spot_um": [0.0, 0.0]}


def begun(tmp_path):
    state = ProtocolState(tmp_path / "s.protocol.json", ARGUMENTS)
    state.runs.append("first")
    state.cubes, state.open_cube = 8, 7
    state.done["charge"] = 3
    state.places_um["C"] = (1.5, -2.0)
    state.beam_s["C"] = 33.0
    save_state(state)
    return state


def test_a_new_protocol_begins(tmp_path):
    state = load_state(tmp_path / "none.json", ARGUMENTS)
    assert (state.cubes, state.resumed, state.lost) == (0, False, [])
    assert load_state(None, ARGUMENTS).file is None


def test_it_goes_on_with_the_next_cube_and_tells_the_lost_one(tmp_path):
    before = begun(tmp_path)
    state = load_state(before.file, ARGUMENTS)
    assert state.resumed
    assert (state.cubes, state.open_cube, state.lost) == (8, None, [7])
    assert (state.done, state.places_um, state.beam_s) == ({"charge": 3}, {"C": (1.5, -2.0)}, {"C": 33.0})
    assert state.begin_phase("charge") == state.begin_phase("charge")


def test_the_references_that_hold_are_remembered_with_their_place_on_disk(tmp_path):
    state = begun(tmp_path)
    for phase, kind, number in (
        ("I0 at the start", "i0", 0),
        ("I0 at the start", "i0", 1),  # the mean of both holds
        ("foil at the start", "foil", 2),
        ("I0 in the charged state", "i0", 9),  # takes the place of the first two; the foil stays
    ):
        state.keep_reference(phase, {"kind": kind, "number": number, "file": "frames/1.h5"})
    save_state(state)
    kept = load_state(state.file, ARGUMENTS).reference_cubes
    assert [(cube["kind"], cube["number"]) for cube in kept] == [("foil", 2), ("i0", 9)]
    assert kept[0]["file"] == "frames/1.h5"


def test_a_draft_that_was_left_behind_does_not_matter(tmp_path):
    before = begun(tmp_path)
    before.file.with_suffix(".part").write_text('{"version": 1, "cubes"')
    assert load_state(before.file, ARGUMENTS).cubes == 8


@pytest.mark.parametrize(
    ("change", "arguments", "told"),
    [
        (lambda content: content, {**ARGUMENTS, "n_frames": 68}, "n_frames: 580 then, 68 now"),
        (lambda content: content | {"complete": True}, ARGUMENTS, "is complete"),
        (lambda content: content | {"version": 2}, ARGUMENTS, "version 2"),
        (lambda content: content | {"unheard_of": 1}, ARGUMENTS, "not the state of a protocol"),
    ],
    ids=["another protocol", "nothing left to do", "a later version", "an unknown key"],
)
def test_a_file_that_does_not_fit_is_refused_with_the_remedy(tmp_path, change, arguments, told):
    file = begun(tmp_path).file
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(ValueError, match=told) as refused:
        load_state(file, arguments)
    assert str(file) in str(refused.value)
    assert "to begin anew" in str(refused.value)


def test_a_damaged_file_is_refused_and_not_overwritten(tmp_path):
    file = begun(tmp_path).file
    file.write_text(file.read_text()[:40])
    with pytest.raises(ValueError, match="not the state"):
        load_state(file, ARGUMENTS)
    assert not isinstance(ValueError(), ProtocolMismatchError)
    assert file.stat().st_size == 40
