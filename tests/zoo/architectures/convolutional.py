"""Plain convolutional nets: classifiers, autoencoders, U-Nets, in one to three dimensions."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from zoo.networks import CNNConfig, build

from .inputs import Factory, noise

VGG16 = (4, 4, "pool", 6, 6, "pool", 8, 8, 8, "pool", 10, 10, 10, "pool", 12, 12, 12, "pool")


class LeNet(nn.Module):
    """Two convolutions, a flatten, three linear layers, called functionally."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 6, 3)
        self.fc1, self.fc2, self.fc3 = nn.Linear(6 * 3 * 3, 9), nn.Linear(9, 7), nn.Linear(7, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


def vgg(plan: Sequence[int | str], linear: Sequence[int], *, group_norm: bool = False):
    """Three by three convolutions with normalisation and pooling, then linear layers."""
    features: list[nn.Module] = []
    width = 3
    for step in plan:
        if isinstance(step, str):
            features.append(nn.MaxPool2d(2))
            continue
        norm = nn.GroupNorm(2, step) if group_norm else nn.BatchNorm2d(step)
        features += [nn.Conv2d(width, step, 3, padding=1), norm, nn.ReLU()]
        width = step
    classifier: list[nn.Module] = [nn.Flatten()]
    for fan_out in linear:
        classifier += [nn.Linear(width, fan_out), nn.ReLU(), nn.Dropout()]
        width = fan_out
    return nn.Sequential(*features, *classifier[:-2])


class UNet(nn.Module):
    """Two levels; each skip is concatenated with what a transposed convolution brings up."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([self.stage(2, 4), self.stage(4, 6)])
        self.bottom = self.stage(6, 9)
        self.lift = nn.ModuleList(
            [nn.ConvTranspose2d(9, 7, 2, stride=2), nn.ConvTranspose2d(8, 5, 2, stride=2)]
        )
        self.up = nn.ModuleList([self.stage(7 + 6, 8), self.stage(5 + 4, 7)])
        self.head = nn.Conv2d(7, 3, 1)

    @staticmethod
    def stage(fan_in, fan_out):
        conv = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        return nn.Sequential(conv, nn.BatchNorm2d(fan_out), nn.LeakyReLU(0.1))

    def forward(self, x):
        skips = []
        for stage in self.down:
            skips.append(stage(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for lift, stage, skip in zip(self.lift, self.up, reversed(skips), strict=True):
            x = stage(torch.cat([lift(x), skip], dim=1))
        return self.head(x)


class FeaturePyramid(nn.Module):
    """Lateral convolutions and nearest upsampling merge three scales; one head is shared."""

    def __init__(self):
        super().__init__()
        widths = (3, 4, 6, 8)
        self.bottom_up = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1)
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, 5, 1) for width in widths[1:])
        self.smooth, self.head = nn.Conv2d(5, 7, 3, padding=1), nn.Conv2d(7, 2, 1)

    def forward(self, x):
        levels = []
        for conv, lateral in zip(self.bottom_up, self.lateral, strict=True):
            x = F.relu(conv(x))
            levels.append(lateral(x))
        for level in (1, 0):
            levels[level] = levels[level] + F.interpolate(levels[level + 1], scale_factor=2)
        return tuple(self.head(F.relu(self.smooth(level))) for level in levels)


class Fire(nn.Module):
    """SqueezeNet: a squeeze, then two expansions side by side."""

    def __init__(self, fan_in, squeeze, small, large):
        super().__init__()
        self.squeeze = nn.Conv2d(fan_in, squeeze, 1)
        self.small, self.large = nn.Conv2d(squeeze, small, 1), nn.Conv2d(squeeze, large, 3, 1, 1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.small(x)), F.relu(self.large(x))], dim=1)


class Inception(nn.Module):
    """GoogLeNet: four branches of different receptive field, concatenated."""

    def __init__(self, fan_in, plain, three, five, pooled):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                self.conv(fan_in, plain, 1),
                nn.Sequential(self.conv(fan_in, three[0], 1), self.conv(*three, 3)),
                nn.Sequential(self.conv(fan_in, five[0], 1), self.conv(*five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), self.conv(fan_in, pooled, 1)),
            ]
        )

    @staticmethod
    def conv(fan_in, fan_out, kernel):
        conv = nn.Conv2d(fan_in, fan_out, kernel, padding=kernel // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(fan_out), nn.ReLU())

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Upscale(nn.Module):
    """Super-resolution: residual convolutions, then channels become pixels, twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.grow, self.last = nn.Conv2d(5, 3 * 4, 3, padding=1), nn.Conv2d(3, 2 * 4, 3, padding=1)
        self.slope = nn.PReLU(5)

    def forward(self, x):
        x = self.slope(self.conv1(x))
        x = F.pixel_shuffle(self.grow(x + self.conv2(x)), 2)
        return F.pixel_shuffle(self.last(torch.tanh(x)), 2)


class StyleTransfer(nn.Module):
    """Reflection padding and instance normalisation."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 7, 3)
        self.conv3 = nn.Conv2d(7, 3, 3)
        self.norm1, self.norm2 = nn.InstanceNorm2d(4, affine=True), nn.InstanceNorm2d(7)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(F.pad(x, (1, 1, 1, 1), mode="reflect"))))
        x = F.relu(self.norm2(self.conv2(F.pad(x, (1, 1, 1, 1), mode="replicate"))))
        return torch.sigmoid(self.conv3(F.pad(x, (1, 1, 1, 1), value=0.5)))


class Causal(nn.Module):
    """A time series: dilated causal convolutions, weighted mean over time."""

    def __init__(self):
        super().__init__()
        widths = (2, 5, 5, 5)
        self.convs = nn.ModuleList(
            nn.Conv1d(a, b, 3, dilation=2**i)
            for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.score, self.head = nn.Conv1d(5, 1, 1), nn.Linear(5, 4)

    def forward(self, x):
        for i, conv in enumerate(self.convs):
            new = F.elu(conv(F.pad(x, (2 ** (i + 1), 0))))
            x = new if i == 0 else x + new
        return self.head((x * self.score(x).softmax(dim=-1)).sum(dim=-1))


def squeeze_net() -> nn.Module:
    stem = [nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
    fires = [Fire(5, 3, 4, 6), Fire(10, 4, 5, 7), nn.Conv2d(12, 6, 1), nn.ReLU()]
    return nn.Sequential(*stem, *fires, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def inception() -> nn.Module:
    stages = [Inception(3, 4, (3, 5), (2, 3), 2), Inception(14, 3, (4, 6), (3, 2), 5)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 2 * 2, 5), nn.Linear(5, 7 * 2 * 2), nn.Unflatten(1, (7, 2, 2)),
        nn.ConvTranspose2d(7, 3, 4, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU(),
        nn.ConvTranspose2d(3, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
    )  # fmt: skip


def volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3), nn.Softplus(), nn.MaxPool3d(2),
        nn.Conv3d(3, 5, (1, 2, 2)), nn.Mish(), nn.AdaptiveAvgPool3d((2, 1, 1)), nn.Flatten(),
        nn.Linear(5 * 2, 4),
    )  # fmt: skip


def small_cnn() -> nn.Module:
    return build(CNNConfig(in_channels=1, image_size=16, channels=(4, 6, 5), out_features=3))


ARCHITECTURES: dict[str, Factory] = {
    "small-cnn": lambda: (small_cnn(), (noise(2, 1, 16, 16),)),
    "lenet": lambda: (LeNet(), (noise(2, 3, 20, 20),)),
    "vgg16-batch-norm": lambda: (vgg(VGG16, (14, 11, 5)), (noise(2, 3, 32, 32),)),
    "vgg-group-norm": lambda: (
        vgg((4, "pool", 6, 8, "pool", 10, "pool"), (7,), group_norm=True),
        (noise(2, 3, 8, 8),),
    ),
    "unet": lambda: (UNet(), (noise(2, 2, 8, 8),)),
    "feature-pyramid": lambda: (FeaturePyramid(), (noise(2, 3, 16, 16),)),
    "squeezenet": lambda: (squeeze_net(), (noise(2, 3, 16, 16),)),
    "inception": lambda: (inception(), (noise(2, 3, 7, 7),)),
    "pixel-shuffle": lambda: (Upscale(), (noise(2, 1, 5, 6),)),
    "style-transfer": lambda: (StyleTransfer(), (noise(2, 3, 6, 5),)),
    "causal-conv1d": lambda: (Causal(), (noise(3, 2, 11),)),
    "conv-autoencoder": lambda: (autoencoder(), (noise(2, 1, 8, 8),)),
    "conv3d": lambda: (volumes(), (noise(2, 1, 6, 4, 4),)),
}
