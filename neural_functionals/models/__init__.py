"""Networks that read population members: one paper, one file, and a registry of names."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from neural_functionals.models.boosted_statistics import (
    BoostedStatistics,
    BoostedStatisticsConfig,
)
from neural_functionals.models.deepsets import DeepSets, DeepSetsConfig
from neural_functionals.models.dws import DWSNet, DWSNetConfig
from neural_functionals.models.flat_mlp import FlatMLP, FlatMLPConfig
from neural_functionals.models.functional import (
    FittedFunctional,
    ModelConfig,
    NeuralFunctional,
    configure,
    runs_members,
)
from neural_functionals.models.gmn import GMN, GMNConfig
from neural_functionals.models.hyperparameters import (
    HyperparametersOnly,
    HyperparametersOnlyConfig,
)
from neural_functionals.models.linear_statistics import (
    LinearStatistics,
    LinearStatisticsConfig,
)
from neural_functionals.models.matrix_product import (
    MatrixProductNetwork,
    MatrixProductNetworkConfig,
)
from neural_functionals.models.monomial_nfn import MonomialNFN, MonomialNFNConfig
from neural_functionals.models.nfn import NFN, NFNConfig
from neural_functionals.models.nft import NFT, NFTConfig
from neural_functionals.models.ng_gnn import NGGNN, NGGNNConfig
from neural_functionals.models.ng_t import NGT, NGTConfig
from neural_functionals.models.probegen import ProbeGen, ProbeGenConfig
from neural_functionals.models.sane import SANE, SANEConfig
from neural_functionals.models.scalegmn import ScaleGMN, ScaleGMNConfig
from neural_functionals.models.statnn import StatNN, StatNNConfig
from neural_functionals.models.unf import UNF, UNFConfig
from zoo.errors import InvalidConfigError, unknown_name
from zoo.space import WeightSpace

__all__ = [
    "DWSNet",
    "DWSNetConfig",
    "DeepSets",
    "DeepSetsConfig",
    "UNF",
    "UNFConfig",
    "GMN",
    "GMNConfig",
    "MODELS",
    "NGGNN",
    "NGGNNConfig",
    "NGT",
    "NGTConfig",
    "NFN",
    "NFT",
    "SANE",
    "BoostedStatistics",
    "BoostedStatisticsConfig",
    "FittedFunctional",
    "FlatMLP",
    "FlatMLPConfig",
    "HyperparametersOnly",
    "HyperparametersOnlyConfig",
    "LinearStatistics",
    "LinearStatisticsConfig",
    "MatrixProductNetwork",
    "MatrixProductNetworkConfig",
    "ModelConfig",
    "MonomialNFN",
    "MonomialNFNConfig",
    "NFNConfig",
    "NFTConfig",
    "NeuralFunctional",
    "ProbeGen",
    "ProbeGenConfig",
    "SANEConfig",
    "ScaleGMN",
    "ScaleGMNConfig",
    "StatNN",
    "StatNNConfig",
    "build_model",
    "describe_model",
    "model_class",
    "needs_network",
    "restore_model",
    "runs_members",
]

MODELS: dict[str, tuple[type[Any], type[Any]]] = {
    HyperparametersOnly.name: (HyperparametersOnlyConfig, HyperparametersOnly),
    NFN.name: (NFNConfig, NFN),
    StatNN.name: (StatNNConfig, StatNN),
    DeepSets.name: (DeepSetsConfig, DeepSets),
    DWSNet.name: (DWSNetConfig, DWSNet),
    UNF.name: (UNFConfig, UNF),
    NFT.name: (NFTConfig, NFT),
    LinearStatistics.name: (LinearStatisticsConfig, LinearStatistics),
    BoostedStatistics.name: (BoostedStatisticsConfig, BoostedStatistics),
    FlatMLP.name: (FlatMLPConfig, FlatMLP),
    SANE.name: (SANEConfig, SANE),
    ProbeGen.name: (ProbeGenConfig, ProbeGen),
    ScaleGMN.name: (ScaleGMNConfig, ScaleGMN),
    MonomialNFN.name: (MonomialNFNConfig, MonomialNFN),
    MatrixProductNetwork.name: (MatrixProductNetworkConfig, MatrixProductNetwork),
    NGGNN.name: (NGGNNConfig, NGGNN),
    NGT.name: (NGTConfig, NGT),
    GMN.name: (GMNConfig, GMN),
}


def model_class(name: str) -> type[Any]:
    """Return the class of the model called ``name``.

    Raises
    ------
    UnknownNameError
        If no model has that name.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name][1]


def needs_network(name: str, options: Mapping[str, Any]) -> bool:
    """Tell whether a model with some options runs members, and so needs their ``network``.

    Raises
    ------
    UnknownNameError
        If no model, or no field of its configuration, has that name.
    """
    model_class(name)
    return runs_members(configure(MODELS[name][0](), dict(options)))


def build_model(
    name: str,
    *,
    space: WeightSpace,
    num_hyperparameters: int,
    num_outputs: int = 1,
    **overrides: Any,
) -> NeuralFunctional:
    """Make a model by name; ``overrides`` replace fields of its configuration.

    Raises
    ------
    UnknownNameError
        If no model, or no field of its configuration, has that name.
    """
    cls = model_class(name)
    source = space if cls.reads == "weights" else num_hyperparameters
    model: NeuralFunctional = cls(source, num_outputs=num_outputs, **overrides)
    return model


def describe_model(model: NeuralFunctional) -> dict[str, Any]:
    """Plain values from which :func:`restore_model` makes the model again, without its weights.

    Raises
    ------
    InvalidConfigError
        If the model is not one of :data:`MODELS`.
    """
    if MODELS.get(getattr(model, "name", ""), (None, None))[1] is not type(model):
        raise InvalidConfigError(
            f"Expected one of the models {', '.join(MODELS)}, got {type(model).__name__}: "
            "it cannot be restored by name."
        )
    source = model.source
    return {
        "name": model.name,
        "config": asdict(model.config),  # type: ignore[call-overload]
        "num_outputs": model.num_outputs,
        "space": source.to_json() if isinstance(source, WeightSpace) else None,
        "num_hyperparameters": None if isinstance(source, WeightSpace) else source,
    }


def restore_model(description: dict[str, Any]) -> NeuralFunctional:
    """Make the model that :func:`describe_model` described, with fresh weights."""
    cls = model_class(description["name"])
    text = description["space"]
    source = description["num_hyperparameters"] if text is None else WeightSpace.from_json(text)
    model: NeuralFunctional = cls(
        source, num_outputs=description["num_outputs"], **description["config"]
    )
    return model
