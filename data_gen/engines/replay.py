"""Steps on a GPU as a graph: recorded once, then replayed without a launch per kernel."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UP = 3
"""Runs before a recording, in which libraries choose algorithms and allocate workspaces."""


class Replay:
    """A step recorded as a CUDA graph [1]_.

    Parameters
    ----------
    body
        The step, given samples ``[N, batch]``; it reads and writes the same tensors every time and
        leaves the host out of it.
    samples
        Indices of the shape that all steps have.
    state
        Tensors that the step changes; the recording leaves them as they are.

    References
    ----------
    .. [1] torch.cuda.CUDAGraph.
    """

    def __init__(
        self, body: Callable[[Tensor], None], samples: Tensor, state: Sequence[Tensor]
    ) -> None:
        self._samples = samples.clone()
        before = [tensor.clone() for tensor in state]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                body(self._samples)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            body(self._samples)
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)

    def __call__(self, samples: Tensor) -> None:
        """Take a step with these samples ``[N, batch]``."""
        self._samples.copy_(samples)
        self._graph.replay()
