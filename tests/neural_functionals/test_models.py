import pytest
import torch

from neural_functionals.models import (
    MODELS,
    NFN,
    HyperparametersOnly,
    StatNN,
    build_model,
    describe_model,
    restore_model,
)
from neural_functionals.testing import (
    NETWORKS,
    InvariantModelContract,
    ModelContract,
    across_tensors,
    example_space,
    random_networks,
)
from zoo.errors import InvalidConfigError, UnknownNameError


class TestNFNHiddenOnly(InvariantModelContract):
    def make_model(self, space):
        return NFN(space)


class TestNFNAllNeurons(InvariantModelContract):
    def make_model(self, space):
        return NFN(space, variant="np", num_outputs=2)


class TestStatNN(InvariantModelContract):
    non_symmetry = staticmethod(across_tensors)

    def make_model(self, space):
        return StatNN(space)


class TestHyperparametersOnly(ModelContract):
    def make_model(self, space):
        return HyperparametersOnly(3)

    def make_inputs(self, space, count, *, seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, generator=generator, dtype=torch.float64)


def test_np_positions_tell_inputs_apart():
    """Without position features the NP variant could not: its layers are equivariant to inputs."""
    space = example_space("mlp")
    swapped = random_networks(space, 4, seed=0)
    first = space.tensor(space.tensors[0].name)
    columns = swapped[:, : first.numel].unflatten(1, first.shape)[:, :, [1, 0, 2, 3]].flatten(1)
    moved = torch.cat([columns, swapped[:, first.numel :]], dim=1)
    model = NFN(space, variant="np").double()
    assert (model(moved) - model(swapped)).abs().max() > 1e-6


def test_nfn_defaults_are_the_papers():
    model = NFN(example_space("cnn"))
    assert model.config.channels == (16, 16, 5)
    assert [layer.out_features for layer in model.head if hasattr(layer, "out_features")] == [
        1000,
        1000,
        1,
    ]


def test_statistics_are_the_seven_of_each_tensor():
    space = example_space("siren")
    weights = random_networks(space, 3, seed=0)
    ours = StatNN(space).double().statistics(weights).unflatten(1, (-1, 7))
    for i, entries in enumerate(space.unflatten(weights).values()):
        flat = entries.flatten(1)
        quantiles = flat.quantile(torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=flat.dtype), dim=1)
        torch.testing.assert_close(ours[:, i, 0], flat.mean(dim=1))
        torch.testing.assert_close(ours[:, i, 1], flat.var(dim=1, correction=0))
        torch.testing.assert_close(ours[:, i, 2:], quantiles.T)


def test_one_element_tensors_give_no_nan():
    space = example_space("siren")
    assert min(tensor.numel for tensor in space.tensors) == 1
    model = StatNN(space)
    model.fit_statistics(random_networks(space, 9, seed=0))
    assert model(random_networks(space, 2, seed=1).float()).isfinite().all()


OPTIONS = {  # where {"hidden": [7]} is not enough, or unknown
    "boosted-statistics": {"num_trees": 3},
    "linear-statistics": {"features": "weights"},
    "probegen": {"hidden": [7], "network": NETWORKS["mlp"]},
    "sane": {"hidden": [7], "channels": 8, "num_blocks": 1},
}


@pytest.mark.parametrize("name", list(MODELS))
def test_description_restores_the_model(name):
    options = OPTIONS.get(name, {"hidden": [7]})
    space = example_space("mlp")
    model = build_model(name, space=space, num_hyperparameters=3, num_outputs=2, **options)
    other = restore_model(describe_model(model))
    assert type(other) is type(model)
    assert other.config == model.config
    assert getattr(other.config, "hidden", (7,)) == (7,)
    other.load_state_dict(model.state_dict())


def test_unknown_names_list_what_exists():
    space = example_space("mlp")
    with pytest.raises(UnknownNameError, match="Known: hyperparameters, nfn, statnn"):
        build_model("nfnn", space=space, num_hyperparameters=3)
    with pytest.raises(UnknownNameError, match="Known: channels, hidden, variant"):
        build_model("nfn", space=space, num_hyperparameters=3, chanels=(2,))


def test_bad_options_are_refused():
    space = example_space("mlp")
    with pytest.raises(InvalidConfigError, match="'hnp' or 'np'"):
        NFN(space, variant="hmp")
    with pytest.raises(InvalidConfigError, match="at least one layer"):
        NFN(space, channels=())
    with pytest.raises(InvalidConfigError, match="at least one hyper-parameter"):
        HyperparametersOnly(0)
