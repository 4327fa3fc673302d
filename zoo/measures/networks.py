"""What measures look at: networks of one architecture, and samples with a loss."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace

Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs and targets of one network, ``[samples, ...]`` each, to the mean loss, 0-d."""

_BATCH = 500


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy, in nats, of logits ``[samples, classes]``."""
    return functional.cross_entropy(outputs, targets)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean squared error of outputs ``[samples, values]``."""
    return functional.mse_loss(outputs, targets)


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """Samples that measures are taken on.

    Parameters
    ----------
    inputs
        ``[samples, ...]``.
    targets
        ``[samples, ...]``; of members with targets of their own ``[n, samples, ...]``.
    loss
        Mean loss of one network's outputs; :func:`cross_entropy` or :func:`squared_error`.
    own_targets
        Whether each member has targets of its own (signals).
    """

    inputs: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    loss: Loss = cross_entropy
    own_targets: bool = False

    def __post_init__(self) -> None:
        axis = int(self.own_targets)
        if self.targets.ndim <= axis or self.targets.shape[axis] != len(self.inputs):
            wanted = f"[n, {len(self.inputs)}, ...]" if axis else f"[{len(self.inputs)}, ...]"
            raise InvalidConfigError(
                f"Expected targets of shape {wanted} for {len(self.inputs)} inputs, got "
                f"{list(self.targets.shape)}. Do members have targets of their own?"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def targets_of(self, member: int) -> Tensor:
        """Return targets ``[samples, ...]`` of the member at a position."""
        return self.targets[member] if self.own_targets else self.targets

    def part(self, chosen: slice | Tensor) -> "Samples":
        """Keep some samples, by a slice or by positions ``[k]``, int64."""
        targets = self.targets[:, chosen] if self.own_targets else self.targets[chosen]
        return Samples(
            inputs=self.inputs[chosen],
            targets=targets,
            loss=self.loss,
            own_targets=self.own_targets,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Networks:
    """Networks of one architecture, as points of its weight space.

    Every number about a member is computed from this member alone, so it is the same in any
    company.

    Parameters
    ----------
    module
        The architecture, in evaluation mode; its own weights are never read.
    space
        Its weight space.
    vectors
        ``[n, P]``, of the module's dtype: parameters first, then buffers.
    """

    module: nn.Module = field(repr=False)
    space: WeightSpace = field(repr=False)
    vectors: Tensor

    def __post_init__(self) -> None:
        self.space.check_vector(self.vectors)
        if self.vectors.ndim != 2:
            raise InvalidConfigError(
                f"Expected weights of shape [n, P], got {list(self.vectors.shape)}."
            )
        if self.module.training:
            raise InvalidConfigError("Expected a module in evaluation mode; call module.eval().")

    @property
    def num_members(self) -> int:
        """Number of members."""
        return len(self.vectors)

    @cached_property
    def finite(self) -> np.ndarray:
        """Which members have finite weights, ``[n]`` bool; measures of the others are NaN."""
        found: np.ndarray = torch.isfinite(self.vectors).all(-1).numpy()
        return found

    def each(self, measure: Callable[[int], float]) -> np.ndarray:
        """Take a measure of each member, given its position; ``[n]`` float64, NaN if diverged."""
        found = np.full(self.num_members, np.nan)
        for member in np.flatnonzero(self.finite):
            found[member] = measure(int(member))
        return found

    def part(self, chosen: slice | Tensor) -> "Networks":
        """Keep some members, by a slice or by positions ``[k]``, int64."""
        return Networks(module=self.module, space=self.space, vectors=self.vectors[chosen])

    def call(self, vector: Tensor, inputs: Tensor) -> Tensor:
        """Compute the outputs of one network ``[P]``, differentiably."""
        return _tensor(functional_call(self.module, self.space.state_dict(vector), (inputs,)))

    def outputs(self, inputs: Tensor, *, batch_size: int = _BATCH) -> Tensor:
        """Compute the outputs of all members.

        Returns
        -------
        Tensor
            ``[n, samples, ...]``, without gradient; whatever diverged members compute.
        """
        with torch.no_grad():
            return torch.stack(
                [
                    torch.cat(
                        [self.call(vector, batch) for batch in torch.split(inputs, batch_size)]
                    )
                    for vector in self.vectors
                ]
            )

    def losses(self, samples: Samples, *, batch_size: int = _BATCH) -> np.ndarray:
        """Compute the mean loss of each member, ``[n]`` float64; NaN for diverged members."""
        return self.each(
            lambda member: self.loss(member, self.vectors[member], samples, batch_size)
        )

    def loss(
        self, member: int, vector: Tensor, samples: Samples, batch_size: int = _BATCH
    ) -> float:
        """Compute the mean loss of weights ``[P]`` with the targets of the member at a position."""
        targets, total = samples.targets_of(member), 0.0
        with torch.no_grad():
            for start in range(0, len(samples), batch_size):
                here = slice(start, start + batch_size)
                inputs = samples.inputs[here]
                loss = samples.loss(self.call(vector, inputs), targets[here])
                total += float(loss) * len(inputs)
        return total / len(samples)


def generator_of(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make the source of a member's random numbers."""
    return torch.Generator(device=device).manual_seed(int(seed))


def _tensor(value: Tensor) -> Tensor:
    return value
