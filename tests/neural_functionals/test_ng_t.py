from neural_functionals.models.ng_t import NGT
from neural_functionals.testing import InvariantModelContract

SMALL = {
    "node_width": 6,
    "edge_width": 5,
    "attention_width": 8,
    "num_heads": 2,
    "node_hidden": 7,
    "edge_hidden": 6,
    "hidden": (9,),
}


class TestNGT(InvariantModelContract):
    def make_model(self, space):
        return NGT(space, num_layers=3, num_waves=6, **SMALL)


class TestNGTMean(InvariantModelContract):
    def make_model(self, space):
        return NGT(space, num_layers=2, num_waves=0, readout="mean", num_outputs=2, **SMALL)
