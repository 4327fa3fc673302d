"""Building blocks of networks that read weights; each follows from a weight space alone."""

from neural_functionals.layers.equivariant import EquivariantLinear
from neural_functionals.layers.features import FeatureBlock, WeightLayout
from neural_functionals.layers.normalise import OrbitNormalisation, Standardise
from neural_functionals.layers.perceptron import perceptron
from neural_functionals.layers.pooling import InvariantPooling

__all__ = [
    "EquivariantLinear",
    "FeatureBlock",
    "InvariantPooling",
    "OrbitNormalisation",
    "Standardise",
    "WeightLayout",
    "perceptron",
]
