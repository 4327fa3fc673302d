"""Populations of text classifiers."""

from dataclasses import replace
from typing import Any

from data_gen.distributions import Choice, Distribution, LogUniform, Uniform
from data_gen.recipe import Recipe
from data_gen.recipes.sizes import in_small
from zoo.networks import RecurrentConfig, TransformerConfig

_SPREAD: dict[str, Distribution] = {
    "learning_rate": LogUniform(3e-4, 3e-2),
    "optimizer": Choice(("adam", "adamw", "rmsprop")),
    "weight_decay": LogUniform(1e-6, 1e-1),
    "dropout": Uniform(0.0, 0.5),
    "batch_size": Choice((32, 64)),
    "data_fraction": Choice((0.1, 0.25, 0.5, 1.0)),
}
_WORDS, _LENGTH = 1024, 32


def sentiment_lstm(*, full: bool = False) -> Recipe:
    """Return LSTMs on the two classes of the Stanford sentiment treebank."""
    return _recurrent("sentiment-lstm", "lstm", full=full)


def sentiment_gru(*, full: bool = False) -> Recipe:
    """Return GRUs on the two classes of the Stanford sentiment treebank."""
    return _recurrent("sentiment-gru", "gru", full=full)


def sentiment_transformer(*, full: bool = False) -> Recipe:
    """Return transformers on the two classes of the Stanford sentiment treebank."""
    return _transformer("sentiment-transformer", _sentiment(full=full), classes=2, full=full)


def news_transformer(*, full: bool = False) -> Recipe:
    """Return transformers on the four topics of AG News."""
    words = {"vocabulary_size": 4096, "context_length": 320} if full else _short()
    problem = {"name": "ag-news", **words}
    return _transformer("news-transformer", problem, classes=4, full=full)


def _short() -> dict[str, Any]:
    return {"vocabulary_size": _WORDS, "context_length": _LENGTH, "truncate": True}


def _sentiment(*, full: bool) -> dict[str, Any]:
    words = {"vocabulary_size": 2048, "context_length": 96} if full else _short()
    return {"name": "sst2", **words}


def _recurrent(name: str, cell: Any, *, full: bool) -> Recipe:
    problem = _sentiment(full=full)
    network = RecurrentConfig(
        vocabulary=problem["vocabulary_size"],
        length=problem["context_length"],
        in_features=64 if full else 8,
        hidden=64 if full else 8,
        out_features=2,
        cell=cell,
    )
    recipe = _population(name, problem, network, f"{cell.upper()}s that tell sentiments apart")
    return recipe if full else in_small(recipe, num_members=16, epochs=2, data_fraction=0.2)


def _transformer(name: str, problem: dict[str, Any], *, classes: int, full: bool) -> Recipe:
    network = TransformerConfig(
        vocabulary=problem["vocabulary_size"],
        length=problem["context_length"],
        out_features=classes,
    )
    if not full:
        network = replace(network, width=16, depth=1, heads=2, hidden=32)
    recipe = _population(name, problem, network, "small transformers that read texts")
    return recipe if full else in_small(recipe, num_members=16, epochs=2, data_fraction=0.2)


def _population(name: str, problem: dict[str, Any], network: Any, description: str) -> Recipe:
    return Recipe(
        name=name,
        problem=problem,
        network=network,
        hyperparameters=_SPREAD,
        num_members=1000,
        epochs=20,
        checkpoints=(0, 1, 2, 5, 10, 20),
        description=description,
    )
