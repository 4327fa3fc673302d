"""Convolution filters and phases: numbers by definition, codes by the table."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.errors import InvalidConfigError, UnknownNameError
from zoo.measures import filters
from zoo.measures.phases import (
    PHASES,
    SMALL_CNN,
    PhaseInputs,
    PhaseThresholds,
    fit_thresholds,
    otsu,
    phases,
    votes,
)

LIMITS = PhaseThresholds(
    version="test", train_loss=0.1, log_trace=2, log_eigenvalue=1, connectivity=-0.05, cka=0.8
)


class Net(nn.Module):
    """Kernels of two sizes, one of 1x1, a grouped one, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3)
        self.second = nn.Conv2d(3, 6, (1, 2), groups=3)
        self.point = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, inputs):
        hidden = torch.relu(self.point(torch.relu(self.second(torch.relu(self.first(inputs))))))
        return self.head(hidden.mean((2, 3)))


@pytest.fixture(scope="module")
def space():
    return zoo.trace(Net().eval(), torch.zeros(2, 2, 6, 6))


def population(space, members=3, seed=0):
    return np.random.default_rng(seed).normal(size=(members, space.num_parameters))


# ---- filters ------------------------------------------------------------------------------------
def test_filters_are_found_by_the_roles_of_axes(space):
    assert filters.kernel_tensors(space) == ("first.weight", "second.weight")
    vectors = population(space)
    kernels = space.unflatten(torch.from_numpy(vectors))["first.weight"].numpy()
    found = filters.filters(space, vectors, "first.weight")
    assert found.shape == (3, 6, 9)
    np.testing.assert_array_equal(found[1, 2 * 2 + 1], kernels[1, 2, 1].ravel())
    assert filters.filters(space, vectors, "second.weight").shape == (3, 6, 2)
    assert filters.pooled(space, vectors, "first.weight").shape == (18, 9)
    with pytest.raises(UnknownNameError, match=r"first\.weight"):
        filters.filters(space, vectors, "head.weight")


def test_kernels_may_lie_anywhere(space):
    """A tensor whose kernel axes come first, as of channels-last frameworks."""
    spec = space.tensor("first.weight")
    moved = dataclasses.replace(
        spec,
        shape=(3, 3, 2, 3),
        axes=tuple(spec.axes[axis] for axis in (2, 3, 1, 0)),
    )
    other = dataclasses.replace(space, tensors=(moved, *space.tensors[1:]), groups=())
    vectors = population(other)
    kernels = vectors[:, : moved.numel].reshape(-1, 3, 3, 2, 3)
    found = filters.filters(other, vectors, "first.weight").reshape(3, 2, 3, 9)
    np.testing.assert_array_equal(found[2, 1, 2], kernels[2, :, :, 1, 2].ravel())


def test_principal_components_by_singular_values():
    rng = np.random.default_rng(1)
    layer = rng.normal(size=(40, 9)) @ rng.normal(size=(9, 9)) + 3
    shares, components, mean = filters.principal_components(layer)
    _, singular, rows = np.linalg.svd(layer - layer.mean(0), full_matrices=False)
    np.testing.assert_allclose(shares, singular**2 / (singular**2).sum(), atol=1e-12)
    np.testing.assert_allclose(np.abs((components * rows).sum(1)), 1, atol=1e-9)
    np.testing.assert_allclose(mean, layer.mean(0))
    ratio = singular**2 / (singular**2).sum()
    expected = -sum(share * np.log10(share) for share in ratio)
    assert filters.variance_entropy(layer) == pytest.approx(expected)


def test_entropy_of_known_layers():
    assert filters.variance_entropy(np.ones((5, 9))) == 0
    one_shape = np.outer([1.0, 2, -4], np.arange(9.0))
    assert filters.variance_entropy(one_shape) == pytest.approx(0, abs=1e-9)
    even = np.concatenate([np.eye(4), -np.eye(4)])
    assert filters.variance_entropy(even) == pytest.approx(np.log10(4))


def test_sparsity_counts_filters_below_a_hundredth():
    layer = np.array([[100.0, 0], [0.99, -0.99], [0, 0], [1.01, 0]])
    assert filters.sparsity(layer) == 0.5
    assert filters.sparsity(np.zeros((3, 2))) == 1


def test_published_randomness_agrees_with_simulation():
    for count in (16, 64, 256):
        published = filters.random_entropy(count, 9)
        assert published == pytest.approx(filters.simulated_entropy(count, 9), abs=0.05)
    assert filters.random_entropy(64, 4) == filters.simulated_entropy(64, 4) < np.log10(4)


def test_quality_of_members(space):
    vectors = population(space, 4)
    vectors[1, 0] = np.inf
    start, layer = space.offsets["first.weight"], space.tensor("first.weight")
    vectors[2, start : start + layer.numel] = np.tile(np.arange(9.0), 6)
    found = filters.quality(space, vectors)
    assert set(found) == {"first.weight", "second.weight"}
    own = found["first.weight"]
    for values in (own.sparsity, own.entropy, own.randomness):
        assert np.isnan(values[1])
        assert np.isfinite(values[[0, 2, 3]]).all()
    assert own.entropy[2] == 0
    kernels = filters.filters(space, vectors[:1], "first.weight")[0]
    assert own.entropy[0] == pytest.approx(filters.variance_entropy(kernels))
    assert own.randomness[0] == pytest.approx(own.entropy[0] / filters.random_entropy(6, 9))
    alone = filters.quality(space, vectors[3:])["first.weight"]
    assert alone.entropy[0] == own.entropy[3]


def shift_by_loops(first, second, bins, signs):
    """The shift between two sets of filters, histogram by histogram, for components' signs."""
    sets = [np.array([row / max(abs(row)) for row in rows]) for rows in (first, second)]
    union = np.concatenate(sets)
    _, singular, rows = np.linalg.svd(union - union.mean(0), full_matrices=False)
    coefficients = [(each - union.mean(0)) @ rows.T * signs for each in sets]
    low, high = np.min(np.concatenate(coefficients)), np.max(np.concatenate(coefficients))
    total = 0.0
    for component, value in enumerate(singular**2):
        densities = []
        for each in coefficients:
            counts = np.zeros(bins)
            for number in each[:, component]:
                place = int((number - low) / (high - low) * bins)
                counts[min(place, bins - 1)] += 1
            density = counts / len(each) / ((high - low) / bins)
            density[density == 0] = np.finfo(np.float32).eps
            densities.append(density / density.sum())
        p, q = densities
        divergence = sum(p * np.log(p / q)) + sum(q * np.log(q / p))
        total += value / sum(singular**2) * divergence
    return total


def test_shift_by_definition():
    rng = np.random.default_rng(2)
    first = rng.normal(size=(300, 4)) @ np.diag([4, 2, 1.0, 0.5])
    second = rng.normal(size=(200, 4)) @ np.diag([0.5, 1, 2.0, 4])
    mirrored = filters.shift(second, first, num_bins=6)
    found = filters.shift(first, second, num_bins=6)
    # Components are known up to their sign, which mirrors histograms and their common range.
    options = [
        shift_by_loops(first, second, 6, signs) for signs in itertools.product((1, -1), repeat=4)
    ]
    assert found == pytest.approx(mirrored, rel=1e-9)
    assert min(abs(found - option) for option in options) < 1e-9
    assert filters.shift(first, first) == 0
    with pytest.raises(InvalidConfigError, match="diverged"):
        filters.shift(first, first[:0])
    half = filters.shift(first[:150], first[150:], num_bins=6)
    assert half < found / 5


def test_shifts_per_layer_leave_diverged_members_out(space):
    first, second = population(space, 20), population(space, 20, seed=3)
    start = space.offsets["second.weight"]
    second[:, start : start + space.tensor("second.weight").numel] = 1
    found = filters.layer_shifts(space, first, second, num_bins=5)
    assert found["first.weight"] < 0.5 < found["second.weight"]
    damaged = np.concatenate([first, np.full((2, space.num_parameters), np.nan)])
    assert filters.layer_shifts(space, damaged, second, num_bins=5) == found


# ---- phases -------------------------------------------------------------------------------------
def inputs_of(*rows):
    names = [field.name for field in dataclasses.fields(PhaseInputs)]
    columns = np.array(rows, dtype=np.float64).T
    return PhaseInputs(**dict(zip(names, columns, strict=True)))


@pytest.mark.parametrize(
    ("row", "phase"),
    [
        # train loss, trace, eigenvalue, connectivity, CKA
        ((1.0, 1e3, 1e2, -0.3, 0.9), "I"),
        ((1.0, 1e3, 1e2, 0.3, 0.9), "II"),
        ((0.01, 1, 0.1, -0.3, 0.9), "III"),
        ((0.01, 1, 0.1, -0.01, 0.5), "IV-A"),
        ((0.01, 1, 0.1, 0.01, 0.9), "IV-B"),
        ((1.0, 1, 0.1, 0.3, np.nan), "II"),  # at the level of chance, losses are flat
        ((0.01, 1e3, 1e2, 0.3, 0.9), "II"),
        ((0.01, 1e3, 0.1, 0.3, 0.9), "IV-B"),  # one large number of the Hessian is not enough
        ((0.01, -1e3, -1e2, -0.3, 0.9), "I"),  # magnitudes count
        ((0.01, 1, 0.1, -0.3, np.nan), "III"),
        ((0.01, 1, 0.1, 0.0, np.nan), "undecided"),
        ((0.01, 1, 0.1, np.nan, 0.9), "undecided"),
        ((np.nan, 1, 0.1, 0.0, 0.9), "undecided"),
        ((0.01, np.nan, 0.1, 0.0, 0.9), "undecided"),
        ((0.0, 0.0, 0.0, 0.0, 0.9), "IV-B"),
    ],
)
def test_phases_by_the_table(row, phase):
    codes = phases(inputs_of(row, row), LIMITS)
    assert codes.dtype == np.int8
    assert [PHASES[code] for code in codes] == [phase, phase]


def test_votes_tell_where_criteria_differ():
    found = votes(inputs_of((1.0, 1, 1e2, 0, 1), (0.01, 1, 1, 0, 1)), LIMITS)
    assert found.T.tolist() == [[True, False, True], [False, False, False]]


def planted(count=40, seed=0):
    """A population of five phases, with known codes."""
    rng = np.random.default_rng(seed)
    centres = {
        "I": (1.0, 1e4, 1e3, -0.4, 0.5),
        "II": (1.0, 1e4, 1e3, 0.2, 0.5),
        "III": (1e-3, 10, 1, -0.4, 0.5),
        "IV-A": (1e-3, 10, 1, 0.0, 0.4),
        "IV-B": (1e-3, 10, 1, 0.0, 0.95),
    }
    rows, codes = [], []
    for name, (loss, trace, value, connectivity, cka) in centres.items():
        for _ in range(count):
            noise = rng.normal(size=5)
            rows.append(
                (
                    *(np.array((loss, trace, value)) * 10 ** (0.3 * noise[:3])),
                    connectivity + 0.02 * noise[3],
                    cka + 0.02 * noise[4],
                )
            )
            codes.append(PHASES.index(name))
    return inputs_of(*rows), np.array(codes)


def test_fitted_thresholds_recover_planted_phases():
    inputs, codes = planted()
    limits = fit_thresholds(inputs, base=LIMITS)
    np.testing.assert_array_equal(phases(inputs, limits), codes)
    assert limits.version == "otsu-1"
    order = np.random.default_rng(1).permutation(len(codes))
    shuffled = PhaseInputs(
        **{
            field.name: getattr(inputs, field.name)[order]
            for field in dataclasses.fields(PhaseInputs)
        }
    )
    assert dataclasses.astuple(fit_thresholds(shuffled, base=LIMITS))[1:] == pytest.approx(
        dataclasses.astuple(limits)[1:]
    )


def test_too_little_to_fit_keeps_the_base():
    limits = fit_thresholds(inputs_of((0.01, 1, 0.1, 0.0, 0.9), (np.nan,) * 5), base=LIMITS)
    assert dataclasses.astuple(limits)[1:] == pytest.approx(dataclasses.astuple(LIMITS)[1:])


def test_otsu_by_brute_force():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, 30), rng.normal(4, 2, 20), [np.nan, np.inf]])
    finite = values[np.isfinite(values)]
    middles = (np.sort(finite)[:-1] + np.sort(finite)[1:]) / 2

    def within(cut):
        parts = (finite[finite <= cut], finite[finite > cut])
        return sum(len(part) * part.var() for part in parts)

    assert otsu(values, 0.0) == pytest.approx(min(middles, key=within))
    assert otsu(np.array([3.0, 3.0]), 7.0) == 7
    assert otsu(np.array([1.0, 1, 1, 2]), 7.0) == 1.5


def test_thresholds_are_checked():
    assert SMALL_CNN.version
    with pytest.raises(InvalidConfigError, match="at most 0"):
        dataclasses.replace(LIMITS, connectivity=0.1)
    with pytest.raises(InvalidConfigError, match="positive train loss"):
        dataclasses.replace(LIMITS, train_loss=0)
