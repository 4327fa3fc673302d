"""ONNX models, built here node by node, become members."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from onnx.reference import ReferenceEvaluator

from zoo.convert.onnx import onnx_models, read_onnx, recognise
from zoo.convert.sink import write
from zoo.convert.torch_files import UnreadableFileError
from zoo.networks import LeNetConfig, build, to_dict
from zoo.store import open as open_zoo

CONFIG = LeNetConfig(
    in_channels=2,
    image_size=5,
    out_features=4,
    channels=(3,),
    kernel_sizes=(3,),
    pools=(),
    hidden=(7,),
)
NAMES = {  # ONNX's names of our tensors
    "convs.0.weight": "conv.W",
    "convs.0.bias": "conv.B",
    "linears.0.weight": "fc1.W",
    "linears.0.bias": "fc1.B",
    "linears.1.weight": "fc2.W",
    "linears.1.bias": "fc2.B",
}


def module(seed):
    torch.manual_seed(seed)
    return build(CONFIG).eval()


def model_of(net, *, matmul, properties=()):
    """Build the graph: one layer by Gemm with transB, one by MatMul or Gemm without."""
    state = {NAMES[name]: tensor.numpy() for name, tensor in net.state_dict().items()}
    state["fc2.W"] = np.ascontiguousarray(state["fc2.W"].T)  # [in, out]
    last = (
        [
            helper.make_node("MatMul", ["a1", "fc2.W"], ["m"]),
            helper.make_node("Add", ["m", "fc2.B"], ["y"]),
        ]
        if matmul
        else [helper.make_node("Gemm", ["a1", "fc2.W", "fc2.B"], ["y"])]
    )
    nodes = [
        helper.make_node("Conv", ["x", "conv.W", "conv.B"], ["c"]),
        helper.make_node("Relu", ["c"], ["a0"]),
        helper.make_node("Flatten", ["a0"], ["f"]),
        helper.make_node("Gemm", ["f", "fc1.W", "fc1.B"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["a1"]),
        *last,
    ]
    counter = numpy_helper.from_array(np.array([3], np.int64), "steps")
    scalar = numpy_helper.from_array(np.array(0.5, np.float32), "scale")
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        [
            *(numpy_helper.from_array(values, name) for name, values in state.items()),
            counter,
            scalar,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in properties:
        model.metadata_props.add(key=key, value=value)
    return model


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("matmul", [True, False])
def test_every_network_computes_what_the_graph_does(tmp_path, matmul):
    folder = tmp_path / "models"
    folder.mkdir()
    models = []
    for seed in range(2):
        models.append(model_of(module(seed), matmul=matmul, properties=[("lr", f"0.{seed + 1}")]))
        assert recognise(save(models[-1], folder / f"{seed}.onnx"))
    report = write(onnx_models(folder), tmp_path / "zoo.zarr", name="o", networks=[to_dict(CONFIG)])
    assert report.skipped == ()
    assert report.populations[0].is_known
    population = open_zoo(tmp_path / "zoo.zarr")["o"]
    images = np.random.default_rng(0).normal(size=(3, 2, 5, 5)).astype(np.float32)
    for seed, model in enumerate(models):
        (wanted,) = ReferenceEvaluator(model).run(None, {"x": images})
        with torch.no_grad():
            got = population.module(seed)(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert population.table["lr"].to_list() == [0.1, 0.2]


def test_only_weights_are_taken(tmp_path):
    path = save(model_of(module(0), matmul=False), tmp_path / "x.onnx")
    assert set(read_onnx(path).tensors) == set(NAMES.values())


def external(folder, location):
    """Write a model that keeps one tensor in another file."""
    model = model_of(module(0), matmul=False)
    tensor = next(each for each in model.graph.initializer if each.name == "fc1.W")
    held = folder / location
    held.parent.mkdir(parents=True, exist_ok=True)
    held.write_bytes(tensor.raw_data)
    set_external_data(tensor, location=location)
    tensor.ClearField("raw_data")
    folder.mkdir(exist_ok=True)
    return save(model, folder / "x.onnx"), held


def test_numbers_in_other_files_are_read_from_inside_the_folder_only(tmp_path):
    inside, held = external(tmp_path / "a", "data/fc1.bin")
    wanted = module(0).state_dict()["linears.0.weight"].numpy()
    np.testing.assert_array_equal(read_onnx(inside).tensors["fc1.W"], wanted)
    held.unlink()
    with pytest.raises(UnreadableFileError, match="which is missing"):
        read_onnx(inside)
    outside, _ = external(tmp_path / "b", "../secret.bin")
    with pytest.raises(UnreadableFileError, match="outside of its folder: refused"):
        read_onnx(outside)


def test_damaged_models_are_listed(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    good = save(model_of(module(0), matmul=False), folder / "good.onnx")
    (folder / "cut.onnx").write_bytes(good.read_bytes()[:200])
    (folder / "empty.onnx").write_bytes(b"")
    short = model_of(module(1), matmul=False)
    short.graph.initializer[0].raw_data = short.graph.initializer[0].raw_data[:-4]
    save(short, folder / "short.onnx")
    both = model_of(module(1), matmul=False)
    both.graph.node.append(helper.make_node("MatMul", ["a0", "fc1.W"], ["unused"]))
    save(both, folder / "tied.onnx")
    report = write(onnx_models(folder), tmp_path / "zoo.zarr", name="o")
    reasons = {each.name: each.reason for each in report.skipped}
    assert set(reasons) == {"cut.onnx", "empty.onnx", "short.onnx", "tied.onnx"}
    assert "damaged" in reasons["cut.onnx"]
    assert reasons["empty.onnx"] == "holds no floating-point initialisers"
    assert "'conv.W' is damaged" in reasons["short.onnx"]
    assert reasons["tied.onnx"] == "uses 'fc1.W' as [in, out] and as [out, in]"
    assert report.num_members == 1


def test_file_written_by_onnx_itself_is_read(tmp_path):
    model = model_of(module(3), matmul=True)
    onnx.save(model, tmp_path / "x.onnx")
    wanted = module(3).state_dict()["linears.1.weight"].numpy()
    np.testing.assert_array_equal(read_onnx(tmp_path / "x.onnx").tensors["fc2.W"], wanted)
