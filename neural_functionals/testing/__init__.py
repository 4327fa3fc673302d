"""Contract suites for networks that read weights, and the spaces they are tested on.

A new model subclasses :class:`InvariantModelContract`, gives ``make_model`` and inherits every
test. Errors are compared with the *spread* of the output over different networks, for a small error
means nothing where all outputs are alike, and with what a non-symmetry does.
:class:`ScaleInvariantModelContract` adds factors and signs of hidden units for models that claim
them; :func:`symmetry_errors` measures every kind of symmetry for tests and tables alike.
"""

from neural_functionals.testing.actions import (
    CONTROL,
    SCALE_TOLERANCE,
    SEEDS,
    TOLERANCE,
    SymmetryRow,
    across_tensors,
    one_sided,
    one_sided_scale,
    random_action,
    random_scale,
    symmetry_errors,
    symmetry_kinds,
)
from neural_functionals.testing.contracts import (
    InvariantModelContract,
    ModelContract,
    ScaleInvariantModelContract,
    train_briefly,
)
from neural_functionals.testing.controls import proved_controls
from neural_functionals.testing.small import SMALL, VARIANTS, measure_on, small_model
from neural_functionals.testing.spaces import (
    NETWORKS,
    SCALED_NETWORKS,
    example_space,
    network_of,
    random_networks,
    runnable_networks,
    wild_networks,
)

__all__ = [
    "CONTROL",
    "NETWORKS",
    "SCALED_NETWORKS",
    "SCALE_TOLERANCE",
    "SEEDS",
    "SMALL",
    "TOLERANCE",
    "VARIANTS",
    "InvariantModelContract",
    "ModelContract",
    "ScaleInvariantModelContract",
    "SymmetryRow",
    "across_tensors",
    "example_space",
    "measure_on",
    "network_of",
    "one_sided",
    "one_sided_scale",
    "proved_controls",
    "random_action",
    "random_networks",
    "random_scale",
    "runnable_networks",
    "small_model",
    "symmetry_errors",
    "symmetry_kinds",
    "train_briefly",
    "wild_networks",
]
