"""The five phases of trained networks, by train loss, Hessian, mode connectivity and similarity.

The taxonomy is that of [1]_ as the model zoo on phase transitions [2]_ uses it:

| phase | train loss | Hessian | connectivity | CKA |
|---|---|---|---|---|
| I, under-fitted and under-sized | high | large | < 0 | |
| II, under-fitted | high | large | > 0 | |
| III, under-sized | small | small | < 0 | |
| IV-A, over-fitted | small | small | about 0 | small |
| IV-B, generalising | small | small | about 0 | large |

Neither publishes thresholds, so they are explicit here, and have a version.

References
----------
.. [1] Yang et al., "Taxonomizing Local versus Global Structure in Neural Network Loss Landscapes",
   NeurIPS 2021.
.. [2] Schürholt et al., "A Model Zoo on Phase Transitions in Neural Networks", arXiv 2025.
"""

from dataclasses import dataclass

import numpy as np

from zoo.errors import InvalidConfigError

PHASES = ("I", "II", "III", "IV-A", "IV-B", "undecided")
"""Names of the codes that :func:`phases` returns."""
UNDECIDED = PHASES.index("undecided")

_SMALLEST = 1e-12
_FITTED = "otsu-1"


@dataclass(frozen=True, kw_only=True)
class PhaseThresholds:
    """Where phases part.

    Parameters
    ----------
    version
        Names the rule that made the numbers; change it with any of them.
    train_loss
        In units of the loss; above it is high.
    log_trace, log_eigenvalue
        Decimal logarithms of the Hessian's trace and top eigenvalue; above it is large.
    connectivity
        Mode connectivity, at most 0; below, members are separated by a barrier.
    cka
        Similarity to partners; below it is small.
    """

    version: str
    train_loss: float
    log_trace: float
    log_eigenvalue: float
    connectivity: float
    cka: float

    def __post_init__(self) -> None:
        if self.connectivity > 0 or not self.train_loss > 0:
            raise InvalidConfigError(
                "Expected a connectivity threshold of at most 0 and a positive train loss, got "
                f"{self.connectivity} and {self.train_loss}."
            )


SMALL_CNN = PhaseThresholds(
    version="small-cnn-1",
    train_loss=0.5,
    log_trace=2.5,
    log_eigenvalue=1.5,
    connectivity=-0.02,
    cka=0.9,
)
"""For networks of the size of the Small CNN Zoo, losses in nats and connectivity in shares of
errors: a convention, so that populations can be compared."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PhaseInputs:
    """What phases are told by, ``[n]`` each; NaN where unknown.

    Parameters
    ----------
    train_loss
        Mean loss on training samples.
    trace, eigenvalue
        Of the Hessian of that loss.
    connectivity
        Mode connectivity to the member's partners.
    cka
        Similarity to the member's partners, in [0, 1].
    """

    train_loss: np.ndarray
    trace: np.ndarray
    eigenvalue: np.ndarray
    connectivity: np.ndarray
    cka: np.ndarray

    @property
    def log_curvature(self) -> tuple[np.ndarray, np.ndarray]:
        """Decimal logarithms of the magnitudes of trace and top eigenvalue, at least -12."""
        trace, eigenvalue = (
            np.log10(np.maximum(np.abs(values), _SMALLEST))
            for values in (self.trace, self.eigenvalue)
        )
        return trace, eigenvalue


def phases(inputs: PhaseInputs, thresholds: PhaseThresholds) -> np.ndarray:
    """Tell each member's phase.

    A member is under-fitted if its loss is high, or if trace and top eigenvalue are both large. The
    table asks for both at once, but leaves open what a network at the level of chance is, whose
    loss is high and flat: under-fitted, here. See :func:`votes` for members whose criteria differ.
    Connectivity above its threshold counts as "about 0" among well-fitted members.

    Returns
    -------
    np.ndarray
        Positions in :data:`PHASES` ``[n]``, int8; undecided where a number that decides is NaN.
    """
    unfitted = _unfitted(votes(inputs, thresholds))
    barrier = inputs.connectivity < thresholds.connectivity
    alike = inputs.cka >= thresholds.cka
    unlike_or_alike = np.where(alike, PHASES.index("IV-B"), PHASES.index("IV-A"))
    fitted_code = np.where(barrier, PHASES.index("III"), unlike_or_alike)
    codes = np.where(unfitted, np.where(barrier, 0, 1), fitted_code)
    missing = np.isnan(_criteria(inputs)).any(0) | np.isnan(inputs.connectivity)
    missing |= np.isnan(inputs.cka) & ~unfitted & ~barrier
    return np.where(missing, UNDECIDED, codes).astype(np.int8)


def votes(inputs: PhaseInputs, thresholds: PhaseThresholds) -> np.ndarray:
    """Say which of loss, trace and top eigenvalue call a member under-fitted, ``[3, n]`` bool."""
    limits = (np.log10(thresholds.train_loss), thresholds.log_trace, thresholds.log_eigenvalue)
    found: np.ndarray = _criteria(inputs) > np.array(limits)[:, None]
    return found


def fit_thresholds(inputs: PhaseInputs, *, base: PhaseThresholds) -> PhaseThresholds:
    """Derive thresholds from a population, by Otsu's rule on each quantity.

    The loss, the trace and the top eigenvalue are each cut in two on a logarithmic scale.
    Connectivity is cut among the members that are then well-fitted, at 0 at most; similarity among
    those of them without a barrier. A quantity with fewer than two different values keeps the
    threshold of ``base``. Equal populations get equal thresholds; a population of one phase is cut
    all the same, so look at the quantities first.
    """
    loss, trace, eigenvalue = (
        otsu(values, default)
        for values, default in zip(
            _criteria(inputs),
            (np.log10(base.train_loss), base.log_trace, base.log_eigenvalue),
            strict=True,
        )
    )
    limits = np.array((loss, trace, eigenvalue))[:, None]
    fitted = ~_unfitted(_criteria(inputs) > limits)
    connectivity = min(otsu(inputs.connectivity[fitted], base.connectivity), 0.0)
    connected = fitted & (inputs.connectivity >= connectivity)
    return PhaseThresholds(
        version=_FITTED,
        train_loss=float(10**loss),
        log_trace=trace,
        log_eigenvalue=eigenvalue,
        connectivity=connectivity,
        cka=otsu(inputs.cka[connected], base.cka),
    )


def otsu(values: np.ndarray, default: float) -> float:
    """Cut numbers in two such that the variance within both parts is least [1]_.

    Parameters
    ----------
    values
        ``[n]``; those that are not finite are left out.
    default
        What to return where fewer than two values differ.

    Returns
    -------
    float
        Halfway between the two numbers at the cut.

    References
    ----------
    .. [1] Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Transactions on
       Systems, Man, and Cybernetics 1979; on the numbers themselves instead of a histogram.

    Examples
    --------
    >>> otsu(np.array([1.0, 2.0, 8.0, 9.0]), 0.0)
    5.0
    """
    ordered = np.sort(values[np.isfinite(values)])
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        return default
    sizes = np.arange(1, len(ordered))
    below = np.cumsum(ordered)[:-1] / sizes
    above = (ordered.sum() - sizes * below) / (len(ordered) - sizes)
    between = sizes * (len(ordered) - sizes) * np.square(above - below)
    between[ordered[:-1] == ordered[1:]] = -np.inf
    cut = int(between.argmax())
    return float(ordered[cut : cut + 2].mean())


def _unfitted(voted: np.ndarray) -> np.ndarray:
    """Combine the votes of loss, trace and top eigenvalue, ``[3, n]``."""
    high, large_trace, large_eigenvalue = voted
    found: np.ndarray = high | (large_trace & large_eigenvalue)
    return found


def _criteria(inputs: PhaseInputs) -> np.ndarray:
    """Logarithms of loss, trace and top eigenvalue, ``[3, n]``."""
    loss = np.log10(np.maximum(inputs.train_loss, _SMALLEST))
    return np.stack([loss, *inputs.log_curvature])
