"""What registration and pipeline do when things go wrong: a right number with an honest sigma, or ``ok=False`` with a reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from frames_synthetic import Microscope, particles
from scipy import ndimage

from xbat_live.imaging import BlurScreen, DriftModel, FramePipeline, LiveRegistrar

SHAPE = (327, 339)
SHIFT = (5.3, -11.7)


@pytest.fixture(scope="module")
def made() -> Microscope:
    return Microscope(SHAPE, seed=3, photons=1000, margin_px=200)


@pytest.fixture
def microscope(made: Microscope) -> Microscope:
    """The same scene for all, and noise that does not depend on which tests ran before."""
    made.rng = np.random.default_rng(3)
    return made


def _registrar(microscope: Microscope, **options: int) -> LiveRegistrar:
    registrar = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, 0.03324, **options)
    assert registrar.update(microscope.expose()).ok
    return registrar


def _pipeline(microscope: Microscope) -> FramePipeline:
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_dark(microscope.dark)
    pipeline.set_flat(microscope.flat)
    return pipeline


def _lit_by(microscope: Microscope, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Microscope:
    """Return the microscope with illumination changed after the flat was taken."""
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    other = dataclasses.replace(microscope)
    other.illumination = microscope.illumination * change(y / SHAPE[0], x / SHAPE[1])
    return other


def _dust(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    rng, light = np.random.default_rng(8), np.ones(y.shape)
    for _ in range(30):
        light *= 1 - 0.4 * np.exp(-((y - rng.uniform()) ** 2 + (x - rng.uniform()) ** 2) / (2 * 0.012**2))
    return light


ILLUMINATION = [
    ("gradient of 50 % that the flat does not have", lambda y, x: 0.75 + 0.5 * x, 0.12),
    (
        "beam narrowed to a spot: a stale flat",
        lambda y, x: 0.3 + 2 * np.exp(-((x - 0.3) ** 2 + (y - 0.3) ** 2) / 0.2),
        0.35,
    ),
    ("beam moved by 2 % of the field", lambda y, x: 1 + 0.1 * np.sin(9 * x) * np.cos(7 * y), 0.25),
    ("thirty grains of dust that fell after the flat", _dust, 0.5),
]


@pytest.mark.parametrize(("why", "change", "bar_px"), ILLUMINATION, ids=[row[0] for row in ILLUMINATION])
def test_light_that_the_flat_does_not_know_costs_accuracy_and_says_so(
    microscope: Microscope, why: str, change: Callable, bar_px: float
) -> None:
    result = _registrar(microscope).update(_lit_by(microscope, change).expose(SHIFT))
    error = np.abs(np.subtract(result.shift_yx_px, SHIFT))
    assert result.ok, why
    assert (error < bar_px).all(), (why, error)
    assert (error < 4 * np.array(result.sigma_yx_px)).all(), "sigma grows with what the flat leaves behind"


def _grains(number: int, depth: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the light left by grains of 4 px that fell after the flat, at places of their own."""

    def light(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        rng, left = np.random.default_rng(8), np.ones(y.shape)
        for _ in range(number):
            left *= 1 - depth * np.exp(-((y - rng.uniform()) ** 2 + (x - rng.uniform()) ** 2) / (2 * 0.012**2))
        return left

    return light


@pytest.mark.parametrize("shift", [(12.3, -7.6), (40.2, 33.1), (0.3, 100.4)])
@pytest.mark.parametrize(("number", "depth"), [(30, 0.2), (30, 0.4), (60, 0.4), (30, 0.7)])
def test_dust_in_all_frames_and_not_in_the_flat_does_not_pass_for_a_sample_at_rest(
    microscope: Microscope, number: int, depth: float, shift: tuple[float, float]
) -> None:
    """Both frames have the dust at one place: their correlation is highest at no shift."""
    dusty = _lit_by(microscope, _grains(number, depth))
    registrar = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, 0.03324)
    registrar.update(dusty.expose())
    result = registrar.update(dusty.expose(shift))
    error = np.abs(np.subtract(result.shift_yx_px, shift))
    assert not result.ok or (error < 4 * np.array(result.sigma_yx_px)).all(), (error, result)
    assert result.ok or "flat" in result.reason or "periodic" in result.reason
    assert result.ok or depth > 0.2, "a few faint grains are no reason to lose frames"


@pytest.mark.parametrize("depth", [0.2, 0.7])
def test_a_drifting_run_under_dust_has_no_confident_wrong_shift(microscope: Microscope, depth: float) -> None:
    dusty = _lit_by(microscope, _grains(30, depth))
    registrar = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, 0.03324)
    shifts = np.random.default_rng(3).normal(0, 13, (25, 2))
    results = [registrar.update(dusty.expose((float(y), float(x)))) for y, x in shifts]
    wrong = [
        (result, truth)
        for result, truth in zip(results, shifts - shifts[0], strict=True)
        if result.ok and (np.abs(result.shift_yx_px - truth) > 5 * np.array(result.sigma_yx_px) + 0.1).any()
    ]
    assert not wrong


@pytest.mark.parametrize("change", [0.1, 0.4])
def test_a_sample_at_rest_may_change(microscope: Microscope, change: float) -> None:
    """Particles react one by one: less and less of the structure is as it was, and all of it is where it was."""
    registrar = _registrar(microscope)
    for _ in range(4):
        registrar.update(microscope.expose())
    pattern = ndimage.gaussian_filter(np.random.default_rng(4).normal(size=SHAPE), 10)
    density = -np.log(np.clip(microscope.transmission((0.6, 0.4)), 1e-3, 2)) * (1 + change * pattern / pattern.std())
    counts = microscope.rng.poisson(microscope.photons * microscope.illumination * np.exp(-density)) * 8 + 100
    result = registrar.update(np.clip(counts, 0, 65535).astype(np.uint16))
    assert result.ok, result.reason
    assert np.abs(np.subtract(result.shift_yx_px, (0.6, 0.4))).max() < 0.3


def test_contrast_inverted_across_an_edge_is_not_registered(microscope: Microscope) -> None:
    seen = microscope.transmission(SHIFT)
    inverted = seen.max() + seen.min() - seen
    counts = microscope.rng.poisson(microscope.photons * microscope.illumination * inverted) * 8 + 100
    result = _registrar(microscope).update(np.clip(counts, 0, 65535).astype(np.uint16))
    assert not result.ok
    assert "no structure in common" in result.reason


@pytest.mark.parametrize("contrast", [0.4, 2.0])
def test_contrast_may_change_by_a_factor_of_two_and_more(microscope: Microscope, contrast: float) -> None:
    result = _registrar(microscope).update(microscope.expose(SHIFT, contrast=contrast))
    assert result.ok
    assert np.abs(np.subtract(result.shift_yx_px, SHIFT)).max() < 0.25


def test_a_new_energy_starts_fields_anew_and_an_old_one_takes_them_up_again(microscope: Microscope) -> None:
    pipeline = _pipeline(microscope)
    pipeline.set_conditions(8324.0, 0.048)
    assert pipeline.process(microscope.expose(), "field").accepted
    pipeline.set_conditions(8354.0, 0.048)
    at_the_edge = pipeline.process(microscope.expose((20.0, 3.0), contrast=0.6), "field")
    assert at_the_edge.shift_yx_px == (0.0, 0.0), "first of its energy"
    pipeline.set_conditions(8324.0, 0.048)
    assert np.allclose(pipeline.process(microscope.expose((6.0, 2.0)), "field").shift_yx_px, (6, 2), atol=0.15)
    with pytest.raises(ValueError, match="above 0"):
        pipeline.set_conditions(0.0, 0.048)


@pytest.mark.parametrize("jump", [(0.0, 163.4), (-120.0, 120.0), (150.0, 10.0)])
def test_half_a_field_in_one_jump_is_found(microscope: Microscope, jump: tuple[float, float]) -> None:
    result = _registrar(microscope).update(microscope.expose(jump))
    assert result.ok
    assert np.abs(np.subtract(result.shift_yx_px, jump)).max() < 0.2


def test_a_relocation_out_of_the_field_is_lost_until_something_known_returns(microscope: Microscope) -> None:
    pipeline = _pipeline(microscope)
    pipeline.process(microscope.expose(), "spot")
    away = pipeline.process(microscope.expose((330.0, 340.0)), "spot")
    assert (away.kind, away.located) == ("lost", False)
    assert away.sigma_yx_px[0] > 100, "a shift that is not known has the field as its uncertainty"
    assert pipeline.process(microscope.expose((3.0, 4.0)), "spot").accepted
    assert pipeline.process(microscope.expose((330.0, 340.0)), "another spot").accepted


@pytest.mark.parametrize(
    "make", [lambda m: m.rng.poisson(1000 * m.illumination) * 8 + 100, lambda m: np.full(SHAPE, 101)]
)
def test_an_empty_field_is_not_registered(microscope: Microscope, make: Callable[[Microscope], np.ndarray]) -> None:
    registrar = _registrar(microscope)
    empty = registrar.update(make(microscope).astype(np.uint16))
    assert not empty.ok
    assert empty.reason
    assert registrar.update(microscope.expose(SHIFT)).ok, "and never becomes a keyframe"


@pytest.mark.parametrize("period_px", [33, 40, 54, 80, 120])
@pytest.mark.parametrize("shift", [(3.0, -4.0), (30.0, 60.0)])
def test_a_periodic_sample_is_ambiguous(period_px: float, shift: tuple[float, float]) -> None:
    y, x = np.mgrid[0:540, 0:540] * (2 * np.pi * round(540 / period_px) / 540)
    grating = Microscope(SHAPE, seed=1, photons=2000, scene=0.5 + 0.3 * np.sin(x) * np.sin(y))
    result = _registrar(grating).update(grating.expose(shift))
    assert not result.ok
    assert result.reason


@pytest.mark.parametrize("axis", [0, 1])
def test_lines_tell_nothing_of_the_shift_along_them(axis: int) -> None:
    profile = ndimage.gaussian_filter1d(np.random.default_rng(3).normal(size=720), 6, mode="wrap")
    scene = np.clip(0.5 + 0.2 * profile / profile.std(), 0, 3) * np.ones((720, 1))
    lines = Microscope(SHAPE, seed=3, photons=1000, scene=scene if axis else scene.T)
    result = _registrar(lines).update(lines.expose((9.0, 4.0)))
    assert not result.ok
    assert "lines" in result.reason


def _hot(frame: np.ndarray, share: float, counts: int) -> np.ndarray:
    spoilt = frame.copy()
    spoilt[np.random.default_rng(5).random(frame.shape) < share] = counts
    return spoilt


def _right_part_dark(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.where(x < 0.75, 1.0, 0.05)


def _half_inverted(microscope: Microscope) -> np.ndarray:
    seen = microscope.transmission(SHIFT)
    seen[:, : SHAPE[1] // 2] = seen.max() + seen.min() - seen[:, : SHAPE[1] // 2]
    return microscope.rng.poisson(microscope.photons * microscope.illumination * seen) * 8 + 100


SPOILT = [
    ("0.05 % hot pixels that the dark does not have", lambda m: _hot(m.expose(SHIFT), 5e-4, 60000)),
    ("1 % hot pixels", lambda m: _hot(m.expose(SHIFT), 0.01, 60000)),
    ("1 % dead pixels", lambda m: _hot(m.expose(SHIFT), 0.01, 101)),
    ("a beam stop that moved into the field", lambda m: _lit_by(m, _right_part_dark).expose(SHIFT)),
    (
        "a beam that lost its right half",
        lambda m: _lit_by(m, lambda y, x: 1 / (1 + np.exp((x - 0.6) / 0.04))).expose(SHIFT),
    ),
    ("a fiftieth of the dose", lambda m: m.expose(SHIFT, scale=0.02)),
    ("blurred by 20 px", lambda m: m.expose(SHIFT, 20.0, 30.0)),
    ("ten dead rows", lambda m: np.r_[m.expose(SHIFT)[:100], np.full((10, SHAPE[1]), 100), m.expose(SHIFT)[110:]]),
    ("contrast inverted in the left half", _half_inverted),
]


@pytest.mark.parametrize(("why", "spoil"), SPOILT, ids=[row[0] for row in SPOILT])
@pytest.mark.parametrize("seed", [3, 4])
def test_a_spoilt_frame_is_registered_right_or_not_at_all(seed: int, why: str, spoil: Callable) -> None:
    microscope = Microscope(SHAPE, seed=seed, photons=1000)
    result = _registrar(microscope).update(spoil(microscope).astype(np.uint16))
    if result.ok:
        error = np.abs(np.subtract(result.shift_yx_px, SHIFT))
        assert (error < 0.5).all(), why
        assert (error < 4 * np.array(result.sigma_yx_px)).all(), why
    else:
        assert result.reason, why


def test_a_lost_frame_leaves_a_gap_and_no_error(microscope: Microscope) -> None:
    pipeline, other = _pipeline(microscope), Microscope(SHAPE, seed=40, photons=1000)
    shifts = [(2.0 * i, -3.0 * i) for i in range(6)]
    for i, shift in enumerate(shifts):
        frame = other.expose() if i == 3 else microscope.expose(shift)
        verdict = pipeline.process(frame, "field")
        assert verdict.located == (i != 3)
        if i != 3:
            assert np.abs(np.subtract(verdict.shift_yx_px, shift)).max() < 0.15


def test_other_samples_never_pass_for_this_one() -> None:
    for seed in range(8):
        mine = Microscope(SHAPE, seed=seed, photons=500)
        theirs = Microscope(SHAPE, seed=seed + 50, photons=500)
        theirs.illumination = mine.illumination
        assert not _registrar(mine).update(theirs.expose()).ok


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f[:-1],
        lambda f: np.where(f > 0, np.nan, 0.0),
        lambda f: np.full_like(f, 65535),
        lambda f: f.astype(complex),
    ],
)
def test_an_unusable_frame_is_not_registered(microscope: Microscope, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    registrar = _registrar(microscope)
    registrar.update(microscope.expose(SHIFT))
    result = registrar.update(spoil(microscope.expose()))
    assert not result.ok
    assert result.reason
    assert np.allclose(result.shift_yx_px, SHIFT, atol=0.2), "the last good one"


def test_one_large_particle_is_enough() -> None:
    # Few strong modes carry the match: it must not be taken for chance.
    microscope = Microscope(SHAPE, seed=2, photons=200)
    registrar, rng = _registrar(microscope), np.random.default_rng(0)
    for _ in range(6):
        shift = rng.normal(0, 8, 2)
        result = registrar.update(microscope.expose(tuple(shift)))
        assert result.ok
        assert np.abs(np.subtract(result.shift_yx_px, shift)).max() < 0.5


@pytest.mark.parametrize("seed", [1, 2])
def test_few_smooth_particles_give_what_they_can_and_say_how_much(seed: int) -> None:
    # No edge, no grain: the window's own edge must not be taken for structure. (Cramer-Rao bound here: 0.025 px.)
    y, x = np.mgrid[0:540, 0:540]
    rng = np.random.default_rng(seed)
    scene = sum(
        np.sqrt(np.clip(1 - ((y - a) ** 2 + (x - b) ** 2) / r**2, 0, None))
        for a, b, r in zip(rng.uniform(0, 540, 14), rng.uniform(0, 540, 14), rng.uniform(45, 100, 14), strict=True)
    )
    smooth = Microscope(SHAPE, seed=seed, photons=1000, scene=ndimage.gaussian_filter(scene, 5.0), n_dust=5)
    registrar, scaled = _registrar(smooth), []
    for _ in range(6):
        shift = rng.normal(0, 8, 2)
        result = registrar.update(smooth.expose(tuple(shift)))
        assert result.ok
        error = np.subtract(result.shift_yx_px, shift)
        assert np.abs(error).max() < 0.3
        scaled.append(error / result.sigma_yx_px)
    assert np.sqrt(np.mean(np.square(scaled))) < 1.7


def test_rejects_in_a_row_are_counted_for_an_alarm(microscope: Microscope) -> None:
    pipeline = _pipeline(microscope)
    exposures = [microscope.expose(), *(microscope.expose(SHIFT, 14.0, 20.0) for _ in range(3))]
    counts = [pipeline.process(frame, "a").consecutive_rejects for frame in exposures]
    counts.append(pipeline.process(np.zeros(SHAPE, np.uint16), "b").consecutive_rejects)
    assert pipeline.consecutive_rejects == 4
    counts.append(pipeline.process(microscope.expose(SHIFT), "a").consecutive_rejects)
    assert counts == [0, 1, 2, 3, 4, 0]


def test_the_blur_limit_is_learnt_from_sharp_frames_and_anew_under_new_conditions() -> None:
    microscope = Microscope(SHAPE, seed=3, photons=2000)
    pipeline = _pipeline(microscope)
    pipeline.set_conditions(8324.0, 0.048)
    assumed = pipeline.blur_limit_px
    assert assumed == pytest.approx(3.75)
    rng = np.random.default_rng(1)
    for i in range(12):
        verdict = pipeline.process(microscope.expose(tuple(rng.normal(0, 6, 2)) if i else (0.0, 0.0)), "a")
        assert verdict.accepted, verdict
    learnt = pipeline.blur_limit_px
    assert 2.0 <= learnt < 0.9 * assumed
    slightly = pipeline.process(microscope.expose((1.0, 2.0), learnt + 1.0, 30.0), "a")
    assert slightly.kind == "blurred"
    pipeline.set_conditions(8324.0, 0.5)
    assert pipeline.blur_limit_px == pytest.approx(assumed)
    pipeline.set_conditions(8324.0, 0.048)
    assert pipeline.blur_limit_px == pytest.approx(learnt)


def test_blurred_frames_do_not_talk_the_limit_up(microscope: Microscope) -> None:
    pipeline = _pipeline(microscope)
    pipeline.process(microscope.expose(), "a")
    for _ in range(6):
        assert pipeline.process(microscope.expose(SHIFT, 8.0), "a").kind == "blurred"
    assert pipeline.blur_limit_px <= 3.75


def _held(thing: object, seen: set[int]) -> tuple[int, int]:
    """Return bytes in arrays and number of items in containers reachable from an object of this package."""
    if id(thing) in seen:
        return 0, 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return thing.nbytes, 0
    if isinstance(thing, dict):
        parts = [*thing.keys(), *thing.values()]
    elif isinstance(thing, (list, tuple, set)) or type(thing).__name__ == "deque":
        parts = list(thing)
    elif type(thing).__module__.startswith("xbat_live"):
        parts = list(vars(thing).values())
    else:
        return 0, 0
    sums = [_held(part, seen) for part in parts]
    return sum(s[0] for s in sums), len(parts) + sum(s[1] for s in sums)


def test_what_is_held_does_not_grow_with_frames() -> None:
    shape = (128, 144)
    microscope = Microscope(shape, seed=2, photons=2000, margin_px=80)
    pipeline = FramePipeline(shape, 0.03324, max_fields=3)
    pipeline.set_flat(microscope.flat)
    rng = np.random.default_rng(0)
    scenes = [microscope.transmission((0.0, 9.0 * i)) for i in range(8)]
    held = []
    for i in range(600):
        counts = rng.poisson(2000 * microscope.illumination * scenes[(i // 3) % 8]) * 8 + 100
        if i % 50 == 0:
            pipeline.set_conditions(8300.0 + i // 50 % 5, 0.01 * (1 + i // 50 % 4))
        pipeline.process(np.clip(counts, 0, 65535).astype(np.uint16), f"spot {i // 40 % 7}")
        if i in (299, 599):
            held.append(_held(pipeline, set()))
    (bytes_half, items_half), (bytes_all, items_all) = held
    assert bytes_all < 1.25 * bytes_half
    assert items_all < 1.25 * items_half


def test_a_registrar_a_screen_and_a_drift_model_hold_no_more_after_many_frames() -> None:
    shape = (64, 64)
    scene = particles((160, 160), 2, radius_px=(3.0, 10.0))
    microscope = Microscope(shape, seed=2, photons=2000, margin_px=48, scene=scene)
    registrar = LiveRegistrar(shape, microscope.flat, microscope.dark, 0.03324, bin=1)
    screen, drift = BlurScreen(shape, microscope.flat, microscope.dark, 0.03324), DriftModel()
    places = [(12 * np.sin(i / 2), 9 * np.cos(i / 3)) for i in range(20)]
    scenes = [microscope.transmission(place) for place in places]
    frames = [
        (microscope.rng.poisson(2000 * microscope.illumination * scenes[i]) * 8 + 100).astype(np.uint16)
        for i in range(20)
    ]
    held, located = [], 0
    for i in range(600):
        result = registrar.update(frames[i % 20])
        located += result.ok
        drift.update(float(i), np.multiply(result.shift_yx_px, 0.03324), (0.001, 0.001))
        if i % 10 == 0:
            screen.update(frames[i // 10 % 20])
        if i in (299, 599):
            held.append(_held([registrar, screen, drift], set()))
    assert located > 400
    (bytes_half, items_half), (bytes_all, items_all) = held
    assert bytes_all <= 1.05 * bytes_half
    assert items_all <= 1.05 * items_half
