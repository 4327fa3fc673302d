"""Low-rank adapters on a network that stays as it is: what fine-tuning adds, and nothing else."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InvalidConfigError, WeightSpaceMismatchError, unknown_name
from zoo.networks.dropout import Dropout
from zoo.networks.frozen import freeze, load_base, stand_in

if TYPE_CHECKING:
    from zoo.networks import NetworkConfig

_DOWN, _UP = "lora_A", "lora_B"
"""Names of the two maps, as adapters are commonly stored."""


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """A frozen network with a trainable low-rank map beside each of its linear layers [1]_.

    A layer ``W x + b`` becomes ``W x + b + alpha / rank * B A x`` (Eq. 3 of the paper, scaled as
    in its Sec. 4.1). ``A`` and ``B`` are all that a member consists of; the base's own tensors are
    in no member's vector, and its units stay where they are. Before training, ``B`` is 0 (see
    :attr:`zeros`), so that every member begins as the base.

    Parameters
    ----------
    base
        Network that is adapted: without dropout, running statistics and recurrent layers.
    weights
        File with the base's tensors by name, safetensors or NPZ. In the configuration of a stored
        population, a path relative to the folder of its zoo. While it is empty the base is drawn
        from a fixed seed: good for sizes and symmetry, not for training.
    sha256
        Of the file, in hexadecimal.
    rank
        Inner width of every adapter.
    alpha
        Adapters are multiplied by ``alpha / rank``.
    layers
        Names of the linear layers to adapt, all of them by default.

    References
    ----------
    .. [1] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    """

    name: ClassVar[str] = "lora"

    base: "NetworkConfig"
    weights: str = ""
    sha256: str = ""
    rank: int = 4
    alpha: float = 8.0
    layers: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise InvalidConfigError(
                f"Expected a rank of at least 1 and a positive alpha, got {self.rank} and "
                f"{self.alpha}."
            )
        if bool(self.weights) != bool(self.sha256):
            raise InvalidConfigError(
                "Expected the file of the base's weights together with its sha256, got weights "
                f"{self.weights!r} and sha256 {self.sha256!r}. zoo.networks.frozen.save_base makes "
                "both."
            )
        _ = self.targets

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the layers that have an adapter, in the network's order."""
        base: Any = self.base  # frozen, thus hashable
        return _targets(base, self.layers)

    @property
    def zeros(self) -> tuple[str, ...]:
        """Names of the tensors that are 0 at first, whatever the initialisation."""
        return tuple(f"{layer}.{_UP}.weight" for layer in self.targets)

    def build(self) -> nn.Module:
        """Make the module: the base's tensors from their file, adapters as before training.

        Raises
        ------
        MissingDataError
            If there is no such file.
        WeightSpaceMismatchError
            If the file is another one, or holds tensors of another network.
        """
        module = self.base.build()
        tensors = self._base_tensors(module.state_dict())
        freeze(module, tensors)
        for name in self.targets:
            parent, _, last = name.rpartition(".")
            layer = LowRankLinear(module.get_submodule(name), self.rank, self.alpha)
            setattr(module.get_submodule(parent), last, layer)
        return module

    def _base_tensors(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.weights:
            return stand_in(own)
        found = load_base(self.weights, self.sha256)
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        given = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if shapes != given:
            differing = sorted(
                name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name)
            )
            raise WeightSpaceMismatchError(
                f"Expected the tensors of network {self.base.name!r} in {self.weights}, got others "
                f"under or instead of: {', '.join(differing)}. Is it the file of another network?"
            )
        return {name: found[name].to(tensor) for name, tensor in own.items()}

    def example_input(self, batch: int) -> Tensor:
        """Make an input of the base's."""
        return self.base.example_input(batch)


class LowRankLinear(nn.Module):
    """A linear layer that stays and a low-rank one that is trained, side by side.

    Parameters
    ----------
    linear
        The layer, whose tensors are buffers already.
    rank, alpha
        As in :class:`LoRAConfig`.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        for name in ("weight", "bias"):
            self.register_buffer(name, getattr(linear, name), persistent=False)
        outputs, inputs = self.weight.shape
        self.scale = alpha / rank
        self.lora_A = nn.Linear(inputs, rank, bias=False)
        self.lora_B = nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute ``[..., out]`` of ``[..., in]``."""
        adapted: Tensor = self.lora_B(self.lora_A(inputs)) * self.scale
        return functional.linear(inputs, self.weight, self.bias) + adapted


def merge(config: LoRAConfig, vector: Tensor) -> dict[str, Tensor]:
    """Write a member's adapters into the base's weights: ``W + alpha / rank * B A``.

    Parameters
    ----------
    vector
        A member, ``[P]``, as its population stores it.

    Returns
    -------
    dict[str, Tensor]
        State dict of the base's network, which then computes what the member computes.

    Raises
    ------
    WeightSpaceMismatchError
        If the vector has another length.
    """
    own = dict(config.build().named_parameters())
    sizes = [parameter.numel() for parameter in own.values()]
    if tuple(vector.shape) != (sum(sizes),):
        raise WeightSpaceMismatchError(
            f"Expected a vector of {sum(sizes):,} numbers, the adapters of {', '.join(own)}, got "
            f"shape {list(vector.shape)}."
        )
    parts = zip(own.items(), torch.split(vector, sizes), strict=True)
    adapters = {name: part.view(parameter.shape) for (name, parameter), part in parts}
    merged = config._base_tensors(config.base.build().state_dict())
    for name in config.targets:
        low_rank = adapters[f"{name}.{_UP}.weight"] @ adapters[f"{name}.{_DOWN}.weight"]
        weight = merged[f"{name}.weight"].to(vector)
        merged[f"{name}.weight"] = weight + config.alpha / config.rank * low_rank
    return merged


# ---- bases --------------------------------------------------------------------------------------
@lru_cache(maxsize=256)
def _targets(base: "NetworkConfig", layers: tuple[str, ...]) -> tuple[str, ...]:
    """Check a base; name its linear layers, or those of them that are asked for."""
    if isinstance(base, LoRAConfig):
        raise InvalidConfigError(
            "Expected a plain network as the base of adapters, got one with adapters. Merge them "
            "first: zoo.networks.lora.merge."
        )
    with torch.device("meta"):
        module = base.build()
    _check_base(base.name, module)
    linear = [name for name, each in module.named_modules() if type(each) is nn.Linear]
    for name in layers:
        if name not in linear:
            raise unknown_name("linear layer, the only kind that takes an adapter,", name, linear)
    if not linear:
        raise InvalidConfigError(
            f"Expected linear layers to adapt, got network {base.name!r} without any."
        )
    return tuple(name for name in linear if not layers or name in layers)


def _check_base(name: str, module: nn.Module) -> None:
    """Refuse bases that do not stay as they are, or differ in training."""
    parameters = {each for each, _ in module.named_parameters(remove_duplicate=False)}
    running = sorted(module.state_dict().keys() - parameters)
    if running:
        raise InvalidConfigError(
            f"Expected a base that stays as it is, got network {name!r} with running statistics "
            f"(BatchNorm): {', '.join(running)}. Take a base without normalisation by batches."
        )
    if any(isinstance(each, Dropout) and each.p > 0 for each in module.modules()):
        raise InvalidConfigError(
            f"Expected a base without dropout, got network {name!r} with it. Set its dropout to 0: "
            "that changes nothing in what it computes."
        )
    if any(isinstance(each, nn.RNNBase) for each in module.modules()):
        raise InvalidConfigError(
            f"Adapters have no form for recurrent layers yet, and network {name!r} has such."
        )
