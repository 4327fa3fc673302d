"""How each measure of the registry is computed from a batch, and what there is to choose about it.

Every function returns one array per output, its first axis the batch's members.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from zoo.measures import alignment, calibration, connectivity, filters, norms, sharpness
from zoo.measures.cka import linear_cka
from zoo.measures.hessian import HessianConfig
from zoo.measures.hessian import hessian as measure_hessian
from zoo.measures.measure import Batch, Values
from zoo.measures.networks import Networks, cross_entropy
from zoo.measures.phases import PhaseInputs, PhaseThresholds, fit_thresholds
from zoo.measures.phases import phases as tell_phases
from zoo.measures.predictions import accuracy as measure_accuracy
from zoo.measures.predictions import wrong


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """A measure that there is nothing to choose about."""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """How confidence is compared with accuracy.

    Parameters
    ----------
    num_bins
        Bins of equal width.
    """

    num_bins: int = 15


@dataclass(frozen=True, kw_only=True)
class CKAConfig:
    """How outputs are compared.

    Parameters
    ----------
    num_partners
        Other members that each is compared with.
    unbiased
        Estimate each term without the bias that few samples cause.
    """

    num_partners: int = 2
    unbiased: bool = False


@dataclass(frozen=True, kw_only=True)
class ConnectivityConfig(connectivity.CurveConfig):
    """How curves are trained and looked at.

    Parameters
    ----------
    num_partners
        Other members that each is joined with.
    """

    num_partners: int = 1


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """Which weights count as none.

    Parameters
    ----------
    threshold
        Largest magnitude of a weight that counts as zero.
    """

    threshold: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SharpnessConfig:
    """How far to step, and how often.

    Parameters
    ----------
    ascent_radius
        Length of the step uphill.
    random_radius
        Length of random steps, relative to each filter.
    num_directions
        Random steps.
    """

    ascent_radius: float = 0.05
    random_radius: float = 0.1
    num_directions: int = 10


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """Where phases part, see :class:`zoo.measures.phases.PhaseThresholds`.

    Parameters
    ----------
    fit
        Derive the thresholds from the population; those given here then serve where its members
        are all alike. The thresholds that were used are stored.
    version
        Name of the rule.
    train_loss, log_trace, log_eigenvalue, connectivity, cka
        Thresholds. Nobody published any; those of the Hessian are the middles of the colour scales
        in the notebooks of the model zoo on phase transitions.
    """

    fit: bool = True
    version: str = "given"
    train_loss: float = 0.1
    log_trace: float = 4.0
    log_eigenvalue: float = 1.0
    connectivity: float = -0.01
    cka: float = 0.9

    @property
    def thresholds(self) -> PhaseThresholds:
        """The thresholds alone."""
        return PhaseThresholds(**{k: v for k, v in vars(self).items() if k != "fit"})


def accuracy(batch: Batch, settings: NoSettings) -> Values:
    """Measure loss, accuracy and the generalisation gap."""
    train = measure_accuracy(batch.own, batch.samples)
    found = {"subset_train_loss": train.loss, "subset_train_accuracy": train.accuracy}
    if batch.test is None:
        return found
    test = measure_accuracy(batch.own, batch.test)
    gap = {"generalization_gap": train.accuracy - test.accuracy}
    return found | gap | {"subset_test_loss": test.loss, "subset_test_accuracy": test.accuracy}


def errors(batch: Batch, settings: NoSettings) -> Values:
    """Mark the samples that members get wrong."""
    found = {"errors_train": wrong(batch.own, batch.samples)}
    return found | ({"errors_test": wrong(batch.own, batch.test)} if batch.test else {})


def calibrated(batch: Batch, settings: CalibrationConfig) -> Values:
    """Measure how sure members are on test samples, and how rightly so."""
    samples = batch.test or batch.samples
    logits = batch.own.outputs(samples.inputs)
    error = calibration.calibration_error(logits, samples.targets, num_bins=settings.num_bins)
    return {
        "confidence": calibration.confidence(logits),
        "prediction_entropy": calibration.entropy(logits),
        "calibration_error": error,
    }


def hessian(batch: Batch, settings: HessianConfig) -> Values:
    """Measure trace and top eigenvalue of the training loss's Hessian."""
    found = measure_hessian(batch.own, batch.samples, seeds=batch.seeds.tolist(), config=settings)
    return {
        "hessian_trace": found.trace,
        "hessian_trace_error": found.trace_error,
        "hessian_top_eigenvalue": found.top_eigenvalue,
    }


def cka(batch: Batch, settings: CKAConfig) -> Values:
    """Compare outputs on test samples, mean over partners."""
    inputs = (batch.test or batch.samples).inputs
    own = batch.own.outputs(inputs).flatten(2)
    pairs = [
        linear_cka(own, partner.outputs(inputs).flatten(2), unbiased=settings.unbiased)
        for partner in batch.partners
    ]
    return {"cka": mean_over(pairs)}


def connected(batch: Batch, settings: ConnectivityConfig) -> Values:
    """Measure mode connectivity to partners and the barriers on the way; mean over partners."""
    curved, barriers, straight = [], [], []
    is_classifier = batch.samples.loss is cross_entropy
    common: dict[str, Any] = {"quantity": "error" if is_classifier else "loss"}
    for number, partner in enumerate(batch.partners):
        both = Networks(
            module=batch.own.module,
            space=batch.own.space,
            vectors=torch.cat([batch.own.vectors, partner.vectors]),
        )
        positions = np.arange(len(batch.members))
        pairs = np.stack([positions, positions + len(positions)], axis=1)
        seeds = [seed + number for seed in batch.seeds.tolist()]
        paths = connectivity.curves(
            both, pairs, batch.samples, seeds=seeds, test=batch.test, config=settings, **common
        )
        line = connectivity.lines(both, pairs, batch.samples, test=batch.test, **common)
        curved.append(paths.connectivity)
        barriers.append(paths.barrier)
        straight.append(line.barrier)
    return {
        "connectivity": mean_over(curved),
        "curve_barrier": mean_over(barriers),
        "linear_barrier": mean_over(straight),
    }


def aligned(batch: Batch, settings: NoSettings) -> Values:
    """Measure how weights and gradients align."""
    descent, _ = alignment.descent_alignment(batch.own, batch.samples)
    each = alignment.sample_alignments(batch.own, batch.samples)
    return {
        "descent_alignment": descent,
        "gradient_weight_alignment": alignment.gradient_weight_alignment(each),
    }


def sharp(batch: Batch, settings: SharpnessConfig) -> Values:
    """Measure how the training loss rises around the weights."""
    return {
        "ascent_sharpness": sharpness.ascent_sharpness(
            batch.own, batch.samples, radius=settings.ascent_radius
        ),
        "random_sharpness": sharpness.random_sharpness(
            batch.own,
            batch.samples,
            seeds=batch.seeds.tolist(),
            radius=settings.random_radius,
            num_directions=settings.num_directions,
        ),
    }


def sizes(batch: Batch, settings: NormConfig) -> Values:
    """Measure norms and sparsity of the weights."""
    largest = np.stack(list(norms.spectral_norms(batch.own).values()))
    with np.errstate(divide="ignore"):
        product = np.log(largest).sum(0)
    return {
        "l2_norm": norms.l2_norm(batch.own),
        "sparsity": norms.sparsity(batch.own, threshold=settings.threshold),
        "spectral_norm": largest.max(0),
        "log_spectral_product": np.where(np.isneginf(product), np.nan, product),
    }


def filter_quality(batch: Batch, settings: NoSettings) -> Values:
    """Measure convolution filters, mean over layers; NaN of networks without any."""
    layers = list(filters.quality(batch.own.space, batch.own.vectors.numpy()).values())
    names = ("sparsity", "entropy", "randomness")
    if not layers:
        return {f"filter_{name}": np.full(len(batch.members), np.nan) for name in names}
    return {
        f"filter_{name}": np.mean([getattr(layer, name) for layer in layers], axis=0)
        for name in names
    }


def phase(batch: Batch, settings: PhaseConfig) -> Values:
    """Tell each member's phase."""
    return {"phase": tell_phases(phase_inputs(batch.known), settings.thresholds)}


def fitted_phases(known: Mapping[str, np.ndarray], settings: PhaseConfig) -> PhaseConfig:
    """Derive thresholds from all members that are measured, where that was asked for."""
    if not settings.fit:
        return settings
    found = fit_thresholds(phase_inputs(known), base=settings.thresholds)
    return replace(settings, **vars(found))


def phase_inputs(known: Mapping[str, np.ndarray]) -> PhaseInputs:
    """Collect what phases are told by."""
    return PhaseInputs(
        train_loss=known["train_loss"],
        trace=known["hessian_trace"],
        eigenvalue=known["hessian_top_eigenvalue"],
        connectivity=known["connectivity"],
        cka=known["cka"],
    )


def mean_over(pairs: Iterable[np.ndarray]) -> np.ndarray:
    """Average ``[n]`` numbers over partners; NaN where there is none."""
    stacked = np.stack(list(pairs))
    there = ~np.isnan(stacked)
    total = np.where(there, stacked, 0).sum(0)
    return np.where(there.any(0), total / np.maximum(there.sum(0), 1), np.nan)
