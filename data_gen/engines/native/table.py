"""The table that kernels read instead of code: a record per operator, and per plane of numbers.

A network becomes numbers in a table, so a new architecture needs no compilation.

Numbers of a sample lie as ``[y, x, channel]``; channels are filled up with zeros to a multiple of 8
and planes may have an edge of zeros around them. A vector is a plane of one pixel. Weights lie as
``[ky, kx, in, out]``. Everything a member needs is one array of float32, its *memory*; tables hold
offsets into it.
"""

import numpy as np

LANES = 8
"""Channels are filled up to a multiple of this."""
ONE, ZERO = 0, 16
"""Offsets of a one, and of as many zeros as any plane has channels."""

# ---- what a row does ----------------------------------------------------------------------------
(LINEAR, CONV, ACTIVATE, DROP, SCALE, NORM, MAX_POOL, AVERAGE_POOL, COPY, FLATTEN) = range(10)
(RELU, LEAKY_RELU, ELU, GELU, GELU_TANH, SILU, SIGMOID, TANH, SINE, COSINE, SOFTPLUS) = range(11)
SKIP, SET, ADD = range(3)
"""What becomes of a source's gradient."""

# ---- what is computed ---------------------------------------------------------------------------
(CROSS_ENTROPY, BINARY_CROSS_ENTROPY, SQUARED_ERROR) = range(3)
(EVALUATE, DIFFERENTIATE, SGD, NESTEROV, ADAM, ADAMW, RMSPROP) = range(7)


def _integers(names: str) -> list[tuple[str, type]]:
    return [(name, np.int64) for name in names.split()]


ROW = np.dtype(
    [
        *_integers("op source target mode"),
        # size of a kernel or window, stride, padding
        *_integers("ky kx sy sx py px"),
        # offsets of weights or gains; of biases, shifts, or zeros; of weights with in and out
        # exchanged; of what backward needs; of a deviation per sample and channel
        *_integers("weight bias turned slope stats"),
        # which activation; COPY adds for 1; NORM has gains per entry for 1
        *_integers("kind groups"),
        # whether ReLU is part of the product before it; uniform numbers that earlier rows take
        *_integers("fused has_bias first_draw"),
        # of SCALE; the probability of DROP, the parameter of an activation, NORM's epsilon
        ("factor", np.float32),
        ("shift", np.float32),
    ]
)
"""One operator; ``source`` and ``target`` are planes, the same for what works in place."""

PLANE = np.dtype(
    [
        # ``wide`` counts channels with their filling
        *_integers("channels wide height width"),
        # pixels of zeros around, offset of the first sample, from sample to sample
        *_integers("edge data data_step"),
        *_integers("grad_edge grad grad_step"),
    ]
)
"""Numbers of one sample between operators, and their gradients."""

PLAN = np.dtype(
    _integers(
        "weights gradient moment1 moment2 num_weights input output scratch draws batch memory"
    )
)
"""Offsets of what the whole network has; ``input`` and ``output`` are planes, ``draws`` the uniform
numbers that dropout takes per sample, ``batch`` the samples that go through the network together,
``memory`` the numbers of all."""

SETTINGS = np.dtype(
    [
        (name, np.float64)
        for name in ("weight_decay", "has_decay", "momentum", "clip_norm", "temperature", "dropout")
    ]
)
"""A member's own; ``dropout`` below 0 leaves each row its own probability."""
