"""The measures that there are, by name."""

from collections.abc import Iterable

from zoo.errors import unknown_name
from zoo.measured import Output
from zoo.measures import definitions as define
from zoo.measures.hessian import HessianConfig
from zoo.measures.measure import Measure
from zoo.measures.phases import PHASES

_FRACTION = "fraction"


def _partners(of: str) -> Output:
    """Describe the ids of those that a member was compared with."""
    return Output(name=f"{of}_partners", kind="partners", width=1, description="ids of members")


_MEASURES = (
    Measure(
        name="accuracy",
        description="loss and accuracy on fixed samples, and how far they generalise",
        outputs=(
            Output(name="subset_train_loss", unit="nats", description="mean cross-entropy"),
            Output(name="subset_train_accuracy", unit=_FRACTION),
            Output(name="subset_test_loss", unit="nats", description="mean cross-entropy"),
            Output(name="subset_test_accuracy", unit=_FRACTION),
            Output(
                name="generalization_gap",
                unit=_FRACTION,
                description="accuracy on training samples less that on test samples",
            ),
        ),
        settings=define.NoSettings(),
        function=define.accuracy,
        needs="classes",
    ),
    Measure(
        name="calibration",
        description="how sure members are on test samples, and how rightly so",
        outputs=(
            Output(
                name="confidence", unit=_FRACTION, description="probability of predicted classes"
            ),
            Output(name="prediction_entropy", unit="nats", description="of predicted classes"),
            Output(name="calibration_error", unit=_FRACTION, description="expected, over bins"),
        ),
        settings=define.CalibrationConfig(),
        function=define.calibrated,
        needs="classes",
    ),
    Measure(
        name="errors",
        description="which of fixed samples a member gets wrong, a bit for each",
        outputs=(
            Output(name="errors_train", kind="mask", width=1, description="wrong: bit 1"),
            Output(name="errors_test", kind="mask", width=1, description="wrong: bit 1"),
        ),
        settings=define.NoSettings(),
        function=define.errors,
        needs="classes",
    ),
    Measure(
        name="norms",
        description="sizes of the weights",
        outputs=(
            Output(name="l2_norm", description="Euclidean norm of all parameters"),
            Output(name="sparsity", unit=_FRACTION, description="parameters that are zero"),
            Output(name="spectral_norm", description="largest of all weight matrices"),
            Output(
                name="log_spectral_product",
                unit="nats",
                description="logarithm of the product over weight matrices",
            ),
        ),
        settings=define.NormConfig(),
        function=define.sizes,
        needs="weights",
    ),
    Measure(
        name="filters",
        description="convolution filters, mean over layers",
        outputs=(
            Output(name="filter_sparsity", unit=_FRACTION, description="filters near zero"),
            Output(name="filter_entropy", unit="bans", description="variance entropy"),
            Output(name="filter_randomness", description="entropy over that of random filters"),
        ),
        settings=define.NoSettings(),
        function=define.filter_quality,
        needs="weights",
    ),
    Measure(
        name="hessian",
        description="trace and largest eigenvalue of the training loss's Hessian",
        outputs=(
            Output(name="hessian_trace", description="Hutchinson's estimate"),
            Output(name="hessian_trace_error", description="standard error of the estimate"),
            Output(name="hessian_top_eigenvalue", description="eigenvalue of largest magnitude"),
        ),
        settings=HessianConfig(),
        function=define.hessian,
    ),
    Measure(
        name="sharpness",
        description="how much the training loss rises around the weights",
        outputs=(
            Output(name="ascent_sharpness", description="in the worst direction"),
            Output(name="random_sharpness", description="in random directions, on average"),
        ),
        settings=define.SharpnessConfig(),
        function=define.sharp,
    ),
    Measure(
        name="alignment",
        description="how weights align with the direction of steepest descent",
        outputs=(
            Output(name="descent_alignment", description="cosine, over all parameters"),
            Output(
                name="gradient_weight_alignment",
                description="mean over excess kurtosis of samples' cosines, last layer",
            ),
        ),
        settings=define.NoSettings(),
        function=define.aligned,
    ),
    Measure(
        name="connectivity",
        description="whether a curve of low error joins a member and its partners",
        outputs=(
            Output(
                name="connectivity",
                description="negative: a barrier; positive: the curve is better than its ends",
            ),
            Output(name="curve_barrier", description="along the curve, at least 0"),
            Output(name="linear_barrier", description="along the straight line, at least 0"),
            _partners("connectivity"),
        ),
        settings=define.ConnectivityConfig(),
        function=define.connected,
        needs="shared",
    ),
    Measure(
        name="cka",
        description="how alike partners' outputs are: linear centred kernel alignment",
        outputs=(
            Output(name="cka", description="mean over partners, on test samples"),
            _partners("cka"),
        ),
        settings=define.CKAConfig(),
        function=define.cka,
    ),
    Measure(
        name="phase",
        description="phase of a member, by loss, Hessian, connectivity and CKA",
        outputs=(Output(name="phase", kind="category", categories=PHASES),),
        settings=define.PhaseConfig(),
        function=define.phase,
        needs="stored",
        prepare=define.fitted_phases,
        after=(
            "train_loss|subset_train_loss",
            "hessian_trace",
            "hessian_top_eigenvalue",
            "connectivity",
            "cka",
        ),
    ),
)

REGISTRY: dict[str, Measure] = {measure.name: measure for measure in _MEASURES}
"""Every measure by name, in the order in which a run makes them."""


def measure_named(name: str) -> Measure:
    """Return a measure.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    """
    if name not in REGISTRY:
        raise unknown_name("measure", name, REGISTRY)
    return REGISTRY[name]


def in_order(names: Iterable[str]) -> list[Measure]:
    """Return measures in the order of the registry, where each comes after those it needs.

    Raises
    ------
    UnknownNameError
        If one does not exist.
    """
    chosen = {name: measure_named(name) for name in names}
    return [measure for name, measure in REGISTRY.items() if name in chosen]
