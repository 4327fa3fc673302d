"""Initial weights of members, drawn from their own streams; schemes are those of ``torch.nn.init``.

The values are torch's in distribution, not bit for bit: torch would draw them from its own
generator.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import erf, prod, sqrt

import numpy as np
import torch

from data_gen.streams import Purpose, stream
from zoo.errors import unknown_name
from zoo.space import TensorSpec, WeightSpace

OMEGA = 30.0
"""Frequency of a SIREN's layers in its paper."""
_CUT = 2.0
"""Truncated normals end at this many standard deviations, before truncation."""


@dataclass(frozen=True, kw_only=True)
class Fan:
    """How many inputs and outputs one weight tensor connects, and whether it reads the input."""

    inputs: int
    outputs: int
    is_first: bool = False


Scheme = Callable[[np.random.Generator, tuple[int, ...], Fan, float], np.ndarray]


def _kaiming_uniform(
    rng: np.random.Generator, shape: tuple[int, ...], fan: Fan, _: float
) -> np.ndarray:
    return _uniform(rng, shape, sqrt(6 / fan.inputs))


def _kaiming_normal(
    rng: np.random.Generator, shape: tuple[int, ...], fan: Fan, _: float
) -> np.ndarray:
    return rng.standard_normal(shape) * sqrt(2 / fan.inputs)


def _xavier_uniform(
    rng: np.random.Generator, shape: tuple[int, ...], fan: Fan, _: float
) -> np.ndarray:
    return _uniform(rng, shape, sqrt(6 / (fan.inputs + fan.outputs)))


def _xavier_normal(
    rng: np.random.Generator, shape: tuple[int, ...], fan: Fan, _: float
) -> np.ndarray:
    return rng.standard_normal(shape) * sqrt(2 / (fan.inputs + fan.outputs))


def _default(rng: np.random.Generator, shape: tuple[int, ...], fan: Fan, _: float) -> np.ndarray:
    return _uniform(rng, shape, 1 / sqrt(fan.inputs))


def _plain_uniform(
    rng: np.random.Generator, shape: tuple[int, ...], _: Fan, std: float
) -> np.ndarray:
    return _uniform(rng, shape, sqrt(3) * std)


def _unit_uniform(
    rng: np.random.Generator, shape: tuple[int, ...], _: Fan, __: float
) -> np.ndarray:
    """Draw from [0, 1), as ``torch.nn.init.uniform_`` does by default."""
    return rng.random(shape)


def _unit_normal(rng: np.random.Generator, shape: tuple[int, ...], _: Fan, __: float) -> np.ndarray:
    """Draw standard normal numbers, as ``torch.nn.init.normal_`` does by default."""
    return rng.standard_normal(shape)


def _plain_normal(
    rng: np.random.Generator, shape: tuple[int, ...], _: Fan, std: float
) -> np.ndarray:
    return rng.standard_normal(shape) * std


def _truncated_normal(
    rng: np.random.Generator, shape: tuple[int, ...], _: Fan, std: float
) -> np.ndarray:
    """Invert the distribution function: one uniform number per entry, no rejection."""
    inside = erf(_CUT / sqrt(2))
    return _normal_quantile((rng.random(shape) * 2 - 1) * inside) * std


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...], _: Fan, __: float) -> np.ndarray:
    """Draw rows (or columns, if there are more rows) that are orthonormal, uniformly [1]_.

    References
    ----------
    .. [1] Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural
       networks", ICLR 2014.
    """
    rows, columns = shape[0], prod(shape[1:])
    gauss = rng.standard_normal((max(rows, columns), min(rows, columns)))
    basis, triangle = np.linalg.qr(gauss)
    basis = basis * np.sign(np.diag(triangle))
    return (basis if rows >= columns else basis.T).reshape(shape)


def _siren(rng: np.random.Generator, shape: tuple[int, ...], fan: Fan, omega: float) -> np.ndarray:
    """Keep every sine's argument spread alike, layer after layer [1]_ (Sec. 3.2).

    References
    ----------
    .. [1] Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions",
       NeurIPS 2020.
    """
    return _uniform(rng, shape, 1 / fan.inputs if fan.is_first else sqrt(6 / fan.inputs) / omega)


SCHEMES: dict[str, Scheme] = {
    "default": _default,
    "kaiming_uniform": _kaiming_uniform,
    "kaiming_normal": _kaiming_normal,
    "xavier_uniform": _xavier_uniform,
    "xavier_normal": _xavier_normal,
    "normal": _plain_normal,
    "uniform": _plain_uniform,
    "truncated_normal": _truncated_normal,
    "unit_uniform": _unit_uniform,
    "unit_normal": _unit_normal,
    "orthogonal": _orthogonal,
    "siren": _siren,
}
"""Kaiming and Xavier as torch has them, with gain sqrt(2) (ReLU, fan-in) and gain 1.

``default`` is what ``torch.nn.Linear`` and ``torch.nn.Conv2d`` do when they are made. The last
argument is a standard deviation, or the frequency for ``siren``.
"""

_DRAWN_BIASES = ("default", "siren")
_SPREAD_SCHEMES = ("normal", "uniform", "truncated_normal")
"""Schemes that take their standard deviation as an argument."""
_EMBEDDING_STD, _ADDED_STD = 1.0, 0.02
"""Of tables of tokens, as in ``torch.nn.Embedding``; of learned positions and extra tokens."""
_CONSTANT_ROLES = {"gain": 1.0, "shift": 0.0, "mean": 0.0, "variance": 1.0}


def fan_of(tensor: TensorSpec) -> Fan:
    """Count what a weight tensor connects, from the roles of its axes."""
    kernel = prod(
        length
        for length, axis in zip(tensor.shape, tensor.axes, strict=True)
        if axis.role == "kernel"
    )
    sizes = {
        role: prod(
            length
            for length, axis in zip(tensor.shape, tensor.axes, strict=True)
            if axis.role == role
        )
        for role in ("in", "out")
    }
    return Fan(
        inputs=sizes["in"] * kernel,
        outputs=sizes["out"] * kernel,
        is_first=any(axis.role == "in" and axis.pin == "input" for axis in tensor.axes),
    )


def initialise(
    space: WeightSpace,
    seed: int,
    *,
    scheme: str = "default",
    scale: float = 1.0,
    std: float = 0.1,
    omega: float = OMEGA,
    bias: float = 0.0,
    zeros: Collection[str] = (),
) -> np.ndarray:
    """Draw one member's initial vector.

    Weights follow ``scheme``. Biases are drawn for ``default`` and ``siren`` (uniform, bounded by
    the fan-in of their layer's weight, as torch does) and are ``bias`` otherwise. Gains are 1,
    shifts 0, running means 0, running variances 1. With ``default``, all of a recurrent layer is
    uniform with the fan-in of its hidden units, as in torch.

    Tables of tokens are standard normal as in ``torch.nn.Embedding``; parameters that belong to no
    layer (learned positions, extra tokens) are normal with standard deviation 0.02 [1]_. Schemes
    that take ``std`` hold for both as for weights, so that ``normal`` with 0.02 is GPT-2's.

    Parameters
    ----------
    seed
        The member's.
    scheme
        A name of :data:`SCHEMES`.
    scale
        Factor on weights and biases.
    std
        Standard deviation, for the schemes that have no fan.
    omega
        Frequency, for the scheme ``siren``.
    bias
        Biases that are not drawn.
    zeros
        Names of tensors that are 0 at first, whatever the scheme.

    Returns
    -------
    np.ndarray
        ``[P]``, float32.

    References
    ----------
    .. [1] Touvron et al., "Training data-efficient image transformers & distillation through
       attention", ICML 2021.
    """
    if scheme not in SCHEMES:
        raise unknown_name("initialisation", scheme, SCHEMES)
    rng = stream(seed, Purpose.INIT)
    weights = [tensor for tensor in space.tensors if tensor.role == "weight"]
    fans = {tensor.layer: fan_of(tensor) for tensor in weights}
    layers = [tensor.layer for tensor in weights]
    recurrent = {layer for layer in fans if layers.count(layer) > 1}
    spread = omega if scheme == "siren" else std

    parts = []
    for tensor in space.tensors:
        if tensor.name in zeros:
            part = np.zeros(tensor.shape)
        elif tensor.role == "weight" and tensor.layer in recurrent and scheme == "default":
            part = _default(rng, tensor.shape, fans[tensor.layer], spread) * scale
        elif tensor.role == "bias" and not (scheme in _DRAWN_BIASES and tensor.layer in fans):
            part = np.full(tensor.shape, 0.0 if scheme in _DRAWN_BIASES else bias)
        else:
            part = _initial(tensor, rng, fans, scheme, spread, scale)
        parts.append(part)
    return np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)


def _initial(
    tensor: TensorSpec,
    rng: np.random.Generator,
    fans: dict[str, Fan],
    scheme: str,
    spread: float,
    scale: float,
) -> np.ndarray:
    if tensor.role in _CONSTANT_ROLES:
        return np.full(tensor.shape, _CONSTANT_ROLES[tensor.role])
    if tensor.role == "other" or _is_table(tensor):
        std = _EMBEDDING_STD if tensor.role == "weight" else _ADDED_STD
        if scheme in _SPREAD_SCHEMES:
            return SCHEMES[scheme](rng, tensor.shape, fan_of(tensor), spread) * scale
        return rng.standard_normal(tensor.shape) * std * scale
    if tensor.role == "weight":
        return SCHEMES[scheme](rng, tensor.shape, fan_of(tensor), spread) * scale
    return _default(rng, tensor.shape, fans[tensor.layer], spread) * scale


def _is_table(tensor: TensorSpec) -> bool:
    """Whether a weight has a row per token."""
    first = tensor.axes[0]
    return first.pin == "input" and first.label.startswith("token of ")


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> np.ndarray:
    return rng.uniform(-bound, bound, shape)


def _normal_quantile(signed: np.ndarray) -> np.ndarray:
    """Return ``x`` with ``erf(x / sqrt(2)) = signed``, for float64 in (-1, 1)."""
    return np.asarray(torch.erfinv(torch.from_numpy(signed))) * sqrt(2)
