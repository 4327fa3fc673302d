"""Named populations: the published grids to the last member, and networks whose space is proved."""

import numpy as np
import pytest

import zoo
from data_gen.recipe import Recipe
from data_gen.recipes import RECIPES, recipe
from data_gen.recipes.modelzoos import IMAGES
from zoo.networks import build, example_input

MODELZOOS = [name for name in RECIPES if name.startswith("modelzoos-")]


def networks_of(made: Recipe, most: int = 3):
    """Return the networks of a recipe's first members, each once."""
    found = {}
    for fields in made.network_fields(np.arange(min(made.num_members, 12))):
        network = made.of_architecture(fields).network
        found[str(network)] = network
    return list(found.values())[:most]


NETWORKS = {str(each): each for name in RECIPES for each in networks_of(RECIPES[name]())}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda network: network.name)
def test_every_network_traces_to_a_proved_space(network):
    """Small defaults; nothing in them is unsupported, and something may be relabelled."""
    space = zoo.trace(build(network), example_input(network, 2), strict=True)
    assert not space.unsupported
    assert space.groups


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("full", [False, True])
def test_recipes_are_whole(name, full):
    made = recipe(name, full=full)
    assert made.name == name
    assert made.description
    assert Recipe.from_json(made.to_json()) == made
    drawn = made.draw(np.arange(min(5, made.num_members)))
    assert set(drawn) == {"seed", *made.hyperparameters}


def test_modelzoos_come_to_the_published_numbers():
    """50,360 networks in 27 zoos with 2,585,360 states (Schürholt et al., Table 1)."""
    zoos = [recipe(name, full=True) for name in MODELZOOS]
    assert len(zoos) == 27
    assert sum(each.num_members for each in zoos) == 50_360
    assert sum(each.num_members * len(each.checkpoints) for each in zoos) == 2_585_360


@pytest.mark.parametrize("images", IMAGES, ids=lambda images: images.name)
def test_modelzoos_grids_hold_every_configuration_with_ten_seeds(images):
    for kind, seeds in (("fixed", 10), ("random", None)):
        made = recipe(f"modelzoos-{images.name}-hyper-{kind}", full=True)
        drawn = made.draw(np.arange(made.num_members))
        names = [name for name in drawn if name != "seed"]
        configurations = {}
        for row in zip(*(drawn[name] for name in names), strict=True):
            configurations[row] = configurations.get(row, 0) + 1
        assert len(configurations) * 10 == made.num_members
        assert set(configurations.values()) == {10}
        assert len(set(drawn["seed"].tolist())) == (seeds or made.num_members)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("mnist", 2_464), ("cifar10-s", 2_864), ("cifar10-l", 10_853), ("stl10-l", 10_853)],
)
def test_modelzoos_networks_have_the_published_size(name, parameters):
    network = recipe(f"modelzoos-{name}-seed", full=True).network
    assert sum(each.numel() for each in build(network).parameters()) == parameters


def test_resnet18_has_its_usual_size():
    network = recipe("modelzoos-cifar10-resnet18", full=True).network
    assert sum(each.numel() for each in build(network).parameters()) == 11_173_962


def test_the_phase_grid_is_the_published_one():
    """192 ResNets: eight widths, eight batch sizes, three seeds."""
    made = recipe("phase-resnet", full=True)
    assert made.num_members == 192
    widths = [fields["width"] for fields in made.network_fields(np.arange(192))]
    drawn = made.draw(np.arange(192))
    found = set(zip(widths, drawn["batch_size"].tolist(), drawn["seed"].tolist(), strict=True))
    assert len(found) == 192
    assert sorted(set(widths)) == [2**k for k in range(1, 9)]
    assert len(set(drawn["seed"].tolist())) == 3


def test_a_pinn_grid_runs_through_equations_and_rates():
    made = recipe("pinn-convection", full=True)
    drawn = made.draw(np.arange(made.num_members))
    found = set(zip(drawn["signal"].tolist(), drawn["learning_rate"].tolist(), strict=True))
    assert len(found) == made.grid_size == 70
    assert made.num_members == 700
