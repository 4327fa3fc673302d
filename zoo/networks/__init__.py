"""The architectures that recipes use: a frozen configuration each, built into a plain module."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

from torch import Tensor, nn

from zoo.errors import InvalidConfigError, unknown_name
from zoo.networks.activation import ACTIVATIONS, Activation
from zoo.networks.actor_critic import ActorCritic, ActorCriticConfig
from zoo.networks.cnn import CNN, CNNConfig
from zoo.networks.config_fields import plain
from zoo.networks.dropout import Dropout
from zoo.networks.fcn import FCN, FCNConfig
from zoo.networks.lenet import LeNet, LeNetConfig
from zoo.networks.lora import LoRAConfig, LowRankLinear
from zoo.networks.mlp import MLP, MLPConfig
from zoo.networks.recurrent import Recurrent, RecurrentConfig
from zoo.networks.resnet import ResNet, ResNetConfig
from zoo.networks.siren import Siren, SirenConfig
from zoo.networks.tandem import Tandem, TandemConfig
from zoo.networks.transformer import Transformer, TransformerConfig
from zoo.networks.vit import ViT, ViTConfig
from zoo.networks.wild_cnn import WildCNN, WildCNNConfig

__all__ = [
    "ACTIVATIONS",
    "CNN",
    "FACTORY",
    "FCN",
    "MLP",
    "NETWORKS",
    "UNKNOWN",
    "Activation",
    "ActorCritic",
    "ActorCriticConfig",
    "CNNConfig",
    "Dropout",
    "FCNConfig",
    "LeNet",
    "LeNetConfig",
    "LoRAConfig",
    "LowRankLinear",
    "MLPConfig",
    "NetworkConfig",
    "Recurrent",
    "RecurrentConfig",
    "ResNet",
    "ResNetConfig",
    "Siren",
    "SirenConfig",
    "Tandem",
    "TandemConfig",
    "Transformer",
    "TransformerConfig",
    "ViT",
    "ViTConfig",
    "WildCNN",
    "WildCNNConfig",
    "build",
    "example_input",
    "from_dict",
    "to_dict",
]


class NetworkConfig(Protocol):
    """What a network's configuration offers."""

    @property
    def name(self) -> str:
        """Name in :data:`NETWORKS`."""

    def build(self) -> nn.Module:
        """Make the module."""

    def example_input(self, batch: int) -> Tensor:
        """Make an input of the right shape."""


NETWORKS: dict[str, type[Any]] = {
    config.name: config
    for config in (
        MLPConfig,
        CNNConfig,
        LeNetConfig,
        ResNetConfig,
        SirenConfig,
        TandemConfig,
        ActorCriticConfig,
        WildCNNConfig,
        ViTConfig,
        TransformerConfig,
        RecurrentConfig,
        FCNConfig,
        LoRAConfig,
    )
}


UNKNOWN: dict[str, Any] = {
    "name": "unknown",
    "stored": "names and shapes only, without symmetry; build the network yourself",
}
"""Network of a population whose architecture nobody gave when it was converted."""

FACTORY: dict[str, Any] = {"name": "factory"}
"""Network of a population that was converted with a function of the user's, in ``factory``."""


def to_dict(config: NetworkConfig) -> dict[str, Any]:
    """Turn a configuration into plain values, with its name; :func:`from_dict` turns it back.

    A configuration within it, such as that of an adapted base, is turned likewise.
    """
    return plain(config)


def from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """Restore a configuration.

    Raises
    ------
    UnknownNameError
        If no network has that name.
    InvalidConfigError
        If a field is unknown or missing, or the network is not one that this package can build.
    """
    name = values.get("name")
    if name in (UNKNOWN["name"], FACTORY["name"]):
        raise InvalidConfigError(_foreign(values))
    if name not in NETWORKS:
        raise unknown_name("network", name, NETWORKS)
    own = {key: _restored(value) for key, value in values.items() if key != "name"}
    known = [field.name for field in fields(NETWORKS[name])]
    try:
        config: NetworkConfig = NETWORKS[name](**own)
    except TypeError as error:
        raise InvalidConfigError(
            f"Network {name!r} takes {', '.join(known)}; got {', '.join(own)}."
        ) from error
    return config


def build(config: NetworkConfig | Mapping[str, Any]) -> nn.Module:
    """Make the module of a configuration, given as such or as :func:`to_dict` writes it."""
    return (from_dict(config) if isinstance(config, Mapping) else config).build()


def example_input(config: NetworkConfig | Mapping[str, Any], batch: int = 2) -> Tensor:
    """Make an input of the shape that the network takes, with ``batch`` samples."""
    return (from_dict(config) if isinstance(config, Mapping) else config).example_input(batch)


def _restored(value: Any) -> Any:
    """Turn a field's plain value back."""
    if isinstance(value, Mapping) and "name" in value:
        return from_dict(value)
    return tuple(value) if isinstance(value, list) else value


def _foreign(values: Mapping[str, Any]) -> str:
    """Say why a network that was converted cannot be rebuilt, and what to do."""
    way_out = "build the network yourself and load population.state_dict(member_id) into it"
    if values["name"] == FACTORY["name"]:
        return (
            f"This network is made by {values.get('factory')}, outside of this package: {way_out}."
        )
    return (
        "The architecture of these networks is not known: their tensors were converted with names "
        f"and shapes only. Either {way_out}, or convert them again with --network or --factory."
    )
