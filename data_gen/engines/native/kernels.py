"""The kernels that Python calls: batches through a network, and how good its outputs are."""

import numpy as np
from numba import boolean, float32, float64, int64, types

from data_gen.engines.native import lines
from data_gen.engines.native import table as t
from data_gen.engines.native.jit import array, entry
from data_gen.engines.native.losses import cross_entropy, judge, regression
from data_gen.engines.native.passes import backward, forward, load, turn_all
from data_gen.engines.native.planes import pixel
from data_gen.engines.native.updates import update


@entry(
    types.Tuple((float64, int64, boolean))(  # type: ignore[no-untyped-call]
        int64,
        array(t.ROW),
        array(t.PLANE),
        array(t.PLAN),
        array(float32, writes=True),
        array(float32, 2),
        array(int64),
        array(float32, 2),
        array(int64, 2),
        int64,
        int64,
        array(t.SETTINGS),
        array(float64),
        int64,
        int64,
        array(float32),
        array(float32, 2, writes=True),
    )
)
def run(
    product: int,
    rows: np.ndarray,
    planes: np.ndarray,
    plans: np.ndarray,
    memory: np.ndarray,
    inputs: np.ndarray,
    classes: np.ndarray,
    truths: np.ndarray,
    batches: np.ndarray,
    loss: int,
    rule: int,
    all_settings: np.ndarray,
    rates: np.ndarray,
    steps_done: int,
    check_every: int,
    draws: np.ndarray,
    outputs: np.ndarray,
) -> tuple[float, int, bool]:
    """Take one step per batch: evaluate, differentiate, or train by a rule.

    Parameters
    ----------
    product
        :func:`~data_gen.engines.native.tile.address`.
    rows, planes, plans
        The network, as :mod:`~data_gen.engines.native.table` says; one plan.
    memory
        The member, weights in place.
    inputs
        ``[n, numbers of a sample]``.
    classes, truths
        Targets ``[n]`` of CROSS_ENTROPY, ``[n, outputs]`` of the other losses.
    batches
        Samples of each step ``[steps, batch]``.
    loss, rule
        Names of the table's module.
    all_settings, rates
        The member's settings, one; its learning rate at each step ``[steps]``.
    steps_done
        Steps that the update rule has taken before.
    check_every
        After each so many steps, stop if a weight is not finite.
    draws
        Uniform numbers for dropout; none where nothing is dropped.
    outputs
        Where EVALUATE writes ``[steps * batch, outputs]``.

    Returns
    -------
    tuple[float, int, bool]
        Sum of the losses of all samples (0 for EVALUATE), the steps taken, and False if they ended
        because of a weight.
    """
    plan, settings, batch = plans[0], all_settings[0], batches.shape[1]
    last, shift, total = planes[plan.output], plan.gradient - plan.weights, 0.0
    drawn = plan.draws * batch if len(draws) else 0
    for step in range(len(batches)):
        numbers = draws[step * drawn : (step + 1) * drawn]
        if rule != t.EVALUATE:
            gradient = memory[plan.gradient : plan.gradient + plan.num_weights]
            lines.fill(gradient, np.float32(0))
            turn_all(rows, planes, memory)
        for done in range(0, batch, plan.batch):
            indices = batches[step, done : min(done + plan.batch, batch)]
            count = len(indices)
            load(planes[plan.input], memory, inputs, indices)
            forward(
                product,
                rows,
                planes,
                memory,
                count,
                plan.scratch,
                numbers,
                done,
                batch,
                np.float32(settings.dropout),
            )
            if rule == t.EVALUATE:
                for sample in range(count):
                    at, out = pixel(last, sample, 0, 0), outputs[step * batch + done + sample]
                    lines.copy(out, memory[at : at + len(out)])
                continue
            if loss == t.CROSS_ENTROPY:
                temperature = np.float32(settings.temperature)
                total = cross_entropy(total, last, memory, classes, indices, batch, temperature)
            else:
                total = regression(total, loss, last, memory, truths, indices, batch)
            backward(product, rows, planes, memory, count, plan.scratch, shift, drawn > 0)
        if rule >= t.SGD:
            update(rule, plan, memory, settings, rates[step], steps_done + step + 1)
            weights = memory[plan.weights : plan.weights + plan.num_weights]
            if (step + 1) % check_every == 0 and not lines.is_finite(weights):
                return total, step + 1, False
    return total, len(batches), True


@entry(
    float64(
        array(float32, 2, writes=True),
        array(int64),
        float32,
        array(int64, writes=True),
        array(boolean, writes=True),
    )
)
def score(
    logits: np.ndarray, targets: np.ndarray, margin: float, predicted: np.ndarray, close: np.ndarray
) -> float:
    """Judge logits ``[n, classes]``, which are overwritten; return their loss.

    Fills ``predicted`` and ``close``, ``[n]`` each.
    """
    total: float = judge(logits, targets, margin, predicted, close)
    return total / len(logits)
