"""Small networks of every kind, each a function that gives a module and example inputs.

Widths differ wherever they may, so that swapped axes fail; batches hold two or three samples.
"""

from . import (
    attention,
    convolutional,
    language,
    mixers,
    mobile,
    perceptrons,
    pretrained_style,
    recurrent,
    residual,
    unusual,
)
from .inputs import Factory, count

__all__ = ["ARCHITECTURES", "HUGGING_FACE", "Factory", "count"]

HUGGING_FACE = tuple(pretrained_style.ARCHITECTURES)
"""Names that need ``transformers``."""

ARCHITECTURES: dict[str, Factory] = {
    **perceptrons.ARCHITECTURES,
    **convolutional.ARCHITECTURES,
    **residual.ARCHITECTURES,
    **mobile.ARCHITECTURES,
    **attention.ARCHITECTURES,
    **mixers.ARCHITECTURES,
    **language.ARCHITECTURES,
    **recurrent.ARCHITECTURES,
    **unusual.ARCHITECTURES,
    **pretrained_style.ARCHITECTURES,
}
