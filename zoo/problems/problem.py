"""What a member is trained for: data, targets, and how well weights solve it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.problems.scores import (
    METRICS,
    REGRESSION_METRICS,
    SIGNAL_METRICS,
    score,
    score_regression,
    score_signals,
)

_TRAIN_PROBE = 10_000
_EVALUATION_BATCH = 2_000

Field = Callable[[Tensor], Tensor]
"""Networks as functions that can be differentiated: points ``[networks, n, coordinates]`` to values
``[networks, n, values]``."""
Exact = Callable[[int, Tensor], Tensor]
"""Given a network's position and samples ``[k, ...]``, its float64 logits ``[k, classes]``."""


class Equation(Protocol):
    """A differential equation with its side conditions, whose solution members are."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the numbers that :meth:`score` returns."""

    def loss(self, field: Field, points: Tensor, targets: Tensor, signals: Tensor) -> Tensor:
        """Compute what members minimise, ``[networks]``.

        Parameters
        ----------
        points
            ``[networks, n, coordinates]``, inside of the domain.
        targets
            Right-hand side there, ``[networks, n, values]``.
        signals
            Which of the problem's equations each member solves, ``[networks]`` int64.
        """

    def score(self, problem: "Problem", field: Field, signals: Tensor) -> dict[str, Tensor]:
        """Measure solutions, ``[networks]`` each."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """A problem, in memory.

    There are four kinds:

    - classes that all members tell apart, by cross-entropy;
    - values that all members predict (regression), by least squares;
    - a signal for each member to fit at shared coordinates, by least squares;
    - a differential equation for each member to solve.

    Parameters
    ----------
    name
        For titles and file names.
    config
        What :func:`zoo.problems.load` takes to make the problem again.
    train_inputs, test_inputs
        ``[n, ...]``, float32, or int64 tokens. Of signals, the coordinates, and no test part
        (``[0, ...]``).
    train_targets, test_targets
        Classes ``[n]``, int64; values of a regression ``[n, values]``, float32; signals
        ``[signals, n, values]``, float32 in [-peak/2, peak/2] or [0, peak]. Of an equation, its
        right-hand side, and the reference solution as test part, shaped as signals.
    num_classes
        Number of classes; 0 where there are none.
    peak
        Range of a signal's values.
    labels
        Per signal ``[signals]``, int64: what it shows. Empty where that is unknown.
    signal_columns
        What else is known of each signal, ``[signals]`` float64 each: an amplitude, a coefficient.
    equation
        The differential equation, where members solve one.
    domains
        Per training sample ``[n]``, int64: which part of the data it is from (a corruption, a
        class, a writer); a member may train on one part alone. Empty where there are no parts.
    domain_names
        Names of the domains, by number.
    licence, source
        Of the data, for data cards: under which licence it is had, and from whom.
    """

    name: str
    config: dict[str, Any]
    train_inputs: Tensor = field(repr=False)
    train_targets: Tensor = field(repr=False)
    test_inputs: Tensor = field(repr=False)
    test_targets: Tensor = field(repr=False)
    num_classes: int
    peak: float = 1.0
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), repr=False)
    signal_columns: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    equation: Equation | None = None
    domains: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), repr=False)
    domain_names: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""

    @property
    def num_signals(self) -> int:
        """Signals or equations, one for each member; 0 where all members have the same targets."""
        return len(self.train_targets) if self.train_targets.ndim == 3 else 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the numbers recorded at every checkpoint; the last one says how good it is."""
        if self.equation is not None:
            return self.equation.metrics
        if self.num_classes:
            return METRICS
        return SIGNAL_METRICS if self.num_signals else REGRESSION_METRICS

    def assign(
        self, members: np.ndarray, signals: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Say what is each member's own: ``signal``, and what is known of it.

        Parameters
        ----------
        members
            Ids ``[n]``.
        signals
            Which signal each member fits, ``[n]``; by default member ``k`` fits ``k`` modulo their
            number.

        Returns
        -------
        dict[str, np.ndarray]
            Columns ``[n]``: ``signal`` and, where known, ``label``, int64, and those of
            ``signal_columns``, float64; none where all members have the same targets.

        Raises
        ------
        InvalidConfigError
            If there is no such signal.
        """
        if not self.num_signals:
            return {}
        own = np.asarray(members, np.int64) % self.num_signals if signals is None else signals
        if own.min() < 0 or own.max() >= self.num_signals:
            raise InvalidConfigError(
                f"Expected signals from 0 to {self.num_signals - 1} of problem {self.name!r}, got "
                f"{own.min()} to {own.max()}."
            )
        known = {"label": self.labels} if len(self.labels) else {}
        about = known | dict(self.signal_columns)
        return {"signal": own} | {name: values.numpy()[own] for name, values in about.items()}

    def targets_of(self, signal: int | None = None) -> Tensor:
        """Return the training targets ``[n, ...]`` of a member that fits ``signal``."""
        return self.train_targets if signal is None else self.train_targets[signal]

    def samples_of_domain(self, domain: int) -> np.ndarray:
        """Return the training samples of a part of the data, ascending, int64.

        Raises
        ------
        InvalidConfigError
            If there are none.
        """
        found = np.flatnonzero(self.domains.numpy() == domain)
        if not len(found):
            known = sorted(set(self.domains.tolist()))
            raise InvalidConfigError(
                f"Expected a domain of problem {self.name!r} ({known or 'it has none'}), got "
                f"{domain}."
            )
        return found

    @property
    def train_probe(self) -> tuple[Tensor, Tensor]:
        """The first 10,000 training samples: training metrics are measured on these."""
        return self.train_inputs[:_TRAIN_PROBE], self.train_targets[:_TRAIN_PROBE]

    @property
    def parts(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Inputs and targets that metrics are measured on: ``train`` and ``test``."""
        return {"train": self.train_probe, "test": (self.test_inputs, self.test_targets)}

    @cached_property
    def sha256(self) -> str:
        """Hash of all numbers: equal data, equal hash."""
        digest = hashlib.sha256()
        for tensor in (
            self.train_inputs,
            self.train_targets,
            self.test_inputs,
            self.test_targets,
        ):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def measure(
    problem: Problem,
    outputs: Callable[[Tensor], Tensor],
    *,
    signals: Sequence[int | None],
    exact: Exact,
    field: Field,
) -> dict[str, Tensor]:
    """Compute a problem's metrics of many networks, whatever computes their outputs.

    Parameters
    ----------
    outputs
        From inputs ``[n, ...]`` to the outputs of all networks ``[networks, n, ...]``, on the CPU.
    signals
        Which signal each network fits; ``None`` where the problem has none.
    exact
        Decides classes that float32 cannot tell apart; see :func:`zoo.problems.score`.
    field
        The networks as functions that can be differentiated; only equations ask.

    Returns
    -------
    dict[str, Tensor]
        Per name of ``problem.metrics`` ``[networks]``, float32.
    """
    if problem.equation is not None:
        return problem.equation.score(problem, field, torch.tensor(signals))
    if problem.num_signals:
        wanted = torch.stack([problem.targets_of(signal) for signal in signals])
        values = score_signals(outputs(problem.train_inputs), wanted, peak=problem.peak)
        return dict(zip(SIGNAL_METRICS, values, strict=True))
    found: list[Tensor] = []
    for inputs, targets in problem.parts.values():
        if problem.num_classes:
            found += score(outputs(inputs), targets, decide=_decide(exact, inputs))
        else:
            found += score_regression(outputs(inputs), targets)
    return dict(zip(problem.metrics, found, strict=True))


def _decide(exact: Exact, inputs: Tensor) -> Callable[[int, Tensor], Tensor]:
    return lambda network, samples: exact(network, inputs[samples])


def evaluate(problem: Problem, module: nn.Module, *, signal: int | None = None) -> dict[str, float]:
    """Measure one network on a problem.

    Parameters
    ----------
    module
        Any module from inputs to logits ``[batch, num_classes]``, or to values ``[batch, values]``;
        it is evaluated in eval mode.
    signal
        Which signal it fits, where the problem has signals: a member's column ``signal``.

    Returns
    -------
    dict[str, float]
        The problem's ``metrics``.

    Raises
    ------
    InvalidConfigError
        If the problem has signals and none is named, or the other way round.
    """
    if (signal is not None) != bool(problem.num_signals):
        raise InvalidConfigError(
            f"Expected the number of a signal exactly where a problem has signals, got {signal} "
            f"for problem {problem.name!r} with {problem.num_signals}. A member's column 'signal' "
            "says which it fits."
        )
    was_training = module.training
    module.eval()
    try:
        values = measure(
            problem,
            lambda inputs: _outputs(module, inputs)[None],
            signals=[signal],
            exact=lambda _, inputs: _exact(module, inputs),
            field=lambda points: module(points[0])[None],
        )
    finally:
        module.train(was_training)
    return {name: float(value) for name, value in values.items()}


@torch.no_grad()
def _outputs(module: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([module(batch) for batch in torch.split(inputs, _EVALUATION_BATCH)])


@torch.no_grad()
def _exact(module: nn.Module, inputs: Tensor) -> Tensor:
    """Compute in float64; the module comes back in float32."""
    module.double()
    try:
        output: Tensor = module(in_float64(inputs))
    finally:
        module.float()
    return output


def in_float64(inputs: Tensor) -> Tensor:
    """Turn numbers into float64 and leave tokens as they are."""
    return inputs.double() if inputs.is_floating_point() else inputs
