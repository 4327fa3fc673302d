"""Networks that converted collections need: their tensors, and a verified space for each."""

import pytest
import torch

import zoo
from zoo.errors import InvalidConfigError
from zoo.networks import (
    ActorCriticConfig,
    LeNetConfig,
    ResNetConfig,
    TandemConfig,
    build,
    example_input,
    from_dict,
    to_dict,
)

ACTOR = {"in_features": 5, "num_actions": 2, "hidden": (3, 4)}


def traced(config):
    module = config.build()
    space = zoo.trace(module, config.example_input(2))
    assert space.verify(module, config.example_input(2)).passed
    assert space.unsupported == ()
    return space, {group.name: group for group in space.groups}


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (LeNetConfig(in_channels=3, image_size=32, out_features=10), 62_006),
        (ResNetConfig(depth=20), 269_722),  # 0.27 million in the paper, 0.46 for 32 layers
        (ResNetConfig(depth=32), 464_154),
        (TandemConfig(num_fractions=11, num_choices=6, num_outputs=11), 20_380),
        (ActorCriticConfig(in_features=5, num_actions=2, hidden=(3, 4)), 83),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_sizes_and_round_trip(config, count):
    assert sum(parameter.numel() for parameter in build(config).parameters()) == count
    assert from_dict(to_dict(config)) == config
    assert example_input(config, batch=3).shape[0] == 3


def test_residual_networks_share_units_along_shortcuts():
    _, groups = traced(ResNetConfig(depth=8, width=4, image_size=8, out_features=3))
    stream = {touch.tensor for touch in groups["stem"].touches}
    ends = {f"blocks.{block}.conv2.weight" for block in range(3)}
    assert ends | {"blocks.1.conv1.weight", "head.weight", "norm.running_var"} <= stream
    assert groups["stem"].size == 4
    assert "stem.weight" not in {t.tensor for t in groups["blocks.0.conv1"].touches}
    # planes of zeros that a shortcut adds are units of their own: all reach the head
    reaching = [g for g in groups.values() if "head.weight" in {t.tensor for t in g.touches}]
    assert sum(group.size for group in reaching) == 16


def test_a_tandem_relabels_within_each_perceptron_only():
    config = TandemConfig(num_fractions=2, num_choices=3, num_outputs=4, hidden=(6, 7))
    _, groups = traced(config)
    assert sorted(group.size for group in groups.values()) == [6, 6, 7, 7]
    design, performance = config.build()(torch.randn(5, 4))
    assert design.shape == (5, 5)
    assert performance.shape == (5, 4)
    torch.testing.assert_close(design[:, 2:].sum(1), torch.ones(5))
    assert bool(((design >= 0) & (design <= 1)).all())


def test_noise_that_depends_on_features_moves_with_them():
    _, plain = traced(ActorCriticConfig(**ACTOR, noise="action"))
    _, noisy = traced(ActorCriticConfig(**ACTOR, noise="state"))
    assert "log_std" not in {t.tensor for t in plain["policy.2"].touches}
    assert ("log_std", 0) in {(t.tensor, t.dim) for t in noisy["policy.2"].touches}


def test_noise_is_that_of_the_paper():
    module = ActorCriticConfig(**ACTOR, noise="state").build()
    with torch.no_grad():
        module.log_std.normal_()
    observation = torch.randn(4, 5)
    features = module.policy(observation)
    draws = torch.randn(20_000, 4, 2) * module.log_std.exp()  # one matrix per exploration
    actions = torch.einsum("bh,dha->dba", features, draws)
    torch.testing.assert_close(module(observation)[2], actions.std(0), rtol=0.05, atol=0.01)


def test_bad_configurations_are_refused():
    for wrong in (
        lambda: ResNetConfig(depth=18),
        lambda: TandemConfig(num_fractions=0, num_choices=1, num_outputs=1),
        lambda: ActorCriticConfig(in_features=5, num_actions=2, hidden=()),
    ):
        with pytest.raises(InvalidConfigError, match="Expected"):
            wrong()
