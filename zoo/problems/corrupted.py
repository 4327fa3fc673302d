"""A data set and corrupted copies of it: domains that members are fine-tuned on, one each."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zoo.errors import InvalidConfigError, unknown_name
from zoo.problems.problem import Problem

CLEAN = "clean"


def _noise(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    spread = severity * images.std()
    return images + spread * torch.randn(images.shape, generator=generator)


def _blur(images: Tensor, severity: float, _: torch.Generator) -> Tensor:
    """Average with what lies around; the more, the severer."""
    blurred = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return torch.lerp(images, blurred, min(severity, 1.0))


def _contrast(images: Tensor, severity: float, _: torch.Generator) -> Tensor:
    centre = images.mean((1, 2, 3), keepdim=True)
    return centre + (images - centre) * (1 - 0.8 * min(severity, 1.0))


def _brightness(images: Tensor, severity: float, _: torch.Generator) -> Tensor:
    return images + severity * images.std()


def _occlusion(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Hide a share of the pixels, other ones in every image."""
    hidden = torch.rand(images[:, :1].shape, generator=generator) < 0.5 * min(severity, 1.0)
    return torch.where(hidden, images.min(), images)


def _inversion(images: Tensor, _: float, __: torch.Generator) -> Tensor:
    return images.min() + images.max() - images


def _mirror(images: Tensor, _: float, __: torch.Generator) -> Tensor:
    return images.flip(-1)


def _turn(images: Tensor, _: float, __: torch.Generator) -> Tensor:
    return images.rot90(1, (-2, -1))


Corruption = Callable[[Tensor, float, torch.Generator], Tensor]
CORRUPTIONS: dict[str, Corruption] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "occlusion": _occlusion,
    "inversion": _inversion,
    "mirror": _mirror,
    "turn": _turn,
}
"""Functions of images ``[n, channel, y, x]``, a severity (0 leaves most as they are, 1 is strong)
and what draws; simple relatives of those of Hendrycks & Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019."""


def corrupt(
    known: Problem,
    *,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    severity: float = 0.5,
    seed: int = 0,
) -> Problem:
    """Join the training images of a problem and corrupted copies of them, a domain each.

    Domain 0 is the data as they are, domain ``k`` the ``k``-th corruption. The test part stays
    clean: it says what members keep.

    Parameters
    ----------
    known
        A problem of images ``[n, channel, y, x]``, or of flattened square ones ``[n, pixels]``.
    corruptions
        Names of :data:`CORRUPTIONS`.
    severity
        How strong they are.
    seed
        Of noise and occlusions.

    Raises
    ------
    UnknownNameError
        If there is no such corruption.
    InvalidConfigError
        If the inputs are no images.
    """
    images = _images(known)
    parts = [known.train_inputs]
    for place, name in enumerate(corruptions):
        if name not in CORRUPTIONS:
            raise unknown_name("corruption", name, CORRUPTIONS)
        generator = torch.Generator().manual_seed(seed + place)
        parts.append(
            CORRUPTIONS[name](images, severity, generator).reshape(known.train_inputs.shape)
        )
    copies, samples = len(parts), len(images)
    options: dict[str, Any] = {"severity": severity, "seed": seed}
    return replace(
        known,
        config={"name": "corrupted", "base": known.config, "corruptions": list(corruptions)}
        | options,
        train_inputs=torch.cat(parts).to(torch.float32),
        train_targets=known.train_targets.repeat(copies),
        domains=torch.arange(copies).repeat_interleave(samples),
        domain_names=(CLEAN, *corruptions),
    )


def _images(known: Problem) -> Tensor:
    inputs = known.train_inputs
    side = isqrt(inputs[0].numel())
    if inputs.is_floating_point() and inputs.ndim == 4:
        return inputs
    if inputs.is_floating_point() and inputs.ndim == 2 and side * side == inputs.shape[1]:
        return inputs.view(-1, 1, side, side)
    raise InvalidConfigError(
        f"Expected images to corrupt, got inputs of shape {tuple(inputs.shape)} in problem "
        f"{known.name!r}."
    )
