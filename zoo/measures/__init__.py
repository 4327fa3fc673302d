"""What can be measured of stored networks after the fact, and stored beside them."""

from zoo.measures.batch import SampleConfig, subset
from zoo.measures.job import MeasurePlan, MeasureRun
from zoo.measures.measure import Batch, Measure
from zoo.measures.networks import Networks, Samples
from zoo.measures.predictions import unpacked
from zoo.measures.registry import REGISTRY, measure_named
from zoo.measures.workers import measure_population

__all__ = [
    "REGISTRY",
    "Batch",
    "Measure",
    "MeasurePlan",
    "MeasureRun",
    "Networks",
    "SampleConfig",
    "Samples",
    "measure_named",
    "measure_population",
    "subset",
    "unpacked",
]
