"""Metrics of a stack of members."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from data_gen.engines.execution import StackedProgram, sections_of
from data_gen.engines.graph import Program
from data_gen.engines.memory import fitting_members
from data_gen.engines.operators import Stack
from data_gen.recipe import Recipe
from zoo.networks import build, to_dict
from zoo.problems import Problem, in_float64, measure
from zoo.space import WeightSpace

_SAMPLES = 500
"""Samples per pass: a fixed number, since products of another height round differently."""


_ROW_MULTIPLE = 32


def padded_rows(members: int, width: int, device: torch.device) -> Tensor:
    """Make zeros ``[members, width]`` whose rows start aligned, all alike."""
    return torch.zeros(members, -(-width // _ROW_MULTIPLE) * _ROW_MULTIPLE, device=device)[
        :, :width
    ]


class Evaluator:
    """Measures members on a problem, many at a time.

    Parameters
    ----------
    recipe, problem, space
        What the members are.
    programs
        Per activation, the graphs in training and evaluation mode.
    device
        Where weights are.
    """

    def __init__(
        self,
        recipe: Recipe,
        problem: Problem,
        space: WeightSpace,
        programs: Callable[[str], tuple[Program, Program]],
        *,
        device: torch.device,
    ) -> None:
        self._recipe, self._space, self._programs = recipe, space, programs
        self._device = device
        self._problem = problem
        self._modules: dict[str, nn.Module] = {}

    def measure(
        self,
        vectors: Tensor,
        activations: list[str],
        *,
        signals: Sequence[int | None],
        fixed_size: int | None,
    ) -> dict[str, Tensor]:
        """Compute the problem's metrics, ``[n]`` each.

        Parameters
        ----------
        vectors
            ``[n, P]``.
        activations
            Per member, neighbours alike where possible.
        signals
            Per member which signal it fits, ``None`` where the problem has none.
        fixed_size
            Members per pass; ``None`` takes all at once, or on a GPU as many as its memory holds.
        """
        size = fixed_size or max(min(len(vectors), self._most(activations[0])), 2)
        measured: dict[str, list[Tensor]] = {}
        for start in range(0, len(vectors), size):
            own, kinds = vectors[start : start + size], activations[start : start + size]
            measuring = self._measure_pass(own, kinds, signals[start : start + size], size)
            for name, values in measuring.items():
                measured.setdefault(name, []).append(values)
        return {name: torch.cat(values) for name, values in measured.items()}

    def _most(self, activation: str) -> int:
        if self._device.type == "cpu":
            return self._recipe.num_members
        footprint = self._programs(activation)[1].footprint
        return fitting_members(self._device.type, _SAMPLES, footprint)

    def _measure_pass(
        self,
        vectors: Tensor,
        activations: list[str],
        signals: Sequence[int | None],
        size: int,
    ) -> dict[str, Tensor]:
        ghosts = size - len(vectors)
        rows = padded_rows(len(vectors) + ghosts, vectors.shape[1], vectors.device)
        rows[: len(vectors)], rows[len(vectors) :] = vectors, vectors[0]
        kinds = sections_of([*activations, *[activations[0]] * ghosts])
        program = StackedProgram([(self._programs(kind)[1], count) for kind, count in kinds])
        tensors = self._space.unflatten(rows)
        count = len(vectors)
        return measure(
            self._problem,
            lambda inputs: self._outputs(program, tensors, inputs)[:count],
            signals=signals,
            exact=lambda position, inputs: self._exact(
                activations[position], vectors[position], inputs
            ),
            field=lambda points: self._field(program, tensors, points)[:count],
        )

    def _field(self, program: StackedProgram, tensors: dict[str, Tensor], points: Tensor) -> Tensor:
        """Compute values at every member's points ``[n, k, ...]``; ghosts see the first one's."""
        members = len(next(iter(tensors.values())))
        ghosts = points[:1].expand(members - len(points), *points.shape[1:])
        own = torch.cat([points, ghosts]).to(self._device)
        return program(tensors, own, Stack(points.shape[1]))[0].cpu()

    @torch.no_grad()
    def _outputs(
        self, program: StackedProgram, tensors: dict[str, Tensor], inputs: Tensor
    ) -> Tensor:
        """Compute outputs ``[N, samples, ...]`` on the CPU."""
        members = len(next(iter(tensors.values())))
        parts = []
        for batch in torch.split(inputs.to(self._device), _SAMPLES):
            shared = batch.expand(members, *batch.shape)
            parts.append(program(tensors, shared, Stack(len(batch)))[0].cpu())
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def _exact(self, activation: str, vector: Tensor, inputs: Tensor) -> Tensor:
        """Compute a member's outputs in float64."""
        tensors = self._space.state_dict(vector.cpu().double())
        output: Tensor = functional_call(self._module(activation), tensors, (in_float64(inputs),))
        return output

    def _module(self, activation: str) -> nn.Module:
        """Return the plain module of members with an activation; its own weights do not matter."""
        if activation not in self._modules:
            config = to_dict(self._recipe.network)
            if activation:
                config["activation"] = activation
            self._modules[activation] = build(config).double().eval()
        return self._modules[activation]
