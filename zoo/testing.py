"""A small real zoo for tests: untrained networks whose size decides their accuracy.

Every number is a function of (seed, member), so any block can be made again, in any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from os import PathLike
from typing import Any

import numpy as np

from zoo.layout import Architecture, Ragged
from zoo.schema import ARCHITECTURE, ARCHITECTURE_COLUMN, ColumnSpec, PopulationSpec
from zoo.space import WeightSpace
from zoo.store import PopulationWriter, Zoo, create

TINY_NETWORK: dict[str, Any] = {
    "name": "mlp",
    "in_features": 4,
    "hidden": [3, 5],
    "out_features": 2,
    "activation": "relu",
    "dropout": 0.0,
}
TINY_ACTIVATIONS = ("relu", "tanh", "gelu")
TINY_COLUMNS = (
    ColumnSpec(name="learning_rate", dtype="float64", scale="log", unit="1/step"),
    ColumnSpec(name="init_scale", dtype="float64"),
    ColumnSpec(
        name="activation", dtype="category", categories=TINY_ACTIVATIONS, scale="categorical"
    ),
    ColumnSpec(name="seed", dtype="int64", role="identity"),
    ColumnSpec(name="lineage", dtype="int64", role="identity"),
    ColumnSpec(name="diverged", dtype="bool", role="result"),
)
TINY_METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


RAGGED_HIDDEN = ((3, 5), (7,), (2, 3, 5))
"""Hidden widths of the architectures of a ragged population."""


def tiny_space() -> WeightSpace:
    """Return the weight space of ``TINY_NETWORK``: 4, 3, 5 and 2 units wide."""
    return _space_of(tuple(TINY_NETWORK["hidden"]))


def tiny_spec(**changes: Any) -> PopulationSpec:
    """Return the spec of a population of 40 members in blocks of 16, with fields changed."""
    spec = PopulationSpec(
        name="tiny",
        space=tiny_space(),
        network=TINY_NETWORK,
        network_columns=("activation",),
        problem={"name": "digits"},
        recipe={"name": "tiny", "seed": 0},
        environment={"engine": "none"},
        num_members=40,
        checkpoints=(0, 2, 5),
        metrics=TINY_METRICS,
        columns=TINY_COLUMNS,
        block_size=16,
    )
    return replace(spec, **changes)


def tiny_block(
    spec: PopulationSpec, members: Sequence[int], *, seed: int = 0, diverged: Sequence[int] = ()
) -> dict[str, Any]:
    """Make the arrays of some members, as ``PopulationWriter.write_block`` takes them.

    Weights are normal with the member's ``init_scale``, which grows over checkpoints; accuracies
    fall with it. Diverged members have NaN weights and metrics at the last checkpoint.
    """
    count = len(spec.checkpoints)
    weights = np.empty((len(members), count, spec.weight_space.num_parameters), dtype=np.float32)
    columns: dict[str, list[Any]] = {column.name: [] for column in spec.columns}
    accuracy = np.empty((len(members), count), dtype=np.float32)
    for row, member in enumerate(members):
        rng = np.random.Generator(np.random.Philox(key=[seed, member]))
        values = _columns(rng, member, is_diverged=member in diverged)
        sizes = values["init_scale"] * np.linspace(0.5, 1.0, count)
        weights[row] = rng.standard_normal(weights.shape[1:]) * sizes[:, None]
        accuracy[row] = 1 / (1 + sizes)
        if member in diverged:
            weights[row, -1], accuracy[row, -1] = np.nan, np.nan
        for name, into in columns.items():
            into.append(values[name])
    metrics = {
        name: accuracy if name.endswith("accuracy") else -np.log(accuracy) for name in spec.metrics
    }
    return {"weights": weights, "metrics": metrics, "columns": columns}


def tiny_population(
    path: str | PathLike[str],
    *,
    seed: int = 0,
    diverged: Sequence[int] = (),
    **changes: Any,
) -> Zoo:
    """Write a finished population, to a new zoo or beside others, and return the zoo.

    Parameters
    ----------
    path
        The zoo.
    seed
        Of every number in it.
    diverged
        Members that blew up.
    **changes
        Fields of the spec, such as ``name`` and ``num_members``.
    """
    zoo = create(path, exist_ok=True)
    writer = zoo.create_population(tiny_spec(**changes))
    for block in range(writer.num_blocks):
        write_tiny_block(writer, block, seed=seed, diverged=diverged)
    writer.finish()
    return zoo


def write_tiny_block(
    writer: PopulationWriter, block: int, *, seed: int = 0, diverged: Sequence[int] = ()
) -> None:
    """Make and commit one block."""
    arrays = tiny_block(writer.spec, writer.members_of(block), seed=seed, diverged=diverged)
    writer.write_block(block, **arrays)


def ragged_spaces() -> tuple[WeightSpace, ...]:
    """Return the weight spaces of ``RAGGED_HIDDEN``."""
    return tuple(_space_of(hidden) for hidden in RAGGED_HIDDEN)


def ragged_spec(of_member: Sequence[int] | None = None, **changes: Any) -> PopulationSpec:
    """Return the spec of a ragged population: perceptrons of three shapes, in blocks of 16.

    Parameters
    ----------
    of_member
        Each member's shape; 40 members that take turns by default.
    **changes
        Fields of the spec, and ``block_size``.
    """
    members = [member % 3 for member in range(40)] if of_member is None else list(of_member)
    architectures = [
        Architecture(
            network={"hidden": list(hidden)},
            space=space.fingerprint,
            num_parameters=space.num_parameters,
        )
        for hidden, space in zip(RAGGED_HIDDEN, ragged_spaces(), strict=True)
    ]
    ragged = Ragged.plan(architectures, members, block_size=changes.pop("block_size", 16))
    network = {key: value for key, value in TINY_NETWORK.items() if key != "hidden"}
    fields = {"name": "ragged", "space": ragged, "network": network, "num_members": len(members)}
    columns = (*TINY_COLUMNS, ARCHITECTURE_COLUMN)
    return tiny_spec(**fields | {"columns": columns, "block_size": 0} | changes)


def ragged_block(
    spec: PopulationSpec, of_member: Mapping[int, int], *, seed: int = 0
) -> dict[str, Any]:
    """Make the arrays of some members, given with their shapes, for ``write_block``.

    Each is what :func:`tiny_block` makes of it in a population of its own shape.
    """
    own = [tiny_spec(space=space, checkpoints=spec.checkpoints) for space in ragged_spaces()]
    made = [tiny_block(own[shape], [member], seed=seed) for member, shape in of_member.items()]
    columns = {name: [each["columns"][name][0] for each in made] for name in made[0]["columns"]}
    return {
        "weights": [each["weights"][0] for each in made],
        "metrics": {
            name: np.concatenate([each["metrics"][name] for each in made]) for name in spec.metrics
        },
        "columns": columns | {ARCHITECTURE: list(of_member.values())},
    }


def ragged_population(
    path: str | PathLike[str],
    *,
    of_member: Sequence[int] | None = None,
    seed: int = 0,
    **changes: Any,
) -> Zoo:
    """Write a finished ragged population and return its zoo; see :func:`ragged_spec`."""
    spec = ragged_spec(of_member, **changes)
    members = [member % 3 for member in range(40)] if of_member is None else of_member
    zoo = create(path, exist_ok=True)
    writer = zoo.create_population(spec, spaces=ragged_spaces())
    for block in range(writer.num_blocks):
        shapes = {member: members[member] for member in writer.members_of(block)}
        writer.write_block(block, **ragged_block(spec, shapes, seed=seed))
    writer.finish()
    return zoo


@cache
def _space_of(hidden: tuple[int, ...]) -> WeightSpace:
    from zoo.networks import build, example_input
    from zoo.symmetry import trace

    network = TINY_NETWORK | {"hidden": list(hidden)}
    return trace(build(network), example_input(network))


def _columns(rng: np.random.Generator, member: int, *, is_diverged: bool) -> dict[str, Any]:
    return {
        "learning_rate": 10 ** rng.uniform(-4, -1),
        "init_scale": rng.uniform(0.1, 2.0),
        "activation": TINY_ACTIVATIONS[member % len(TINY_ACTIVATIONS)],
        "seed": 1000 + member,
        "lineage": member,
        "diverged": is_diverged,
    }
