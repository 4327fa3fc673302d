"""Building blocks of networks that read weights; each follows from a weight space alone."""

from neural_functionals.layers.attention import WeightSpaceAttention
from neural_functionals.layers.equivariant import EquivariantLinear
from neural_functionals.layers.features import FeatureBlock, WeightLayout
from neural_functionals.layers.matrix_product import MatrixProduct
from neural_functionals.layers.monomial import MonomialLinear
from neural_functionals.layers.monomial_pooling import MonomialPooling
from neural_functionals.layers.normalise import OrbitNormalisation, Standardise
from neural_functionals.layers.perceptron import perceptron
from neural_functionals.layers.pooling import InvariantPooling
from neural_functionals.layers.probes import MemberRunner
from neural_functionals.layers.scale_normalise import ScaleNormalisation
from neural_functionals.layers.scaling import ScaleReference
from neural_functionals.layers.stack import EquivariantStack
from neural_functionals.layers.statistics import TensorStatistics
from neural_functionals.layers.tokens import Tokeniser
from neural_functionals.layers.transformer import (
    AttentionBlock,
    AttentionPooling,
    TokenAttention,
)

__all__ = [
    "AttentionBlock",
    "AttentionPooling",
    "EquivariantLinear",
    "EquivariantStack",
    "FeatureBlock",
    "InvariantPooling",
    "MatrixProduct",
    "MemberRunner",
    "MonomialLinear",
    "MonomialPooling",
    "OrbitNormalisation",
    "ScaleNormalisation",
    "ScaleReference",
    "Standardise",
    "TensorStatistics",
    "TokenAttention",
    "Tokeniser",
    "WeightLayout",
    "WeightSpaceAttention",
    "perceptron",
]
