from neural_functionals.models.gmn import GMN
from neural_functionals.testing import InvariantModelContract


class TestGMN(InvariantModelContract):
    def make_model(self, space):
        return GMN(space, width=6, num_layers=2, hidden=(7,))


class TestGMNKernelsAsFeatures(InvariantModelContract):
    def make_model(self, space):
        return GMN(space, width=7, num_layers=3, parallel_edges=False, num_outputs=2)
