"""What a run will do: which blocks it trains, in which calls, at what cost."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_gen import hyperparameters as hp
from data_gen.ancestors import PARENT, Ancestors
from data_gen.engines import Engine
from data_gen.ragged import trace_network
from data_gen.recipe import Recipe
from zoo.layout import Ragged
from zoo.networks import to_dict
from zoo.problems import Problem
from zoo.schema import ARCHITECTURE_COLUMN, ColumnSpec, PopulationSpec
from zoo.space import WeightSpace
from zoo.store import PopulationWriter

_MOST_MEMBERS = 1024
"""Members of one task, however many architectures they have."""


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
    num_architectures
        Architectures that members have; ``num_parameters`` is a mean where there are several.
    """

    tasks: tuple[Task, ...]
    num_members: int
    num_done: int
    epochs: int
    num_parameters: int
    num_checkpoints: int
    bytes_needed: int
    num_architectures: int = 1

    @property
    def member_epochs(self) -> int:
        """Work left, in member-epochs."""
        return (self.num_members - self.num_done) * self.epochs

    def __str__(self) -> str:
        left = self.num_members - self.num_done
        done = f", {self.num_done} are stored already" if self.num_done else ""
        kinds = ""
        if self.num_architectures > 1:
            kinds = f"{self.num_architectures:,} architectures, about "
        return (
            f"{left} members to train{done}: {self.member_epochs} member-epochs, "
            f"{kinds}{self.num_parameters:,} numbers each, "
            f"{self.bytes_needed / 2**20:.1f} MiB on disk"
        )


def space_of(recipe: Recipe) -> WeightSpace:
    """Trace the recipe's network."""
    return trace_network(json.dumps(to_dict(recipe.network)))


def population_spec(
    recipe: Recipe,
    problem: Problem,
    space: WeightSpace | Ragged,
    *,
    environment: dict[str, str],
    ancestors: Ancestors | None = None,
) -> PopulationSpec:
    """Declare the population of a recipe.

    Besides ``seed`` and the recipe's hyper-parameters, members have ``lineage`` (their own id, or
    that of the member they begin from), ``diverged`` and ``diverged_epoch`` (-1 for those that did
    not); members that fit a signal each have ``signal``, ``label`` where it is known what signals
    show, and whatever else the problem knows of them; members that begin from stored ones have
    ``parent``, members of several architectures ``architecture`` and what these say of themselves.
    """
    view = recipe if ancestors is None else ancestors.recipe
    varied = tuple(hp.column_spec(name, item) for name, item in view.hyperparameters.items())
    taken = {column.name for column in varied}
    signals = tuple(each for each in _signal_columns(problem) if each.name not in taken)
    parent = () if ancestors is None else (_PARENT,)
    network = to_dict(recipe.network)
    about: tuple[ColumnSpec, ...] = ()
    if recipe.architectures is not None:
        replaced = recipe.network_fields(np.arange(1))[0]
        network = {name: value for name, value in network.items() if name not in replaced}
        about = (ARCHITECTURE_COLUMN, *recipe.architectures.columns)
    return PopulationSpec(
        name=recipe.name,
        space=space,
        network=network,
        network_columns=view.network_columns,
        problem=recipe.problem,
        recipe=identity_of(recipe, problem, ancestors),
        environment=environment,
        num_members=recipe.num_members,
        checkpoints=recipe.checkpoints,
        metrics=problem.metrics,
        columns=(*_IDENTITY, *parent, *about, *signals, *varied, *_RESULTS),
    )


_IDENTITY = (
    ColumnSpec(name="seed", dtype="int64", role="identity", description="seed of all draws"),
    ColumnSpec(name="lineage", dtype="int64", role="identity", description="oldest ancestor"),
)
_PARENT = ColumnSpec(
    name=PARENT,
    dtype="int64",
    role="identity",
    description="id of the stored member that the member begins from",
)
_RESULTS = (
    ColumnSpec(name="diverged", dtype="bool", role="result", description="became non-finite"),
    ColumnSpec(
        name="diverged_epoch",
        dtype="int64",
        role="result",
        unit="epochs",
        description="epoch in which the member diverged, -1 if it did not",
    ),
)


def _signal_columns(problem: Problem) -> tuple[ColumnSpec, ...]:
    about = {"signal": "which signal the member fits", "label": "class of what the signal shows"}
    return tuple(
        ColumnSpec(
            name=name,
            dtype="int64" if name in about else "float64",
            role="identity",
            description=about.get(name, "known of the signal that the member fits"),
        )
        for name in problem.assign(np.arange(1))
    )


def identity_of(
    recipe: Recipe, problem: Problem, ancestors: Ancestors | None = None
) -> dict[str, Any]:
    """Return the recipe as JSON, with its hash and those of the data and weights it began with."""
    hashes = {"sha256": recipe.sha256, "problem_sha256": problem.sha256}
    about = {
        "problem_name": problem.name,
        "problem_licence": problem.licence,
        "problem_source": problem.source,
    }
    known = {name: text for name, text in about.items() if text}
    return recipe.to_dict() | hashes | known | ({} if ancestors is None else ancestors.identity)


def listed_architectures(recipe: Recipe) -> list[Recipe]:
    """Return the recipe as members of its architectures see it: all it lists, or the first drawn.

    Without architectures, the recipe itself.
    """
    if recipe.architectures is None:
        return [recipe]
    count = recipe.architectures.num_places or 1
    fields = recipe.network_fields(np.arange(min(count, recipe.num_members)))
    return [recipe.of_architecture(each) for each in fields]


def make_plan(recipe: Recipe, writer: PopulationWriter, engine: Engine, *, workers: int) -> Plan:
    """Plan what is left: calls big enough to be efficient, yet at least one per worker.

    Which blocks share a call changes speed, never a number.
    """
    committed = writer.committed
    left = [block for block in range(writer.num_blocks) if block not in committed]
    wanted = max(1, _members_per_task(recipe, engine) // writer.block_size) if left else 1
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
        num_parameters=_numbers_per_member(writer),
        num_checkpoints=len(recipe.checkpoints),
        bytes_needed=writer.bytes_needed(),
        num_architectures=_num_architectures(writer),
    )


def _members_per_task(recipe: Recipe, engine: Engine) -> int:
    """Return how many members fill an engine, of every architecture if these are enumerated."""
    if recipe.architectures is None:
        return engine.members_per_call(recipe)
    if not recipe.architectures.num_places:
        return 1  # hardly any two are alike
    first = recipe.of_architecture(recipe.architectures.at(0))
    return min(engine.members_per_call(first) * recipe.architectures.num_places, _MOST_MEMBERS)


def _numbers_per_member(writer: PopulationWriter) -> int:
    space = writer.spec.space
    if isinstance(space, Ragged):
        return -(-space.row_length // space.block_size)
    return space.num_parameters


def _num_architectures(writer: PopulationWriter) -> int:
    space = writer.spec.space
    return len(space.architectures) if isinstance(space, Ragged) else 1
