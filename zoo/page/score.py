"""The one number that says how good a member is, by what it was trained for."""

from dataclasses import dataclass

from zoo.store import Population


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric as people read it.

    Parameters
    ----------
    name
        Of the metric.
    text
        What it is called in a sentence.
    unit
        Its unit.
    meaning
        A sentence on its range.
    """

    name: str
    text: str
    unit: str = ""
    meaning: str = ""

    @property
    def title(self) -> str:
        """The text with a capital letter."""
        return self.text[:1].upper() + self.text[1:]

    @property
    def axis(self) -> str:
        """Label of an axis."""
        return f"{self.text} ({self.unit})" if self.unit else self.text


_KNOWN = (
    Score(
        name="test_accuracy",
        text="test accuracy",
        unit="fraction",
        meaning="Accuracy is a fraction in [0, 1].",
    ),
    Score(name="psnr", text="PSNR", unit="dB", meaning="PSNR is in dB, more is better."),
    Score(name="test_r2", text="test R2", meaning="R2 is 1 where predictions are perfect."),
    Score(
        name="relative_error",
        text="relative error",
        meaning="Errors are relative to the reference solution's norm, less is better.",
    ),
)


def score_of(population: Population) -> Score | None:
    """Return the metric that says how good members are: a known one, else the last."""
    for score in _KNOWN:
        if score.name in population.metrics:
            return score
    if not population.metrics:
        return None
    last = population.metrics[-1]
    return Score(name=last, text=last.replace("_", " "))
