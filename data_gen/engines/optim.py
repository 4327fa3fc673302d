"""Optimisers over flat buffers: one row per member, with its own rule, step size and step count.

The rules are those of ``torch.optim`` [1]_ and agree with it to rounding. Rows are updated in place
and rows of one rule should be neighbours: the buffer is cut into one slice per run of equal rules.

References
----------
.. [1] torch.optim.SGD (``nesterov`` for its flag of that name), Adam, AdamW, RMSprop; default
   betas (0.9, 0.999), alpha 0.99, eps 1e-8.
"""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

_BETA1, _BETA2 = 0.9, 0.999
_ALPHA = 0.99
_EPS = 1e-8
_CLIP_EPS = 1e-6
_TINY = 1e-30
"""Added below square roots, where 0 is slow; its root is far below epsilon's precision."""


def clip(gradients: Tensor, limits: Tensor) -> None:
    """Shorten each row that is longer than its limit, as ``torch.nn.utils.clip_grad_norm_`` does.

    Parameters
    ----------
    gradients
        ``[N, width]``, changed in place.
    limits
        Largest norm per row ``[N]``; 0 lets a row be.
    """
    norms = torch.linalg.vector_norm(gradients, dim=1)
    factors = (limits / (norms + _CLIP_EPS)).clamp_(max=1)
    gradients.mul_(torch.where(limits > 0, factors, 1.0)[:, None])


class FlatOptimizer:
    """The optimisers of a stack of members.

    Parameters
    ----------
    rules
        Per row one of ``sgd``, ``nesterov``, ``adam``, ``adamw``, ``rmsprop``.
    learning_rate, weight_decay, momentum
        Per row ``[N]``, float64. Momentum is heeded by ``sgd`` and ``nesterov`` alone.
    width
        Length of a row.
    has_decay
        False leaves weight decay out; a property of the recipe, never of the rows at hand.
    device
        Where the rows lie.
    """

    def __init__(
        self,
        rules: Sequence[str],
        learning_rate: np.ndarray,
        weight_decay: np.ndarray,
        momentum: np.ndarray,
        *,
        width: int,
        has_decay: bool,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rules = list(rules)
        self.has_decay = has_decay
        self._device = torch.device(device)
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        self._momentum = momentum
        self._steps = np.zeros(len(self.rules), dtype=np.int64)
        self._first = torch.zeros(len(self.rules), width, device=self._device)
        self._second = torch.zeros(len(self.rules), width, device=self._device)
        self._prepare()

    def step(
        self, weights: Tensor, gradients: Tensor, *, factors: np.ndarray | None = None
    ) -> None:
        """Take a step: :meth:`advance`, then :meth:`update`."""
        self.advance(factors)
        self.update(weights, gradients)

    def advance(self, factors: np.ndarray | None = None) -> None:
        """Work out the next step's sizes, on the host, and send them to the device.

        Adam's bias corrections are moved into its step size and epsilon.

        Parameters
        ----------
        factors
            What learning rates are multiplied by in this step, ``[N]`` float64.
        """
        self._steps += 1
        rate = self._learning_rate if factors is None else self._learning_rate * factors
        root = np.where(self._is_adam, np.sqrt(1 - _BETA2**self._steps), 1.0)
        rise = np.where(self._is_adam, 1 - _BETA1**self._steps, 1.0)
        self._send(np.stack([-rate * root / rise, _EPS * root, 1 - rate * self._weight_decay]))

    def update(self, weights: Tensor, gradients: Tensor) -> None:
        """Update ``weights`` in place, both ``[N, width]``; ``gradients`` are overwritten."""
        for rule, rows in self._slices:
            _RULES[rule](self, weights[rows], gradients[rows], rows)

    @property
    def state(self) -> list[Tensor]:
        """What steps change, besides the weights."""
        return [self._first, self._second]

    def select(self, rows: np.ndarray) -> None:
        """Keep these rows, in this order; a row may be named twice."""
        index = torch.from_numpy(rows).to(self._device)
        self.rules = [self.rules[row] for row in rows]
        self._learning_rate, self._weight_decay = (
            self._learning_rate[rows],
            self._weight_decay[rows],
        )
        self._momentum, self._steps = self._momentum[rows], self._steps[rows]
        self._first, self._second = self._first[index], self._second[index]
        self._prepare()

    def _prepare(self) -> None:
        self._slices: list[tuple[str, slice]] = []
        start = 0
        for rule, run in groupby(self.rules):
            stop = start + len(list(run))
            self._slices.append((rule, slice(start, stop)))
            start = stop
        self._is_adam = np.isin(self.rules, ("adam", "adamw"))
        self._decay = self._column(self._weight_decay)
        self._inertia = self._column(self._momentum)
        self._scratch = torch.empty_like(self._first)
        self._sizes = torch.zeros(3, len(self.rules), 1, device=self._device)
        self._minus_rate, self._eps, self._shrink = self._sizes

    def _send(self, sizes: np.ndarray) -> None:
        """Put a step's sizes ``[3, N]`` where :meth:`update` finds them, always the same place."""
        self._sizes.copy_(torch.from_numpy(sizes.astype(np.float32))[..., None])

    def _column(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32))[:, None].to(self._device)

    def _add_decay(self, weights: Tensor, gradients: Tensor, rows: slice) -> None:
        if self.has_decay:
            gradients.addcmul_(weights, self._decay[rows])

    def _sgd(self, weights: Tensor, gradients: Tensor, rows: slice) -> None:
        self._add_decay(weights, gradients, rows)
        velocity = self._first[rows]
        velocity.mul_(self._inertia[rows]).add_(gradients)
        weights.addcmul_(velocity, self._minus_rate[rows])

    def _nesterov(self, weights: Tensor, gradients: Tensor, rows: slice) -> None:
        self._add_decay(weights, gradients, rows)
        velocity = self._first[rows]
        velocity.mul_(self._inertia[rows]).add_(gradients)
        gradients.addcmul_(velocity, self._inertia[rows])
        weights.addcmul_(gradients, self._minus_rate[rows])

    def _adam(self, weights: Tensor, gradients: Tensor, rows: slice) -> None:
        self._add_decay(weights, gradients, rows)
        self._adam_update(weights, gradients, rows)

    def _adamw(self, weights: Tensor, gradients: Tensor, rows: slice) -> None:
        if self.has_decay:
            weights.mul_(self._shrink[rows])
        self._adam_update(weights, gradients, rows)

    def _adam_update(self, weights: Tensor, gradients: Tensor, rows: slice) -> None:
        mean, square, scratch = self._first[rows], self._second[rows], self._scratch[rows]
        mean.lerp_(gradients, 1 - _BETA1)
        square.mul_(_BETA2).addcmul_(gradients, gradients, value=1 - _BETA2)
        torch.add(square, _TINY, out=scratch).sqrt_()
        torch.div(mean, scratch.add_(self._eps[rows]), out=scratch)
        weights.addcmul_(scratch, self._minus_rate[rows])

    def _rmsprop(self, weights: Tensor, gradients: Tensor, rows: slice) -> None:
        self._add_decay(weights, gradients, rows)
        square, scratch = self._second[rows], self._scratch[rows]
        square.mul_(_ALPHA).addcmul_(gradients, gradients, value=1 - _ALPHA)
        torch.add(square, _TINY, out=scratch).sqrt_()
        torch.div(gradients, scratch.add_(_EPS), out=scratch)
        weights.addcmul_(scratch, self._minus_rate[rows])


_RULES: dict[str, Callable[[FlatOptimizer, Tensor, Tensor, slice], None]] = {
    "sgd": FlatOptimizer._sgd,
    "nesterov": FlatOptimizer._nesterov,
    "adam": FlatOptimizer._adam,
    "adamw": FlatOptimizer._adamw,
    "rmsprop": FlatOptimizer._rmsprop,
}
