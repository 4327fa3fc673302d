"""Measures of single networks: each equals an independent, slow computation by definition."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import zoo
from zoo.errors import InvalidConfigError, UnknownNameError, WeightSpaceMismatchError
from zoo.measures import networks as measured
from zoo.measures.alignment import (
    descent_alignment,
    gradient_weight_alignment,
    last_weights,
    sample_alignments,
)
from zoo.measures.calibration import (
    NO_CLASS,
    calibration_error,
    confidence,
    entropy,
    predicted_classes,
)
from zoo.measures.cka import linear_cka, pairwise_cka
from zoo.measures.gradients import curvature, gradient
from zoo.measures.hessian import HessianConfig, hessian
from zoo.measures.networks import Networks, Samples
from zoo.measures.norms import distance, l2_norm, sparsity, spectral_norms, tensor_norms
from zoo.measures.patches import PatchConvolutions, convolve
from zoo.measures.sharpness import ascent_sharpness, filter_direction, random_sharpness
from zoo.networks import CNNConfig, MLPConfig, SirenConfig
from zoo.symmetry import random_weights

CNN = CNNConfig(
    in_channels=2, image_size=7, out_features=3, channels=(3, 5), activation="tanh", padding=1
)
NORMALISED = CNNConfig(
    in_channels=1, image_size=7, out_features=3, channels=(2, 3), activation="gelu", batch_norm=True
)
MLP = MLPConfig(in_features=4, hidden=(3, 5), out_features=3)
CONFIGS = {"cnn": CNN, "batch-norm": NORMALISED, "mlp": MLP}
SIREN = SirenConfig(hidden=(3, 5))
SAMPLES = 17
DIVERGED = 2


@cache
def space_of(config):
    return zoo.trace(config.build().eval(), config.example_input(2))


def networks_of(config, *, members=4, diverged=True, dtype=torch.float64):
    """Random networks, one of them diverged."""
    module = config.build().to(dtype).eval()
    space, generator = space_of(config), torch.Generator().manual_seed(0)
    drawn = [random_weights(space, generator) for _ in range(members)]
    vectors = torch.stack(drawn).to(dtype)
    if diverged:
        vectors[DIVERGED, 1] = torch.nan
    return Networks(module=module, space=space, vectors=vectors)


def samples_of(config, *, dtype=torch.float64):
    inputs = torch.randn(
        config.example_input(SAMPLES).shape, generator=torch.Generator().manual_seed(1)
    )
    return Samples(inputs=inputs.to(dtype), targets=torch.arange(SAMPLES) % 3)


def signals_of(networks):
    """A signal of each member's own."""
    generator = torch.Generator().manual_seed(2)
    inputs = 2 * torch.rand(SAMPLES, 2, generator=generator, dtype=torch.float64) - 1
    targets = torch.rand(networks.num_members, SAMPLES, 1, generator=generator).double()
    return Samples(inputs=inputs, targets=targets, loss=measured.squared_error, own_targets=True)


def loss_of(networks, samples, member):
    """The member's loss as a function of its parameters."""
    size = networks.space.num_trainable
    buffers = networks.vectors[member, size:]

    def loss(parameters):
        named = networks.space.state_dict(torch.cat([parameters, buffers]))
        named |= {name: value.detach() for name, value in named.items() if "running" in name}
        outputs = functional_call(networks.module, named, (samples.inputs,))
        return samples.loss(outputs, samples.targets_of(member))

    return loss, networks.vectors[member, :size]


def dense_hessian(networks, samples, member):
    return torch.autograd.functional.hessian(*loss_of(networks, samples, member))


def finite_members(networks):
    return [int(member) for member in np.flatnonzero(networks.finite)]


def every_measure(networks, samples, seeds):
    """All measures of single members, ``[n]`` each."""
    found = hessian(networks, samples, seeds=seeds, config=HessianConfig(max_steps=4, max_probes=3))
    descent, layers = descent_alignment(networks, samples)
    logits = networks.outputs(samples.inputs)
    return {
        "top eigenvalue": found.top_eigenvalue,
        "trace": found.trace,
        "descent": descent,
        **{f"descent of {layer}": values for layer, values in layers.items()},
        "gradient-weight": gradient_weight_alignment(sample_alignments(networks, samples)),
        "ascent": ascent_sharpness(networks, samples),
        "random": random_sharpness(networks, samples, seeds=seeds, num_directions=2),
        "loss": networks.losses(samples),
        "norm": l2_norm(networks),
        "sparsity": sparsity(networks, threshold=0.1),
        **{f"norm of {name}": values for name, values in tensor_norms(networks).items()},
        **{f"spectral {name}": values for name, values in spectral_norms(networks).items()},
        "distance": distance(networks, torch.zeros_like(networks.vectors)),
        "calibration": calibration_error(logits, samples.targets),
        "confidence": confidence(logits),
        "entropy": entropy(logits),
    }


# ---- company ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_number_depends_on_company(name, dtype):
    networks = networks_of(CONFIGS[name], dtype=dtype)
    samples = samples_of(CONFIGS[name], dtype=dtype)
    together = every_measure(networks, samples, [5, 6, 7, 8])
    alone = every_measure(networks.part(slice(3, 4)), samples, [8])
    for measure, values in together.items():
        assert np.isfinite(values[[0, 1, 3]]).all(), measure
        if measure not in ("calibration", "confidence", "entropy"):
            assert np.isnan(values[DIVERGED]), measure
        np.testing.assert_allclose(alone[measure][0], values[3], rtol=1e-6, err_msg=measure)
    assert together["trace"][0] != together["trace"][1]


def test_infinite_weights_are_diverged():
    networks = networks_of(MLP, diverged=False)
    vectors = networks.vectors.clone()
    vectors[0, 0] = torch.inf
    changed = Networks(module=networks.module, space=networks.space, vectors=vectors)
    for measure, values in every_measure(changed, samples_of(MLP), [1, 2, 3, 4]).items():
        assert np.isfinite(values[1:]).all(), measure
        if measure not in ("calibration", "confidence", "entropy"):
            assert np.isnan(values[0]), measure


# ---- networks and samples -----------------------------------------------------------------------
def test_outputs_and_losses_are_those_of_the_module():
    networks, samples = networks_of(NORMALISED), samples_of(NORMALISED)
    outputs = networks.outputs(samples.inputs, batch_size=5)
    losses = networks.losses(samples, batch_size=5)
    for member in finite_members(networks):
        networks.module.load_state_dict(
            networks.space.state_dict(networks.vectors[member]), strict=False
        )
        expected = networks.module(samples.inputs).detach()
        torch.testing.assert_close(outputs[member], expected)
        assert losses[member] == pytest.approx(float(F.cross_entropy(expected, samples.targets)))
    assert np.isnan(losses[DIVERGED])


def test_signals_have_targets_of_their_own():
    networks = networks_of(SIREN, diverged=False)
    samples = signals_of(networks)
    outputs = networks.outputs(samples.inputs)
    expected = (outputs - samples.targets).square().mean((1, 2))
    np.testing.assert_allclose(networks.losses(samples), expected)
    assert samples.part(slice(3)).targets.shape == (4, 3, 1)
    with pytest.raises(InvalidConfigError, match="targets of their own"):
        Samples(inputs=samples.inputs, targets=samples.targets)


def test_networks_say_what_is_wrong_with_them():
    networks = networks_of(MLP)
    with pytest.raises(InvalidConfigError, match="evaluation mode"):
        Networks(module=MLP.build().train(), space=networks.space, vectors=networks.vectors)
    with pytest.raises(InvalidConfigError, match=r"\[n, P\]"):
        Networks(module=networks.module, space=networks.space, vectors=networks.vectors[0])
    with pytest.raises(WeightSpaceMismatchError):
        Networks(module=networks.module, space=networks.space, vectors=networks.vectors[:, :-1])


# ---- convolutions as products -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "kernel"),
    [(1, 0, 1, (3, 3)), (2, 1, 1, (3, 2)), ((2, 1), (0, 2), (1, 2), (2, 3)), (3, 0, 1, (1, 1))],
)
def test_patches_convolve_to_second_order(stride, padding, dilation, kernel):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 2, 7, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(
        3, 2, *kernel, generator=generator, dtype=torch.float64, requires_grad=True
    )
    bias = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)

    def ours(images, weight, bias):
        return convolve(images, weight, bias, stride, padding, dilation)

    expected = F.conv2d(images, weight, bias, stride, padding, dilation)
    torch.testing.assert_close(ours(images, weight, bias), expected)
    torch.testing.assert_close(ours(images, weight, None), expected - bias[:, None, None])
    assert torch.autograd.gradcheck(ours, (images, weight, bias))
    assert torch.autograd.gradgradcheck(ours, (images, weight, bias))


@pytest.mark.parametrize(
    "options", [{"groups": 2, "stride": 2}, {"padding": "same"}, {}, {"stride": 2}]
)
def test_modules_convolve_alike_by_patches(options):
    module = nn.Conv2d(4, 6, 3, **options).double()
    images = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    expected = module(images)
    with PatchConvolutions():
        found = module(images)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last) == (options == {"stride": 2})


# ---- gradient and Hessian -----------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
def test_products_equal_the_dense_hessian(name):
    networks, samples = networks_of(CONFIGS[name]), samples_of(CONFIGS[name])
    operator = curvature(networks, 1, samples, chunk=5)
    dense = dense_hessian(networks, samples, 1)
    unit = torch.eye(operator.num_parameters, dtype=torch.float64)
    products = torch.stack([operator.product(row) for row in unit])
    torch.testing.assert_close(products, dense, rtol=1e-9, atol=1e-11)
    slope = torch.autograd.functional.jacobian(*loss_of(networks, samples, 1))
    torch.testing.assert_close(operator.gradient, slope)
    torch.testing.assert_close(gradient(networks, 1, samples, chunk=7), slope)


@pytest.mark.parametrize("name", CONFIGS)
def test_top_eigenvalue_is_that_of_the_dense_hessian(name):
    networks, samples = networks_of(CONFIGS[name]), samples_of(CONFIGS[name])
    config = HessianConfig(max_steps=3000, max_probes=0, tolerance=1e-12)
    found = hessian(networks, samples, seeds=[1, 2, 3, 4], config=config)
    for member in finite_members(networks):
        values = torch.linalg.eigvalsh(dense_hessian(networks, samples, member))
        expected = float(values[values.abs().argmax()])
        assert found.top_eigenvalue[member] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(found.trace).all()
    assert found.steps[DIVERGED] == 0
    assert (found.steps[finite_members(networks)] > 1).all()


def test_trace_is_within_its_stated_error():
    networks, samples = networks_of(MLP, diverged=False), samples_of(MLP)
    config = HessianConfig(max_steps=0, max_probes=100, tolerance=0)
    found = hessian(networks, samples, seeds=[1, 2, 3, 4], config=config)
    exact = [float(dense_hessian(networks, samples, member).trace()) for member in range(4)]
    deviation = np.abs(found.trace - exact) / found.trace_error
    assert (found.probes == 100).all()
    assert (deviation < 4).all()
    # Variance of one probe: twice the sum of squares off the diagonal (Hutchinson 1990).
    dense = dense_hessian(networks, samples, 0)
    spread = float((2 * (dense - dense.diag().diag()).square().sum()).sqrt())
    assert found.trace_error[0] == pytest.approx(spread / np.sqrt(100), rel=0.3)


def test_stopping_rules_are_those_of_pyhessian():
    """An independent loop over a dense matrix, with the same random vectors, stops alike."""
    networks, samples = networks_of(MLP, diverged=False), samples_of(MLP)
    found = hessian(networks, samples, seeds=[1, 2, 3, 4])
    for member, seed in enumerate([1, 2, 3, 4]):
        dense = dense_hessian(networks, samples, member).numpy()
        generator = torch.Generator().manual_seed(seed)
        vector = torch.randn(len(dense), generator=generator, dtype=torch.float64).numpy()
        values = []
        while len(values) < 100 and not (len(values) > 1 and _settled(values)):
            vector = vector / np.linalg.norm(vector)
            values.append(vector @ dense @ vector)
            vector = dense @ vector
        means, probes = [0.0], []
        while len(probes) < 100 and not (len(means) > 1 and _settled(means)):
            signs = 2.0 * torch.randint(0, 2, (len(dense),), generator=generator).numpy() - 1
            probes.append(signs @ dense @ signs)
            means.append(np.mean(probes))
        assert found.steps[member] == len(values)
        assert found.probes[member] == len(probes)
        assert found.top_eigenvalue[member] == pytest.approx(values[-1], rel=1e-9)
        assert found.trace[member] == pytest.approx(means[-1], rel=1e-9)


def _settled(values):
    return abs(values[-1] - values[-2]) / (abs(values[-2]) + 1e-6) < 1e-3


def test_fixed_numbers_of_products_are_taken():
    config = HessianConfig(max_steps=20, max_probes=20, tolerance=0)
    found = hessian(networks_of(MLP), samples_of(MLP), seeds=[1, 2, 3, 4], config=config)
    assert found.steps.tolist() == [20, 20, 0, 20]
    assert found.probes.tolist() == [20, 20, 0, 20]
    with pytest.raises(InvalidConfigError):
        HessianConfig(chunk=0)


def test_flat_losses_have_no_curvature():
    """A loss that is linear in the parameters has the Hessian 0."""
    networks = networks_of(MLPConfig(in_features=4, hidden=(), out_features=3), diverged=False)
    flat = Samples(
        inputs=samples_of(MLP).inputs,
        targets=torch.zeros(SAMPLES, 3).double(),
        loss=lambda outputs, targets: (outputs - targets).mean(),
    )
    found = hessian(networks, flat, seeds=[1, 2, 3, 4])
    assert found.top_eigenvalue.tolist() == [0] * 4
    assert found.trace.tolist() == [0] * 4


def test_hessian_of_signals_takes_each_members_own():
    networks = networks_of(SIREN, members=2, diverged=False)
    samples = signals_of(networks)
    config = HessianConfig(max_steps=3000, max_probes=0, tolerance=1e-12)
    found = hessian(networks, samples, seeds=[1, 2], config=config)
    for member in range(2):
        values = torch.linalg.eigvalsh(dense_hessian(networks, samples, member))
        expected = float(values[values.abs().argmax()])
        assert found.top_eigenvalue[member] == pytest.approx(expected, rel=1e-5)


# ---- alignment ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
def test_descent_alignment_by_definition(name):
    networks, samples = networks_of(CONFIGS[name]), samples_of(CONFIGS[name])
    whole, layers = descent_alignment(networks, samples)
    for member in finite_members(networks):
        loss, parameters = loss_of(networks, samples, member)
        slope = torch.autograd.functional.jacobian(loss, parameters)
        expected = F.cosine_similarity(parameters, -slope, dim=0)
        assert whole[member] == pytest.approx(float(expected), rel=1e-9)
    last = networks.space.tensor(last_weights(networks))
    start = networks.space.offsets[last.name]
    own = slice(start, start + last.numel + 3)  # with its bias
    expected = F.cosine_similarity(parameters[own], -slope[own], dim=0)
    assert layers[last.layer][member] == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradient_weight_alignment_in_closed_form(name):
    """The gradient of a linear head: residual times features (Hölzl et al., 2025)."""
    networks, samples = networks_of(CONFIGS[name]), samples_of(CONFIGS[name])
    found = sample_alignments(networks, samples, chunk=5)
    head = last_weights(networks)
    linear = networks.module.get_submodule(head.removesuffix(".weight"))
    for member in finite_members(networks):
        features = []
        handle = linear.register_forward_pre_hook(lambda _, args, f=features: f.append(args[0]))
        logits = networks.call(networks.vectors[member], samples.inputs).numpy()
        handle.remove()
        weights = networks.space.unflatten(networks.vectors[member])[head].numpy()
        expected = []
        for row, feature, target in zip(logits, features[0].numpy(), samples.targets, strict=True):
            residual = np.exp(row) / np.exp(row).sum() - np.eye(3)[target]
            slope = np.outer(residual, feature)
            lengths = np.linalg.norm(slope) * np.linalg.norm(weights)
            expected.append(-(slope * weights).sum() / lengths)
        np.testing.assert_allclose(found[member], expected, rtol=1e-8)
    summary = gradient_weight_alignment(found)
    values = found[0]
    centred = values - values.mean()
    kurtosis = (centred**4).mean() / (centred**2).mean() ** 2 - 3
    assert summary[0] == pytest.approx(values.mean() / (kurtosis + 1.2), rel=1e-9)
    assert np.isnan(summary[DIVERGED])


def test_alignment_names_what_it_does_not_know():
    networks = networks_of(MLP)
    with pytest.raises(UnknownNameError, match="tensor"):
        sample_alignments(networks, samples_of(MLP), tensor="nonsense")
    first = networks.space.tensors[0].name
    other = sample_alignments(networks, samples_of(MLP), tensor=first)
    assert not np.allclose(other[0], sample_alignments(networks, samples_of(MLP))[0])


# ---- sharpness ----------------------------------------------------------------------------------
@pytest.mark.parametrize("radius", [0.05, 0.3])
def test_ascent_sharpness_by_definition(radius):
    networks, samples = networks_of(CNN), samples_of(CNN)
    found = ascent_sharpness(networks, samples, radius=radius)
    for member in finite_members(networks):
        loss, parameters = loss_of(networks, samples, member)
        slope = torch.autograd.functional.jacobian(loss, parameters)
        step = radius * slope / slope.norm()
        assert found[member] == pytest.approx(float(loss(parameters + step) - loss(parameters)))
        assert found[member] > 0


def test_random_sharpness_by_definition():
    networks, samples = networks_of(CNN, diverged=False), samples_of(CNN)
    found = random_sharpness(networks, samples, seeds=[5, 6, 7, 8], radius=0.2, num_directions=3)
    loss, parameters = loss_of(networks, samples, 1)
    generator = torch.Generator().manual_seed(6)
    rises = [
        float(loss(parameters + 0.2 * filter_direction(networks, 1, generator)) - loss(parameters))
        for _ in range(3)
    ]
    assert found[1] == pytest.approx(np.mean(rises))
    with pytest.raises(InvalidConfigError, match="radius"):
        random_sharpness(networks, samples, seeds=[5, 6, 7, 8], radius=0)


def test_directions_are_as_long_as_filters():
    networks = networks_of(CNN, diverged=False)
    generator = torch.Generator().manual_seed(9)
    step = torch.cat([filter_direction(networks, 0, generator)])
    size = networks.space.num_trainable
    steps = networks.space.unflatten(torch.cat([step, networks.vectors[0, size:]]))
    weights = networks.space.unflatten(networks.vectors[0])
    for spec in networks.space.tensors:
        if spec.role == "bias":
            assert not steps[spec.name].any()
        else:
            torch.testing.assert_close(
                steps[spec.name].flatten(1).norm(dim=1), weights[spec.name].flatten(1).norm(dim=1)
            )
            assert not torch.allclose(steps[spec.name], weights[spec.name])


# ---- predictions --------------------------------------------------------------------------------
def random_logits(members=3, samples=50, classes=4):
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(members, samples, classes, generator=generator)
    return logits, torch.arange(samples) % classes


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_calibration_error_by_definition(num_bins):
    logits, targets = random_logits()
    found = calibration_error(logits, targets, num_bins=num_bins)
    edges = np.linspace(0, 1, num_bins + 1)
    for member, rows in enumerate(logits.double().numpy()):
        odds = np.exp(rows)
        shares = odds / odds.sum(-1, keepdims=True)
        sure, right = shares.max(-1), shares.argmax(-1) == targets.numpy()
        error = 0.0
        for low, high in pairwise(edges):
            inside = (sure > low) & (sure <= high)
            if inside.any():
                error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
        assert found[member] == pytest.approx(error, rel=1e-9)
        assert confidence(logits)[member] == pytest.approx(sure.mean(), rel=1e-9)
        spread = -(shares * np.log(shares)).sum(-1).mean()
        assert entropy(logits)[member] == pytest.approx(spread, rel=1e-9)


def test_calibration_of_certain_and_broken_networks():
    logits, targets = random_logits()
    logits[0] = 1e4 * F.one_hot(targets, 4)
    logits[1, 7, 2] = torch.nan
    assert calibration_error(logits, targets)[0] == 0
    assert entropy(logits)[0] == 0
    for values in (calibration_error(logits, targets), confidence(logits), entropy(logits)):
        assert np.isnan(values[1])
        assert np.isfinite(values[[0, 2]]).all()
    with pytest.raises(InvalidConfigError, match="bin"):
        calibration_error(logits, targets, num_bins=0)


def test_close_calls_are_decided_in_float64():
    networks = networks_of(MLP, dtype=torch.float32)
    samples = samples_of(MLP, dtype=torch.float32)
    logits = networks.outputs(samples.inputs)
    expected = predicted_classes(networks, samples.inputs)
    np.testing.assert_array_equal(expected[0], logits[0].argmax(-1))
    assert (expected[DIVERGED] == NO_CLASS).all()
    wrong = logits.clone()
    wrong[0, 4] = torch.tensor([1.0, 1.0, 1.0])  # tells nothing: the float64 network decides
    wrong[0, 5] = torch.tensor([0.0, 0.0, 1.0])  # tells enough
    found = predicted_classes(networks, samples.inputs, logits=wrong)
    assert found[0, 4] == expected[0, 4]
    assert found[0, 5] == 2


# ---- norms --------------------------------------------------------------------------------------
def test_norms_by_numpy():
    networks = networks_of(NORMALISED)
    vectors, size = networks.vectors.numpy(), networks.space.num_trainable
    assert size < networks.space.num_parameters
    whole, each = l2_norm(networks), tensor_norms(networks)
    spectral, shares = spectral_norms(networks), sparsity(networks, threshold=0.3)
    assert len(spectral) == 3
    assert not any("running" in name for name in each)
    for member in finite_members(networks):
        own = vectors[member, :size]
        assert whole[member] == pytest.approx(np.sqrt((own**2).sum()))
        assert shares[member] == pytest.approx(np.mean([abs(w) <= 0.3 for w in own]))
        tensors = networks.space.unflatten(networks.vectors[member])
        for name, values in each.items():
            assert values[member] == pytest.approx(np.sqrt((tensors[name].numpy() ** 2).sum()))
        for name, values in spectral.items():
            matrix = tensors[name].numpy().reshape(len(tensors[name]), -1)
            singular = np.linalg.svd(matrix, compute_uv=False)
            assert values[member] == pytest.approx(singular[0])
    assert (sparsity(networks)[finite_members(networks)] == 0).all()


def test_distance_from_initial_weights():
    networks = networks_of(MLP)
    origins = networks.vectors.clone()
    origins[DIVERGED] = 0
    origins[0, :2] += torch.tensor([3.0, 4.0])
    origins[3, 0] = torch.inf
    found = distance(networks, origins)
    assert found[0] == pytest.approx(5)
    assert found[1] == 0
    assert np.isnan(found[[DIVERGED, 3]]).all()
    with pytest.raises(WeightSpaceMismatchError, match="one for each member"):
        distance(networks, origins[:3])


# ---- similarity ---------------------------------------------------------------------------------
def kernel_alignment(first, second, dependence):
    """Alignment of kernel matrices with explicit loops over samples."""
    kernels = [
        np.array([[float(a @ b) for b in features] for a in features])
        for features in (first, second)
    ]
    one, two = kernels
    return dependence(one, two) / np.sqrt(dependence(one, one) * dependence(two, two))


def biased(one, two):
    """Kornblith et al. 2019, Eq. (3)."""
    n = len(one)
    centre = np.eye(n) - np.ones((n, n)) / n
    return np.trace(one @ centre @ two @ centre) / (n - 1) ** 2


def unbiased(one, two):
    """Song et al. 2012, Eq. (5), with every sum spelled out."""
    n = len(one)
    one, two = one - np.diag(np.diag(one)), two - np.diag(np.diag(two))
    trace = sum(one[i, j] * two[j, i] for i in range(n) for j in range(n))
    sums = one.sum() * two.sum() / ((n - 1) * (n - 2))
    mixed = sum(one[:, k].sum() * two[k].sum() for k in range(n)) * 2 / (n - 2)
    return (trace + sums - mixed) / (n * (n - 3))


@pytest.mark.parametrize("flag", [False, True])
def test_cka_by_definition(flag):
    generator = torch.Generator().manual_seed(4)
    first = torch.randn(3, 11, 4, generator=generator, dtype=torch.float64) + 2
    second = torch.randn(3, 11, 5, generator=generator, dtype=torch.float64) - 1
    second[..., :2] += first[..., :2]
    found = linear_cka(first, second, unbiased=flag)
    for pair in range(3):
        expected = kernel_alignment(
            first[pair].numpy(), second[pair].numpy(), unbiased if flag else biased
        )
        assert found[pair] == pytest.approx(expected, rel=1e-9)


def test_cka_ignores_rotations_and_factors_but_not_shears():
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(1, 20, 3, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator).double())[0]
    assert linear_cka(features, 7 * features @ rotation + 3)[0] == pytest.approx(1)
    shear = torch.tensor([[1.0, 9, 0], [0, 1, 0], [0, 0, 1]]).double()
    assert linear_cka(features, features @ shear)[0] < 0.9


def test_unbiased_cka_of_few_samples_is_fair():
    """Independent features: the biased estimate is far from 0, the unbiased one is not."""
    generator = torch.Generator().manual_seed(6)
    first, second = torch.randn(2, 200, 12, 30, generator=generator, dtype=torch.float64)
    assert linear_cka(first, second).mean() > 0.6
    assert abs(linear_cka(first, second, unbiased=True).mean()) < 0.02


def test_pairs_of_members_are_compared():
    networks, samples = networks_of(MLP), samples_of(MLP)
    logits = networks.outputs(samples.inputs)
    pairs = np.array([[0, 1], [3, 0], [1, DIVERGED]])
    found = pairwise_cka(logits, pairs)
    assert found[1] == pytest.approx(linear_cka(logits[[3]], logits[[0]])[0])
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2])
    constant = torch.ones(1, 9, 3)
    assert np.isnan(linear_cka(constant, constant))
    with pytest.raises(InvalidConfigError, match="same samples"):
        linear_cka(logits[:1, :5], logits[:1, :6])
    assert pairwise_cka(logits, np.zeros((0, 2), np.int64)).shape == (0,)
