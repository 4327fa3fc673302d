"""Networks that read other networks' weights, and the tasks that train them.

Names are imported on first use, so ``import neural_functionals`` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neural_functionals.models import (
        GMN,
        NFN,
        NFT,
        NGGNN,
        NGT,
        SANE,
        BoostedStatistics,
        FlatMLP,
        HyperparametersOnly,
        LinearStatistics,
        MatrixProductNetwork,
        MonomialNFN,
        ProbeGen,
        ScaleGMN,
        StatNN,
        build_model,
    )
    from neural_functionals.tasks import PropertyRegression, load

_HOME = {
    "GMN": "neural_functionals.models",
    "NGGNN": "neural_functionals.models",
    "NGT": "neural_functionals.models",
    "BoostedStatistics": "neural_functionals.models",
    "FlatMLP": "neural_functionals.models",
    "HyperparametersOnly": "neural_functionals.models",
    "LinearStatistics": "neural_functionals.models",
    "MatrixProductNetwork": "neural_functionals.models",
    "MonomialNFN": "neural_functionals.models",
    "NFN": "neural_functionals.models",
    "NFT": "neural_functionals.models",
    "ProbeGen": "neural_functionals.models",
    "PropertyRegression": "neural_functionals.tasks",
    "SANE": "neural_functionals.models",
    "ScaleGMN": "neural_functionals.models",
    "StatNN": "neural_functionals.models",
    "build_model": "neural_functionals.models",
    "load": "neural_functionals.tasks",
}

__all__ = [
    "GMN",
    "NGGNN",
    "NGT",
    "NFN",
    "NFT",
    "SANE",
    "BoostedStatistics",
    "FlatMLP",
    "HyperparametersOnly",
    "LinearStatistics",
    "MatrixProductNetwork",
    "MonomialNFN",
    "ProbeGen",
    "PropertyRegression",
    "ScaleGMN",
    "StatNN",
    "build_model",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'neural_functionals' has no attribute {name!r}")
