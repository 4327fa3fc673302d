"""Neural functional networks: equivariant layers, invariant pooling, a fully connected head."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from neural_functionals.layers import WeightLayout
from neural_functionals.models.equivariant import (
    EquivariantConfig,
    EquivariantFunctional,
    Positions,
)
from neural_functionals.models.functional import configure
from zoo.errors import InvalidConfigError
from zoo.space import PinKind, WeightSpace

_FREE: dict[str, tuple[PinKind, ...]] = {"hnp": (), "np": ("input", "output")}


@dataclass(frozen=True, kw_only=True)
class NFNConfig(EquivariantConfig):
    """Options of :class:`NFN`; the defaults are the paper's for predicting generalisation.

    Parameters
    ----------
    variant
        ``"hnp"``: only hidden neurons may be relabelled. ``"np"``: inputs and outputs too, told
        apart by sinusoidal features of their positions.
    num_bands, max_frequency
        Position features (``"np"`` only): ``2 num_bands + 1`` per weight, up to ``max_frequency /
        2`` half-waves over the positions.
    """

    variant: Literal["hnp", "np"] = "hnp"
    num_bands: int = 6
    max_frequency: float = 10.0


class NFN(EquivariantFunctional):
    r"""Neural functional network of Zhou et al. [1]_ on any weight space.

    .. math:: f(w) = \mathrm{MLP}(\mathrm{mean}(\sigma L_k \cdots \sigma L_1(\mathrm{norm}(w))))

    with :math:`\sigma` ReLU, :math:`L_i` the complete equivariant linear maps (Eq. (3) and (4) and
    Theorem 3; :class:`~neural_functionals.layers.EquivariantLinear`) and the mean over neurons per
    tensor (Sec. 2.3).

    Parameters
    ----------
    space
        Weight space of the members.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Notes
    -----
    Departures from the paper. Layers come from the space, so BatchNorm and flattened convolutions
    need no rule of their own. Inputs are normalised per orbit: statistics per entry, as in the
    authors' code, break the invariance of the NP variant. Weights start so that outputs have unit
    variance.

    References
    ----------
    .. [1] Zhou et al., "Permutation Equivariant Neural Functionals", NeurIPS 2023.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> NFN(space, channels=(4, 2), hidden=(8,))(torch.zeros(5, space.num_parameters)).shape
    torch.Size([5, 1])
    """

    name: ClassVar[str] = "nfn"
    config: NFNConfig

    def __init__(
        self,
        space: WeightSpace,
        config: NFNConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or NFNConfig(), overrides)
        if config.variant not in _FREE or config.num_bands < 1:
            raise InvalidConfigError(
                f"Expected variant 'hnp' or 'np' for NFN and at least one band, got "
                f"{config.variant!r} and {config.num_bands}."
            )
        layout = WeightLayout(space, free=_FREE[config.variant], repeated=True)
        positions = PositionFeatures(
            layout,
            known={group.name for group in space.groups},
            num_bands=config.num_bands,
            max_frequency=config.max_frequency,
        )
        super().__init__(space, config, num_outputs, layout=layout, positions=positions)


class PositionFeatures(Positions):
    """Tells positions of freed axes apart: sines, cosines and the position itself [1]_.

    Parameters
    ----------
    layout
        Where the features go.
    known
        Neuron groups of the space: any other group of the layout is a freed axis.

    References
    ----------
    .. [1] Zhou et al., "Permutation Equivariant Neural Functionals", NeurIPS 2023, Sec. 2.4 and
       appendix.
    """

    def __init__(
        self, layout: WeightLayout, *, known: set[str], num_bands: int, max_frequency: float
    ) -> None:
        super().__init__()
        self.num_features: list[int] = []
        self._names: list[str | None] = []
        for i, block in enumerate(layout.blocks()):
            parts = [
                _waves(block.sizes, axis, num_bands, max_frequency)
                for axis, group in enumerate(block.groups)
                if group not in known
            ]
            name = f"block{i}" if parts else None
            if name is not None:
                self.register_buffer(name, torch.cat(parts, dim=-1), persistent=False)
            self._names.append(name)
            self.num_features.append(sum(part.shape[-1] for part in parts))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Append position features to blocks ``[batch, *sizes, channels]`` that have freed axes."""
        return [
            block if name is None else _append(block, self.get_buffer(name))
            for block, name in zip(features, self._names, strict=True)
        ]


def _append(block: Tensor, waves: Tensor) -> Tensor:
    """Concatenate features ``[*sizes, extra]`` to each member of ``[batch, *sizes, channels]``."""
    return torch.cat([block, waves.expand(block.shape[0], *waves.shape)], dim=-1)


def _waves(sizes: tuple[int, ...], axis: int, num_bands: int, max_frequency: float) -> Tensor:
    """Position features of one axis, repeated along the others, ``[*sizes, 2 num_bands + 1]``."""
    position = torch.linspace(-1.0, 1.0, sizes[axis]) if sizes[axis] > 1 else torch.zeros(1)
    frequency = torch.linspace(1.0, max(max_frequency / 2, 1.0), num_bands) * pi
    angle = position[:, None] * frequency
    waves = torch.cat([angle.sin(), angle.cos(), position[:, None]], dim=-1)
    shape = [1] * len(sizes) + [waves.shape[-1]]
    shape[axis] = sizes[axis]
    return waves.reshape(shape).expand(*sizes, -1)
