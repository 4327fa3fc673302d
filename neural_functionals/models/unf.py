"""Universal neural functionals: complete equivariant maps for any architecture."""

from dataclasses import dataclass
from typing import Any, ClassVar

from neural_functionals.layers import WeightLayout
from neural_functionals.models.equivariant import EquivariantConfig, EquivariantFunctional
from neural_functionals.models.functional import configure
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class UNFConfig(EquivariantConfig):
    """Options of :class:`UNF`: features per weight after each layer, widths of the head."""

    channels: tuple[int, ...] = (32, 32, 32)
    hidden: tuple[int, ...] = (512, 512)


class UNF(EquivariantFunctional):
    r"""Universal neural functional of Zhou et al. [1]_: any weight space, all its equivariant maps.

    .. math:: f(w) = \mathrm{MLP}(\mathrm{pool}(\sigma L_k \cdots \sigma L_1(\mathrm{norm}(w))))

    with :math:`\sigma` ReLU and :math:`L_i` a complete equivariant linear map: one parameter per
    orbit of index pairs and pair of channels, for tensors that one group moves along several axes
    (recurrent matrices, residual streams, tied layers) too. Pooling keeps the mean of every orbit.

    Parameters
    ----------
    space
        Weight space of the members.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Raises
    ------
    WeightSpaceMismatchError
        If a nested group moves rows of a tensor, and the group around it several axes.

    Notes
    -----
    Departures from the paper. The permutations come from the traced space and are not written by
    hand. Positions that nothing relabels (inputs, outputs, kernel entries) are channels, each
    with parameters of its own, and need no encoding. Inputs are normalised per orbit. Widths are
    ours.

    References
    ----------
    .. [1] Zhou, Finn, Harrison, "Universal Neural Functionals", NeurIPS 2024.

    Examples
    --------
    >>> import torch, zoo
    >>> class Recurrent(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.cell, self.read = torch.nn.RNN(2, 3), torch.nn.Linear(3, 1)
    ...
    ...     def forward(self, x):
    ...         return self.read(self.cell(x)[0])
    >>> space = zoo.trace(Recurrent(), torch.zeros(4, 1, 2))
    >>> UNF(space, channels=(4, 2), hidden=(8,))(torch.zeros(5, space.num_parameters)).shape
    torch.Size([5, 1])
    """

    name: ClassVar[str] = "unf"
    config: UNFConfig

    def __init__(
        self,
        space: WeightSpace,
        config: UNFConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or UNFConfig(), overrides)
        super().__init__(space, config, num_outputs, layout=WeightLayout(space, repeated=True))
