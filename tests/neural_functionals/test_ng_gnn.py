from neural_functionals.models.ng_gnn import NGGNN
from neural_functionals.testing import InvariantModelContract


class TestNGGNN(InvariantModelContract):
    def make_model(self, space):
        return NGGNN(space, width=8, num_layers=3, num_waves=6, hidden=(7,))


class TestNGGNNMean(InvariantModelContract):
    def make_model(self, space):
        return NGGNN(space, width=7, num_layers=2, num_waves=0, readout="mean", num_outputs=2)
