"""What a run will do: which blocks it trains, in which calls, at what cost."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import zoo
from data_gen import hyperparameters as hp
from data_gen.engines import Engine
from data_gen.recipe import Recipe
from zoo.networks import build, example_input, to_dict
from zoo.problems import Problem
from zoo.schema import ColumnSpec, PopulationSpec
from zoo.space import WeightSpace
from zoo.store import PopulationWriter

_EXAMPLES = 2


@dataclass(frozen=True)
class Task:
    """Blocks that one call of an engine trains."""

    blocks: tuple[int, ...]
    num_members: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run before it starts.

    Parameters
    ----------
    tasks
        What is left to train.
    num_members, num_done
        Members of the population, and those that are stored already.
    epochs
        Epochs per member.
    num_parameters, num_checkpoints
        Numbers per checkpoint, and checkpoints per member.
    bytes_needed
        Disk space that the tasks will take.
    """

    tasks: tuple[Task, ...]
    num_members: int
    num_done: int
    epochs: int
    num_parameters: int
    num_checkpoints: int
    bytes_needed: int

    @property
    def member_epochs(self) -> int:
        """Work left, in member-epochs."""
        return (self.num_members - self.num_done) * self.epochs

    def __str__(self) -> str:
        left = self.num_members - self.num_done
        done = f", {self.num_done} are stored already" if self.num_done else ""
        return (
            f"{left} members to train{done}: {self.member_epochs} member-epochs, "
            f"{self.num_parameters:,} numbers each, {self.bytes_needed / 2**20:.1f} MiB on disk"
        )


def space_of(recipe: Recipe) -> WeightSpace:
    """Trace the recipe's network."""
    return zoo.trace(build(recipe.network), example_input(recipe.network, _EXAMPLES))


def population_spec(
    recipe: Recipe, problem: Problem, space: WeightSpace, *, environment: dict[str, str]
) -> PopulationSpec:
    """Declare the population of a recipe.

    Besides ``seed`` and the recipe's hyper-parameters, members have ``lineage`` (their own id),
    ``diverged`` and ``diverged_epoch`` (-1 for those that did not); members that fit a signal each
    have ``signal``, and ``label`` where it is known what signals show.
    """
    identity = (
        ColumnSpec(name="seed", dtype="int64", role="identity", description="seed of all draws"),
        ColumnSpec(name="lineage", dtype="int64", role="identity", description="oldest ancestor"),
    )
    results = (
        ColumnSpec(name="diverged", dtype="bool", role="result", description="became non-finite"),
        ColumnSpec(
            name="diverged_epoch",
            dtype="int64",
            role="result",
            unit="epochs",
            description="epoch in which the member diverged, -1 if it did not",
        ),
    )
    varied = tuple(hp.column_spec(name, item) for name, item in recipe.hyperparameters.items())
    return PopulationSpec(
        name=recipe.name,
        space=space,
        network=to_dict(recipe.network),
        network_columns=recipe.network_columns,
        problem=recipe.problem,
        recipe=identity_of(recipe, problem),
        environment=environment,
        num_members=recipe.num_members,
        checkpoints=recipe.checkpoints,
        metrics=problem.metrics,
        columns=(*identity, *_signal_columns(problem), *varied, *results),
    )


def _signal_columns(problem: Problem) -> tuple[ColumnSpec, ...]:
    about = {"signal": "which signal the member fits", "label": "class of what the signal shows"}
    return tuple(
        ColumnSpec(name=name, dtype="int64", role="identity", description=about[name])
        for name in problem.assign(np.arange(1))
    )


def identity_of(recipe: Recipe, problem: Problem) -> dict[str, Any]:
    """Return the recipe as JSON, with its hash and that of the data it ran on."""
    return recipe.to_dict() | {"sha256": recipe.sha256, "problem_sha256": problem.sha256}


def make_plan(recipe: Recipe, writer: PopulationWriter, engine: Engine, *, workers: int) -> Plan:
    """Plan what is left: calls big enough to be efficient, yet at least one per worker.

    Which blocks share a call changes speed, never a number.
    """
    committed = writer.committed
    left = [block for block in range(writer.num_blocks) if block not in committed]
    wanted = max(1, engine.members_per_call(recipe) // writer.block_size) if left else 1
    size = min(wanted, max(1, -(-len(left) // workers)))
    groups = [tuple(left[start : start + size]) for start in range(0, len(left), size)]
    done = sum(len(writer.members_of(block)) for block in committed)
    return Plan(
        tasks=tuple(
            Task(group, sum(len(writer.members_of(block)) for block in group)) for group in groups
        ),
        num_members=recipe.num_members,
        num_done=done,
        epochs=recipe.epochs,
        num_parameters=writer.spec.weight_space.num_parameters,
        num_checkpoints=len(recipe.checkpoints),
        bytes_needed=writer.bytes_needed(),
    )
