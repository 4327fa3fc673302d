"""Vision transformers for small images."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.networks.encoder import POSITIONS_STD, Encoder, check_encoder, sincos_2d


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """A vision transformer [1]_: patches, positions, pre-norm blocks, a linear head.

    With ``positions="sincos"`` and ``head="mean"`` it is the plain one of [2]_.

    Parameters
    ----------
    in_channels, image_size, out_features
        Input planes, their side in pixels, number of outputs.
    patch_size
        Side of a patch, which divides the image's.
    width, depth, heads, hidden
        Features per patch, blocks, heads of each attention, hidden width of each perceptron.
    positions
        ``"learned"`` ones, or fixed ``"sincos"``, which need a width that 4 divides.
    head
        ``"token"`` reads an extra token; ``"mean"`` averages over patches.
    activation
        A name of :data:`zoo.networks.ACTIVATIONS`.
    dropout
        Probability on the embedded patches and after each branch.

    References
    ----------
    .. [1] Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, Sec. 3.1.
    .. [2] Beyer et al., "Better plain ViT baselines for ImageNet-1k", arXiv 2205.01580, 2022.
    """

    name: ClassVar[str] = "vit"

    in_channels: int = 3
    image_size: int = 32
    out_features: int = 10
    patch_size: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    hidden: int = 128
    positions: Literal["learned", "sincos"] = "learned"
    head: Literal["token", "mean"] = "token"
    activation: str = "gelu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_encoder(self)
        if min(self.in_channels, self.image_size, self.out_features, self.patch_size) < 1:
            raise InvalidConfigError(f"Expected positive sizes, got {self}.")
        if self.image_size % self.patch_size:
            raise InvalidConfigError(
                f"Expected patches whose side divides {self.image_size} pixels, "
                f"got {self.patch_size}."
            )
        if self.positions not in ("learned", "sincos") or self.head not in ("token", "mean"):
            raise InvalidConfigError(
                f"Expected learned or sincos positions and head token or mean, got {self}."
            )
        if self.positions == "sincos" and self.width % 4:
            raise InvalidConfigError(
                f"Expected a width that 4 divides for sincos positions, got {self.width}."
            )

    @property
    def rows(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size

    def build(self) -> nn.Module:
        """Make the module; positions and token are normal with standard deviation 0.02."""
        return ViT(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, in_channels, image_size, image_size]``."""
        return torch.zeros(batch, self.in_channels, self.image_size, self.image_size)


class ViT(nn.Module):
    """The network of a :class:`ViTConfig`: ``[batch, channel, y, x]`` to ``[batch, out]``."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.patch = nn.Conv2d(
            config.in_channels, config.width, config.patch_size, stride=config.patch_size
        )
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(1, config.rows**2, config.width))
            nn.init.normal_(self.positions, std=POSITIONS_STD)
        else:
            self.register_buffer(
                "positions", sincos_2d(config.rows, config.width)[None], persistent=False
            )
        self.token: nn.Parameter | None = None
        if config.head == "token":
            self.token = nn.Parameter(torch.empty(1, 1, config.width))
            nn.init.normal_(self.token, std=POSITIONS_STD)
        self.encoder = Encoder(config)
        self.head = nn.Linear(config.width, config.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        stream = self.patch(inputs).flatten(2).transpose(1, 2) + self.positions
        if self.token is not None:
            token = self.token.expand(len(stream), -1, -1)
            stream = torch.cat([token, stream], dim=1)
        encoded = self.encoder(stream)
        output: Tensor = self.head(encoded.mean(1) if self.token is None else encoded[:, 0])
        return output
