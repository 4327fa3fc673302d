"""One tiny network per operator that has a rule: hidden units flow through the operator.

A case is a function of a namespace of parameters and the inputs, the shapes of the parameters, the
shapes of the inputs, and the expected groups as (size, copies).
"""

from .arranging import INDEXING, JOINING, LINEAR, SHAPE
from .entrywise import ELEMENTWISE
from .layers import CONVOLUTION, NORMS, RECURRENT
from .networks import Case
from .reducing import FILLED, REDUCTION, pools

__all__ = ["CASES", "FILLED", "Case"]

CASES: dict[str, Case] = {
    **ELEMENTWISE,
    **LINEAR,
    **SHAPE,
    **INDEXING,
    **JOINING,
    **NORMS,
    **CONVOLUTION,
    **RECURRENT,
    **REDUCTION,
    **pools(1),
    **pools(2),
    **pools(3),
    **FILLED,
}
