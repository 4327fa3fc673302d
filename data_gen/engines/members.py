"""What every engine needs to know of members: settings, samples, batches, where results go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from data_gen.engines.initialisation import OMEGA, initialise
from data_gen.hyperparameters import HYPERPARAMETERS, as_column
from data_gen.recipe import Recipe
from data_gen.streams import Purpose, stream
from zoo.errors import InvalidConfigError
from zoo.networks import to_dict
from zoo.problems import METRICS, Problem
from zoo.space import WeightSpace

START = "start"
"""Setting with the vectors that members begin from, ``[n]`` objects ``[P]`` float32."""
MASK = "mask"
"""Setting that says which entries of a member may differ from 0, ``[n]`` objects ``[P]`` bool."""
_CLASS_SETTINGS = ("label_noise", "temperature")


@dataclass(frozen=True, kw_only=True)
class BlockResult:
    """What an engine hands back for ``n`` members.

    Parameters
    ----------
    weights
        ``[n, C, P]`` float32, one vector per checkpoint; NaN from a divergence on.
    metrics
        Per metric ``[n, C]`` float32; NaN from a divergence on.
    diverged
        ``[n]`` bool.
    diverged_epoch
        ``[n]`` int64: the epoch in which weights or loss ceased to be finite, -1 for the others.
    """

    weights: np.ndarray = field(repr=False)
    metrics: dict[str, np.ndarray] = field(repr=False)
    diverged: np.ndarray
    diverged_epoch: np.ndarray

    @classmethod
    def empty(
        cls,
        num_members: int,
        num_checkpoints: int,
        num_parameters: int,
        *,
        metrics: tuple[str, ...] = METRICS,
    ) -> "BlockResult":
        """Make a result that is all NaN, nobody diverged."""
        shape = (num_members, num_checkpoints)
        return cls(
            weights=np.full((*shape, num_parameters), np.nan, dtype=np.float32),
            metrics={name: np.full(shape, np.nan, dtype=np.float32) for name in metrics},
            diverged=np.zeros(num_members, dtype=bool),
            diverged_epoch=np.full(num_members, -1, dtype=np.int64),
        )

    def record(
        self,
        position: int,
        epoch: int,
        recipe: Recipe,
        vector: np.ndarray,
        metrics: Mapping[str, float],
    ) -> bool:
        """Keep a checkpoint, or record a divergence if a loss is not finite (and return False)."""
        if not np.isfinite(list(metrics.values())).all():
            self.mark_diverged(position, epoch)
            return False
        checkpoint = recipe.checkpoints.index(epoch)
        self.weights[position, checkpoint] = vector
        for name, value in metrics.items():
            self.metrics[name][position, checkpoint] = value
        return True

    def mark_diverged(self, position: int, epoch: int) -> None:
        """Record that a member diverged during ``epoch``."""
        self.diverged[position] = True
        self.diverged_epoch[position] = epoch


def settings_of(
    recipe: Recipe, hyperparameters: Mapping[str, np.ndarray], num_members: int
) -> dict[str, np.ndarray]:
    """Fill in what a recipe does not vary: every known hyper-parameter, ``[n]`` each."""
    network = to_dict(recipe.network)
    settings = {}
    for name, known in HYPERPARAMETERS.items():
        default = network.get(name) if known.default is None else known.default
        if name in hyperparameters:
            settings[name] = hyperparameters[name]
        elif default is not None:
            settings[name] = as_column(name, [default] * num_members)
    stored = {name: hyperparameters[name] for name in (START, MASK) if name in hyperparameters}
    return settings | stored


def initial_vector(
    recipe: Recipe, space: WeightSpace, settings: Mapping[str, np.ndarray], position: int
) -> np.ndarray:
    """Return a member's initial vector ``[P]``, float32: the same whatever engine trains it.

    It is drawn, unless the member begins from a stored one.
    """
    if START in settings:
        return np.array(settings[START][position], dtype=np.float32)
    return initialise(
        space,
        int(settings["seed"][position]),
        scheme=str(settings["init"][position]),
        scale=float(settings["init_scale"][position]),
        std=float(settings["init_std"][position]),
        omega=float(getattr(recipe.network, "omega", OMEGA)),
        bias=float(settings["init_bias"][position]),
        zeros=getattr(recipe.network, "zeros", ()),
    )


def signals_of(problem: Problem, hyperparameters: Mapping[str, np.ndarray]) -> Sequence[int | None]:
    """Return which signal each member fits, as :meth:`~zoo.problems.Problem.assign` says.

    Raises
    ------
    InvalidConfigError
        If the problem has signals and members have none, or members want what it lacks.
    """
    for name in () if problem.num_classes else _CLASS_SETTINGS:
        if name in hyperparameters:
            raise InvalidConfigError(
                f"Hyper-parameter {name!r} is about classes, and members of problem "
                f"{problem.name!r} fit values. Leave it out of the recipe."
            )
    if not problem.num_signals:
        return [None] * len(hyperparameters["seed"])
    if "signal" not in hyperparameters:
        raise InvalidConfigError(
            f"Members of problem {problem.name!r} fit a signal each, and 'signal' says not which. "
            "Pass what Problem.assign returns with the hyper-parameters."
        )
    return [int(signal) for signal in hyperparameters["signal"]]


def overrides(
    settings: Mapping[str, np.ndarray], recipe: Recipe, position: int
) -> dict[str, object]:
    """Return the network fields that a member's hyper-parameters replace."""
    return {name: settings[name][position] for name in recipe.network_columns}


def samples_of(problem: Problem, settings: Mapping[str, np.ndarray], position: int) -> "Samples":
    """Say which training samples a member sees.

    Raises
    ------
    InvalidConfigError
        If its domain has no samples.
    """
    domain = int(settings["domain"][position])
    pool = None if domain < 0 else problem.samples_of_domain(domain)
    return Samples(
        seed=int(settings["seed"][position]),
        num_samples=len(problem.train_inputs) if pool is None else len(pool),
        data_fraction=float(settings["data_fraction"][position]),
        batch_size=int(settings["batch_size"][position]),
        pool=pool,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Which training samples a member sees, and in which order.

    A member trains on a fixed random subset of ``round(data_fraction * n)`` samples, at least one.
    An epoch is a fresh permutation of it cut into batches; an incomplete last batch is dropped. A
    batch that holds the whole subset has it in ascending order, epoch after epoch.

    Parameters
    ----------
    seed
        The member's.
    num_samples
        Samples of the training set, or of the pool.
    data_fraction, batch_size
        The member's; a batch never exceeds the subset.
    pool
        Indices ``[num_samples]`` of those that it may see, ascending; by default all.
    """

    seed: int
    num_samples: int
    data_fraction: float
    batch_size: int
    pool: np.ndarray | None = None

    @cached_property
    def num_used(self) -> int:
        """Samples of the subset."""
        return max(1, round(self.data_fraction * self.num_samples))

    @cached_property
    def batch(self) -> int:
        """Samples per step."""
        return min(self.batch_size, self.num_used)

    @cached_property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.num_used // self.batch

    @property
    def is_whole(self) -> bool:
        """Whether each batch holds the whole subset, so that all are the same."""
        return self.batch == self.num_used

    @cached_property
    def subset(self) -> np.ndarray:
        """Indices of the subset, ascending, int64."""
        pool = np.arange(self.num_samples) if self.pool is None else self.pool
        if self.num_used == self.num_samples:
            return pool
        order = stream(self.seed, Purpose.SUBSET).permutation(self.num_samples)
        return pool[np.sort(order[: self.num_used])]

    def epoch(self, epoch: int) -> np.ndarray:
        """Batches of one epoch (the first is 0): sample indices ``[steps, batch]``, int64."""
        if self.is_whole:
            return self.subset[None]
        order = stream(self.seed, Purpose.ORDER, epoch).permutation(self.subset)
        return order[: self.steps * self.batch].reshape(self.steps, self.batch)


def noisy_targets(targets: np.ndarray, num_classes: int, seed: int, noise: float) -> np.ndarray:
    """Replace a part ``noise`` of the labels ``[n]`` by other, equally likely ones.

    Which labels and which classes depends on the member's stream only; the test set stays as it is.
    """
    rng = stream(seed, Purpose.LABELS)
    wrong = rng.random(len(targets)) < noise
    shift = rng.integers(1, num_classes, len(targets))
    return np.where(wrong, (targets + shift) % num_classes, targets)
