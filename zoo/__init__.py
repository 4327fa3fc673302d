"""What a population of neural networks is, and what is known of it: spaces, stores, datasets.

Names are imported on first use, so ``import zoo`` and ``zoo --help`` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.datamodule import ZooDataModule
    from zoo.datasets import WeightBatch, ZooDataset
    from zoo.errors import ZooError, ZooWarning
    from zoo.space import WeightSpace
    from zoo.store import Members, Population, Zoo, concat, create, open
    from zoo.symmetry.trace import trace

_HOME = {
    "Members": "zoo.store",
    "Population": "zoo.store",
    "WeightBatch": "zoo.datasets",
    "WeightSpace": "zoo.space",
    "Zoo": "zoo.store",
    "ZooDataModule": "zoo.datamodule",
    "ZooDataset": "zoo.datasets",
    "ZooError": "zoo.errors",
    "ZooWarning": "zoo.errors",
    "concat": "zoo.store",
    "create": "zoo.store",
    "open": "zoo.store",
    "trace": "zoo.symmetry.trace",
}

__version__ = "0.1.0"
__all__ = [
    "Members",
    "Population",
    "WeightBatch",
    "WeightSpace",
    "Zoo",
    "ZooDataModule",
    "ZooDataset",
    "ZooError",
    "ZooWarning",
    "concat",
    "create",
    "open",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
