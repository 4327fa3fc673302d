"""Canonical points: one per orbit, to the bit; and spaces that are narrowed by hand."""

import pytest
import torch
from architectures import ARCHITECTURES
from torch import nn

import zoo
from zoo.errors import UnknownNameError, WeightSpaceMismatchError
from zoo.symmetry import canonical, orbit_hash, random_weights

NAMES = (
    "mlp-tanh", "small-cnn", "lenet", "mlp-batch-norm", "vit-fused", "residual-mlp",
    "resnet20-projection", "resnext-group-norm", "gpt-grouped-query", "gru", "tied-autoencoder",
)  # fmt: skip


@pytest.fixture(params=NAMES, scope="module")
def space(request):
    torch.manual_seed(0)
    module, inputs = ARCHITECTURES[request.param]()
    return zoo.trace(module, *inputs)


def orbit(space, weights, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([space.sample(generator)(weights) for _ in range(count)])


def weights_of(space, seed, dtype=torch.float32):
    return random_weights(space, torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_relabellings_have_the_same_bits(space, dtype):
    weights = weights_of(space, 1, dtype)
    count = 200 if space.num_parameters < 2000 and dtype is torch.float32 else 20
    points = orbit(space, weights, count)
    assert len(points.float().unique(dim=0)) > 1
    found = space.canonical(points)
    assert found.dtype == dtype
    assert torch.equal(found, space.canonical(weights).expand_as(found))
    assert torch.equal(space.canonical(found), found)


def test_the_canonical_point_is_a_relabelling(space):
    """Sorted, it has the same entries in each tensor; a network of it is tested below."""
    weights = weights_of(space, 2)
    before, after = space.unflatten(weights), space.unflatten(space.canonical(weights))
    for name, value in before.items():
        assert torch.equal(value.ravel().sort().values, after[name].ravel().sort().values)


def test_different_networks_differ(space):
    weights = weights_of(space, 3)
    other = weights.clone()
    other[space.num_parameters // 2] = torch.nextafter(other[space.num_parameters // 2], other[0])
    assert not torch.equal(space.canonical(weights), space.canonical(other))
    assert orbit_hash(space, weights) != orbit_hash(space, other)


def test_coarse_weights_full_of_ties_have_one_point_too(space):
    """With three values only, many units are alike, some of them because others are."""
    weights = weights_of(space, 4).sign() * (weights_of(space, 5) > 0)
    found = space.canonical(orbit(space, weights, 5))
    assert len(found.unique(dim=0)) == 1


def test_units_that_only_their_partners_tell_apart():
    """Two layers joined by the identity: the order of one settles that of the other."""
    module = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    space = zoo.trace(module, torch.zeros(2, 2))
    weights = torch.zeros(space.num_parameters)
    space.unflatten(weights)["2.weight"].copy_(torch.eye(5))
    found = space.canonical(orbit(space, weights, 50))
    assert len(found.unique(dim=0)) == 1
    ring = weights.clone()
    space.unflatten(ring)["2.weight"].copy_(torch.eye(5) + torch.eye(5).roll(1, 0))
    found = space.canonical(orbit(space, ring, 50))
    assert len(found.unique(dim=0)) == 1


def test_the_function_is_kept():
    module, (inputs,) = ARCHITECTURES["vit-fused"]()
    module, inputs = module.double().eval(), inputs.double()
    space = zoo.trace(module, inputs)
    before = module(inputs)
    weights = space.flatten(module.state_dict())
    assert not torch.equal(canonical(space, weights), weights)
    module.load_state_dict(space.state_dict(space.canonical(weights)), strict=False)
    torch.testing.assert_close(module(inputs), before, rtol=1e-9, atol=1e-12)


def test_planted_copies_are_found(space):
    networks = [weights_of(space, seed) for seed in range(6)]
    copies = [orbit(space, networks[at], 1, seed=at)[0] for at in (0, 2, 2, 5)]
    hashes = [orbit_hash(space, weights) for weights in (*networks, *copies)]
    assert len(set(hashes)) == 6
    assert hashes[6:] == [hashes[0], hashes[2], hashes[2], hashes[5]]


def test_batch_axes_and_errors(space):
    points = orbit(space, weights_of(space, 6), 6).reshape(2, 3, -1)
    assert space.canonical(points).shape == points.shape
    assert space.canonical(points[:, :0]).shape == (2, 0, space.num_parameters)
    with pytest.raises(WeightSpaceMismatchError, match="Expected weights of shape"):
        space.canonical(points[..., 1:])


# ---- narrowing by hand ----------------------------------------------------------------


@pytest.fixture(scope="module")
def vit():
    module, inputs = ARCHITECTURES["vit-fused"]()
    return module, inputs, zoo.trace(module, *inputs)


def test_pinned_groups_are_gone_with_what_lies_inside(vit):
    module, inputs, space = vit
    heads = next(group.parent for group in space.groups if group.parent is not None)
    less = space.override(pin=[heads])
    assert {group.name for group in space.groups} - {group.name for group in less.groups} == {
        heads, *(group.name for group in space.groups if group.parent == heads)
    }  # fmt: skip
    bias = less.tensor(f"{heads}.bias").axes[0]
    assert (bias.pin, bias.label) == ("fixed", "by hand")
    assert less.log10_order < space.log10_order
    assert all(each.group != heads for each in (*less.scalings, *less.gl_blocks))
    assert less.verify(module, *inputs).passed
    assert zoo.WeightSpace.from_json(less.to_json()) == less


def test_merged_groups_move_together():
    module = nn.Sequential(
        nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 5), nn.Linear(5, 2)
    )
    inputs = torch.zeros(2, 4)
    space = zoo.trace(module, inputs)
    less = space.override(merge=[("0", "2")])
    assert [group.name for group in less.groups] == ["0", "4"]
    assert {(t.tensor, t.dim) for t in less.group("0").touches} >= {
        ("0.bias", 0), ("2.weight", 0), ("2.weight", 1), ("2.bias", 0), ("4.weight", 1)
    }  # fmt: skip
    assert less.verify(module, inputs).passed
    weights = weights_of(less, 0)
    assert len(less.canonical(orbit(less, weights, 20)).unique(dim=0)) == 1
    assert space.override() == space


def test_overrides_that_make_no_sense(vit):
    _, _, space = vit
    with pytest.raises(UnknownNameError, match="Known: patch"):
        space.override(pin=["nobody"])
    with pytest.raises(WeightSpaceMismatchError, match="11 units inside none and .* with 7"):
        space.override(merge=[("blocks.0.up", "blocks.1.up")])
    with pytest.raises(WeightSpaceMismatchError, match="twice"):
        space.override(merge=[("patch", "patch")])
