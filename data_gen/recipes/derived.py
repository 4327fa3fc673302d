"""Populations whose members begin from stored ones: fine-tuned, pruned, widened, adapted.

They need a population to begin from, ``digits-mlp`` by default: ``zoo generate digits-finetuned
--start digits.zarr``. Members keep their parent's lineage, so that no split parts relatives.
"""

from dataclasses import replace
from typing import Any

from data_gen.distributions import Constant, Grid, LogUniform
from data_gen.recipe import Recipe
from data_gen.recipes.digits import digits_mlp
from data_gen.starts import Prune, Start, Widen
from zoo.networks import LoRAConfig, MLPConfig
from zoo.problems import CORRUPTIONS

_GOOD = "test_accuracy > 0.9"
"""Which parents are worth to begin from."""


def finetuned(*, full: bool = False) -> Recipe:
    """Return networks trained on after a change of their data: one corruption for each member.

    Every parent has eight children, one per corruption (column ``domain``); which one it was can
    be read from their weights. Their test accuracy is that on clean data: what they kept.
    """
    return _children(
        name="digits-finetuned",
        problem={"name": "corrupted", "base": {"name": "digits"}},
        hyperparameters={
            "domain": Grid(tuple(range(1, 1 + len(CORRUPTIONS)))),
            "learning_rate": LogUniform(3e-4, 3e-3),
            "batch_size": Constant(32),
        },
        num_members=len(CORRUPTIONS) * (256 if full else 32),
        description="networks fine-tuned on corrupted digits, one corruption each",
    )


def pruned(*, full: bool = False) -> Recipe:
    """Return sparse twins: the smallest 80 % of the weights are 0 and stay so in training.

    The share is an option, ``--prune 0.5``. A trajectory of growing sparsity is a chain of such
    populations, each begun from the one before.

    The sparse twins of the published zoos [1]_ are found by variational dropout, these by
    magnitude [2]_.

    References
    ----------
    .. [1] Schürholt et al., "Model Zoos: A Dataset of Diverse Populations of Neural Network
       Models", NeurIPS 2022.
    .. [2] Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
       NeurIPS 2015.
    """
    recipe = _children(
        name="digits-pruned",
        problem={"name": "digits"},
        hyperparameters={"learning_rate": Constant(1e-3), "batch_size": Constant(32)},
        num_members=4096 if full else 256,
        description="sparse twins of networks on digits, by magnitude",
        source="Schürholt et al., Model Zoos, NeurIPS 2022; Han et al., NeurIPS 2015",
        departures="pruned by magnitude, not by variational dropout",
    )
    assert recipe.start is not None
    return replace(recipe, start=replace(recipe.start, transform=Prune(fraction=0.8)))


def widened(*, full: bool = False) -> Recipe:
    """Return wider networks with their parents' functions at epoch 0, then trained on [1]_.

    References
    ----------
    .. [1] Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016.
    """
    recipe = _children(
        name="digits-widened",
        problem={"name": "digits"},
        network=MLPConfig(in_features=64, hidden=(48, 48), out_features=10),
        hyperparameters={"learning_rate": Constant(1e-3), "batch_size": Constant(32)},
        num_members=4096 if full else 256,
        description="networks widened without a change of their function, then trained on",
    )
    assert recipe.start is not None
    return replace(recipe, start=replace(recipe.start, transform=Widen()))


def finetuned_lora(*, full: bool = False) -> Recipe:
    """Return low-rank adapters of one network, each trained on one corruption of its data [1]_.

    The base is one member of ``--start``, the first that the condition keeps, whatever its sizes;
    it is the same for all and in no member's vector. Members differ in corruption (column
    ``domain``), learning rate and seed, that is in what their adapters begin with. They descend
    from nobody: no two share a number that was drawn, so that splits may part them.

    References
    ----------
    .. [1] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    """
    return _children(
        name="digits-lora",
        problem={"name": "corrupted", "base": {"name": "digits"}},
        network=LoRAConfig(base=digits_mlp().network, rank=4, alpha=8.0),
        hyperparameters={
            "domain": Grid(tuple(range(1, 1 + len(CORRUPTIONS)))),
            "learning_rate": LogUniform(1e-3, 1e-2),
            "batch_size": Constant(32),
        },
        num_members=len(CORRUPTIONS) * (512 if full else 32),
        description="low-rank adapters of one network, trained on one corruption of digits each",
    )


def _children(*, network: Any = None, **about: Any) -> Recipe:
    parent = digits_mlp()
    return Recipe(
        network=network or parent.network,
        start=Start(zoo="", population=parent.name, where=_GOOD),
        epochs=5,
        checkpoints=(0, 1, 5),
        **about,
    )
