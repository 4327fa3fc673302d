"""Images of another size: cut to the middle, then scaled."""

from dataclasses import replace

from torch import Tensor
from torch.nn import functional

from zoo.errors import InvalidConfigError
from zoo.problems.problem import Problem


def resize(known: Problem, *, size: int = 0, crop: int = 0) -> Problem:
    """Cut the middle of a problem's images, then scale it, with antialiasing [1]_.

    Parameters
    ----------
    known
        A problem of images ``[n, channel, y, x]``.
    size
        Side of the images in the end, in pixels; 0 leaves it.
    crop
        Side of the middle that is kept; 0 keeps all.

    Raises
    ------
    InvalidConfigError
        If the inputs are no images, or the middle is larger than they are.

    References
    ----------
    .. [1] Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation",
       CVPR 2022.
    """
    shape = tuple(known.train_inputs.shape)
    if len(shape) != 4 or min(size, crop) < 0 or crop > min(shape[2:]):
        raise InvalidConfigError(
            f"Expected images [n, channel, y, x] and a middle inside of them, got inputs of shape "
            f"{shape} in problem {known.name!r}, size {size} and crop {crop}."
        )
    return replace(
        known,
        config={"name": "resized", "base": known.config, "size": size, "crop": crop},
        train_inputs=_resized(known.train_inputs, size, crop),
        test_inputs=_resized(known.test_inputs, size, crop),
    )


def _resized(images: Tensor, size: int, crop: int) -> Tensor:
    height, width = images.shape[2:]
    if crop:
        top, left = (height - crop) // 2, (width - crop) // 2
        images = images[:, :, top : top + crop, left : left + crop]
    if size:
        images = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return images.contiguous()
