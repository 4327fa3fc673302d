import numpy as np

from data_gen.streams import Purpose, member_seed, stream


def _numbers(seed: int, purpose: Purpose, step: int) -> tuple[float, ...]:
    return tuple(stream(seed, purpose, step).random(5))


def test_every_member_purpose_and_step_has_numbers_of_its_own():
    drawn = {
        _numbers(seed, purpose, step)
        for seed in (0, 1, 2**62)
        for purpose in Purpose
        for step in (0, 1, 2**40)
    }
    assert len(drawn) == 3 * len(Purpose) * 3


def test_a_stream_is_the_same_however_it_is_cut():
    whole = stream(3, Purpose.DROPOUT, 2).random(35, dtype=np.float32)
    rng = stream(3, Purpose.DROPOUT, 2)
    parts = [rng.random((3, 5), dtype=np.float32), rng.random((4, 5), dtype=np.float32)]
    np.testing.assert_array_equal(np.concatenate([part.ravel() for part in parts]), whole)


def test_member_seeds_differ_and_depend_on_recipe_and_id_alone():
    seeds = [member_seed(recipe, member) for recipe in (0, 1, 7) for member in range(200)]
    assert len(set(seeds)) == 600
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert member_seed(7, 150) == seeds[2 * 200 + 150]


def test_streams_are_uncorrelated():
    rows = np.stack([stream(seed, Purpose.INIT).standard_normal(4000) for seed in range(12)])
    correlation = np.corrcoef(rows) - np.eye(12)
    assert np.abs(correlation).max() < 0.07
