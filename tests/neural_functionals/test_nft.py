import pytest
import torch

from neural_functionals.layers import FeatureBlock, WeightLayout, WeightSpaceAttention
from neural_functionals.models import NFT
from neural_functionals.testing import (
    NETWORKS,
    InvariantModelContract,
    example_space,
    random_action,
    random_networks,
)
from zoo.errors import InvalidConfigError

SMALL = {
    "num_blocks": 2,
    "channels": 6,
    "num_heads": 3,
    "expansion": 2,
    "dropout": 0.0,
    "hidden": (7,),
}


class TestNFTMean(InvariantModelContract):
    def make_model(self, space):
        return NFT(space, **SMALL)


class TestNFTAttentionPooling(InvariantModelContract):
    def make_model(self, space):
        return NFT(space, pooling="attention", num_queries=2, num_outputs=2, **SMALL)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_attention_commutes_with_relabelling(name):
    """Acting on weights, then attention, is attention, then acting on each channel."""
    space = example_space(name)
    layout = WeightLayout(space)
    blocks = [FeatureBlock(groups=b.groups, sizes=b.sizes, channels=4) for b in layout.blocks()]
    embed = torch.nn.ModuleList(torch.nn.Linear(b.channels, 4) for b in layout.blocks()).double()
    attention = WeightSpaceAttention(blocks, 4, 2).double()

    def features(weights):
        pieces = zip(layout.gather(weights), embed, strict=True)
        parts = [linear(block).reshape(len(block), -1, 4) for block, linear in pieces]
        return attention(torch.cat(parts, dim=1))

    weights, action = random_networks(space, 2, seed=0), random_action(space, seed=1)
    # The place that each position comes from, read off its number carried as a weight.
    numbers = torch.arange(space.num_parameters, dtype=torch.float64)[None]
    first = [block[..., 0].reshape(-1) for block in layout.gather(numbers)]
    moved = [block[..., 0].reshape(-1) for block in layout.gather(action(numbers))]
    place = {int(number): at for at, number in enumerate(torch.cat(first))}
    source = torch.tensor([place[int(number)] for number in torch.cat(moved)])
    before = features(weights)
    torch.testing.assert_close(features(action(weights)), before[:, source], rtol=0, atol=1e-12)
    assert (before - before[:, source]).abs().max() > 1e-3


def slow_attention(queries, keys, values):
    """Attention by its definition, ``[tokens, features]`` each."""
    scores = queries @ keys.T / queries.shape[1] ** 0.5
    return scores.softmax(dim=1) @ values


def test_attention_is_that_of_the_paper():
    """One head: rows and columns that share neurons attend to each other, and so do the means."""
    blocks = [
        FeatureBlock(groups=("a", "b"), sizes=(3, 5), channels=2),
        FeatureBlock(groups=("a",), sizes=(3,), channels=2),
    ]
    attention = WeightSpaceAttention(blocks, 2, 1).double()
    features = torch.randn(1, 18, 2, dtype=torch.float64)
    q, k, v = attention.project(features)[0].chunk(3, dim=1)

    def tokens_a(x):  # vectors over the units of a: five columns and the bias
        columns = x[:15].reshape(3, 5, 2).transpose(0, 1).reshape(5, 6)
        return torch.cat([columns, x[15:].reshape(1, 6)])

    def tokens_b(x):  # vectors over the units of b: three rows
        return x[:15].reshape(3, 10)

    along_a = slow_attention(*(tokens_a(x) for x in (q, k, v)))
    along_b = slow_attention(*(tokens_b(x) for x in (q, k, v)))
    means = slow_attention(*(torch.stack([x[:15].mean(0), x[15:].mean(0)]) for x in (q, k, v)))
    weight = along_a[:5].reshape(5, 3, 2).transpose(0, 1) + along_b.reshape(3, 5, 2) + means[0]
    bias = along_a[5].reshape(3, 2) + means[1]
    expected = torch.cat([weight.reshape(15, 2), bias])
    torch.testing.assert_close(attention(features)[0], expected)


def test_nested_groups_keep_the_symmetry():
    """Units inside heads: each head's are relabelled by themselves."""
    blocks = [
        FeatureBlock(groups=("head", "unit"), sizes=(2, 3), channels=4, inside=(("unit", "head"),)),
        FeatureBlock(
            groups=("head", "unit", "width"),
            sizes=(2, 3, 5),
            channels=4,
            inside=(("unit", "head"),),
        ),
    ]
    attention = WeightSpaceAttention(blocks, 4, 2).double()
    generator = torch.Generator().manual_seed(0)
    small, large = (
        torch.randn(2, *block.sizes, 4, generator=generator, dtype=torch.float64)
        for block in blocks
    )
    units = torch.tensor([[2, 0, 1], [0, 2, 1]])  # of each new head
    heads, width = torch.tensor([1, 0]), torch.tensor([4, 2, 0, 1, 3])

    def move(block):
        moved = block[:, heads[:, None], units]
        return moved[:, :, :, width] if block.dim() == 5 else moved

    def apply(*parts):
        output = attention(torch.cat([part.reshape(2, -1, 4) for part in parts], dim=1))
        return output[:, :6].reshape(small.shape), output[:, 6:].reshape(large.shape)

    for expected, came in zip(apply(small, large), apply(move(small), move(large)), strict=True):
        torch.testing.assert_close(came, move(expected), rtol=0, atol=1e-12)


def test_inputs_are_told_apart():
    """Attention alone could not: input neurons are treated like hidden ones."""
    space = example_space("mlp")
    weights = random_networks(space, 4, seed=0)
    first = space.tensors[0]
    columns = weights[:, : first.numel].unflatten(1, first.shape)[:, :, [1, 0, 2, 3]].flatten(1)
    moved = torch.cat([columns, weights[:, first.numel :]], dim=1)
    model = NFT(space, **SMALL).double()
    assert (model(moved) - model(weights)).abs().max() > 1e-6


def test_bad_options_are_refused():
    space = example_space("mlp")
    with pytest.raises(InvalidConfigError, match="divides 6 channels, got 4"):
        NFT(space, **SMALL | {"num_heads": 4})
    with pytest.raises(InvalidConfigError, match="'mean' or 'attention'"):
        NFT(space, pooling="max")
    with pytest.raises(InvalidConfigError, match="dropout in"):
        NFT(space, dropout=1.0)
