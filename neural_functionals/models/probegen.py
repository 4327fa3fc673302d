"""Probing: members are known by what they answer to inputs that are learnt."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neural_functionals.layers import MemberRunner, perceptron
from neural_functionals.models.functional import (
    EVERY_SYMMETRY,
    NeuralFunctional,
    Reads,
    Symmetry,
    configure,
)
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace

_FIRST = 4  # pixels along each side of the first feature map


@dataclass(frozen=True, kw_only=True)
class ProbeGenConfig:
    """Options of :class:`ProbeGen`; the defaults are the paper's.

    Parameters
    ----------
    network
        Network of the members, as :func:`zoo.networks.build` takes it; training fills it in.
    num_probes
        Inputs that every member is run on.
    latent
        Length of the code that a probe is generated from.
    width
        Channels of the last but one feature map of the image generator.
    hidden
        Widths of the head.
    """

    network: dict[str, Any] = field(default_factory=dict)
    num_probes: int = 128
    latent: int = 32
    width: int = 16
    hidden: tuple[int, ...] = (256,) * 5

    def __post_init__(self) -> None:
        if min(self.num_probes, self.latent, self.width, *self.hidden) < 1:
            raise InvalidConfigError(
                f"Expected at least one probe and positive widths, got {self}."
            )


class ProbeGen(NeuralFunctional):
    """Deep linear probe generators of Kahana et al. [1]_.

    Each probe has a learned code; one generator without activations turns codes into inputs.
    Members are run on them, and a perceptron reads all outputs. Only what members compute counts,
    so the output is invariant under every symmetry of theirs.

    Parameters
    ----------
    space
        Weight space of the members.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Raises
    ------
    InvalidConfigError
        If no network is given, or it takes neither vectors nor images.

    Notes
    -----
    As in the authors' code, probes that are images end in a hyperbolic tangent. Departures from the
    paper. Feature maps double from 4 pixels until they cover the image, and the rest is cut off.

    References
    ----------
    .. [1] Kahana et al., "Deep Linear Probe Generators for Weight Space Learning", ICLR 2025.

    Examples
    --------
    >>> import torch, zoo
    >>> from zoo.networks import build, example_input
    >>> network = {"name": "mlp", "in_features": 2, "hidden": [3], "out_features": 1}
    >>> space = zoo.trace(build(network), example_input(network))
    >>> model = ProbeGen(space, network=network, num_probes=4, hidden=(8,))
    >>> model(torch.zeros(5, space.num_parameters)).shape
    torch.Size([5, 1])
    """

    name: ClassVar[str] = "probegen"
    reads: ClassVar[Reads] = "weights"
    symmetries: tuple[Symmetry, ...] = EVERY_SYMMETRY
    config: ProbeGenConfig

    def __init__(
        self,
        space: WeightSpace,
        config: ProbeGenConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or ProbeGenConfig(), overrides)
        super().__init__(space, config, num_outputs)
        if not config.network:
            raise InvalidConfigError(
                "Expected the members' network, which ProbeGen runs, got none. Give "
                "network=population.network_of(member_id)."
            )
        self.run = MemberRunner(space, config.network)
        self.codes = nn.Parameter(torch.randn(config.num_probes, config.latent))
        self.generator = probe_generator(config.latent, self.run.input_shape, width=config.width)
        num_answers = config.num_probes * self.run.num_outputs
        self.head = perceptron(num_answers, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        answers = self.run(inputs, self.generator(self.codes))
        outputs: Tensor = self.head(answers.flatten(1))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Do nothing: members are run on their weights as they are."""


def probe_generator(latent: int, shape: tuple[int, ...], *, width: int) -> nn.Sequential:
    """Build linear layers in a row from codes ``[probes, latent]`` to ``[probes, *shape]``.

    Raises
    ------
    InvalidConfigError
        If inputs are neither vectors nor images.
    """
    if len(shape) == 1:
        return nn.Sequential(nn.Linear(latent, latent), nn.Linear(latent, shape[0]))
    if len(shape) != 3:
        raise InvalidConfigError(
            f"Expected members that take vectors or images, got inputs of shape {shape}. Use a "
            "model that reads weights."
        )
    channels, *sides = shape
    num_doublings = max(0, (max(sides) - 1).bit_length() - (_FIRST - 1).bit_length())
    widths = [width * 2 ** max(0, num_doublings - at) for at in range(num_doublings + 1)]
    layers: list[nn.Module] = [
        nn.Unflatten(1, (latent, 1, 1)),
        nn.ConvTranspose2d(latent, widths[0], _FIRST),
    ]
    for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
        layers.append(nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1))
    layers += [nn.ConvTranspose2d(width, channels, 3, padding=1), Crop(*sides), nn.Tanh()]
    return nn.Sequential(*layers)


class Crop(nn.Module):
    """The upper left corner of images ``[batch, channels, y, x]``."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, images: Tensor) -> Tensor:
        """Cut."""
        return images[..., : self.height, : self.width]
