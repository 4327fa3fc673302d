"""What a neural functional is trained for: loss, metrics and optimiser around it."""

from neural_functionals.tasks.checkpoint import load
from neural_functionals.tasks.property import PropertyRegression, Scores, predict, score
from neural_functionals.tasks.training import train_property

__all__ = ["PropertyRegression", "Scores", "load", "predict", "score", "train_property"]
