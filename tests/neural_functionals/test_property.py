"""Property prediction from end to end on a tiny real zoo."""

import json
from itertools import combinations

import lightning
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import neural_functionals
import zoo
from neural_functionals.models import NeuralFunctional
from neural_functionals.runs import PropertyRun
from neural_functionals.tasks import PropertyRegression, score, train_property
from neural_functionals.tasks.evaluation import evaluate_property
from neural_functionals.tasks.training import fit, make_task
from zoo.cli import main
from zoo.errors import (
    InvalidConfigError,
    MissingDataError,
    StoreError,
    UnknownNameError,
    WeightSpaceMismatchError,
)
from zoo.testing import TINY_NETWORK, tiny_population

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"model": "nfn", "options": {"channels": [3, 2], "hidden": [5]}, "batch_size": 8}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "tiny.zarr"
    tiny_population(path, diverged=(7,))
    return path


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    """A run of four epochs and what training returned."""
    out = tmp_path_factory.mktemp("run") / "nfn"
    metrics = train_property(store, out=out, trainer=QUIET, max_epochs=4, **SMALL)
    return out, metrics


@pytest.fixture(scope="module")
def one_network(tmp_path_factory):
    """A zoo whose members differ in their weights alone."""
    path = tmp_path_factory.mktemp("zoo") / "one.zarr"
    tiny_population(path, network_columns=())
    return path


def predictions(run):
    return pl.read_parquet(run / "predictions.parquet")


def test_run_is_on_disk(store, finished):
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert json.loads((out / "config.json").read_text())["options"]["channels"] == [3, 2]
    table = predictions(out)
    assert table.columns == ["member", "split", "target", "prediction", "model", "seed"]
    parts = zoo.open(store)["tiny"].split()
    for part, ids in parts.items():
        assert table.filter(split=part)["member"].to_list() == [i for i in ids if i != 7]
    accuracy = zoo.open(store)["tiny"].select(table["member"].to_numpy()).table["test_accuracy"]
    assert table["target"].to_list() == accuracy.to_list()
    assert table["prediction"].is_between(0, 1).all()


def test_best_epoch_is_kept(finished):
    out, metrics = finished
    log = pl.read_csv(out / "logs" / "version_0" / "metrics.csv")
    assert metrics["validation_tau"] == pytest.approx(log["validation_tau"].max(), abs=1e-6)
    assert metrics["epochs"] == 4
    table = predictions(out).filter(split="test")
    expected = score(table["prediction"].to_torch(), table["target"].to_torch())
    assert metrics["test_r2"] == pytest.approx(expected.r2)


def test_finished_run_is_not_repeated(store, finished):
    out, metrics = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert train_property(store, out=out, trainer=QUIET, max_epochs=4, **SMALL) == metrics
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_other_run_in_the_directory_is_refused(store, finished):
    with pytest.raises(InvalidConfigError, match="differs in seed, max_epochs"):
        train_property(store, out=finished[0], trainer=QUIET, max_epochs=5, seed=1, **SMALL)


def test_seed_decides_everything_and_nothing_leaks(store, finished, tmp_path):
    state = torch.get_rng_state()
    train_property(store, out=tmp_path / "same", trainer=QUIET, max_epochs=4, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(3)
    train_property(store, out=tmp_path / "other", trainer=QUIET, max_epochs=4, seed=1, **SMALL)
    assert_frame_equal(predictions(tmp_path / "same"), predictions(finished[0]), check_exact=True)
    assert not predictions(tmp_path / "other").equals(predictions(finished[0]))


def test_broken_run_resumes_to_the_same_result(store, finished, tmp_path):
    """Two epochs, then the process is gone: the same command gives what four epochs give."""
    run = PropertyRun(max_epochs=2, **SMALL)
    module = zoo.ZooDataModule(zoo.open(store)["tiny"], target=run.target, batch_size=8, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fit(make_task(run, module), module, tmp_path, run, QUIET)
    (tmp_path / "config.json").write_text((finished[0] / "config.json").read_text())
    train_property(store, out=tmp_path, trainer=QUIET, max_epochs=4, **SMALL)
    assert (tmp_path / "logs" / "version_1").is_dir()
    assert_frame_equal(predictions(tmp_path), predictions(finished[0]), check_exact=True)


LEARNERS = {
    "hyperparameters": {"hidden": [64]},
    "statnn": {"hidden": [64]},
    "nfn": {"hidden": [64]},
    "nft": {"hidden": [64], "num_blocks": 1, "channels": 8, "num_heads": 2, "dropout": 0.0},
    "flat-mlp": {"hidden": [64], "augment": False},
    "sane": {"hidden": [64], "num_blocks": 1, "channels": 16, "num_heads": 2, "latent": 8},
    "probegen": {"hidden": [64], "num_probes": 16},
}


@pytest.mark.parametrize("name", list(LEARNERS))
def test_models_learn_what_their_inputs_tell(store, one_network, name, tmp_path):
    """Accuracy falls with the size of the weights, which every model can read off."""
    metrics = train_property(
        one_network if name == "probegen" else store,
        out=tmp_path,
        trainer=QUIET,
        model=name,
        options=LEARNERS[name],
        learning_rate=5e-3,
        max_epochs=20,
        patience=20,
        batch_size=8,
    )
    assert metrics["train_tau"] > 0.5  # untrained: 0.13 around 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear-statistics", {"ridge": 0.1}),
        ("linear-statistics", {"features": "weights", "ridge": 0.1}),
        ("boosted-statistics", {"min_members": 3, "num_trees": 30}),
    ],
)
@pytest.mark.parametrize("target", ["test_accuracy", "test_loss"])
def test_models_without_gradients_are_runs_like_any_other(store, name, options, target, tmp_path):
    given = {"model": name, "options": options, "target": target}
    metrics = train_property(store, out=tmp_path, **given)
    assert metrics["train_r2"] > 0.5
    assert metrics["epochs"] == metrics["num_parameters"] == 0
    table = predictions(tmp_path)
    assert table.columns == ["member", "split", "target", "prediction", "model", "seed"]
    assert table.schema["prediction"] == pl.Float32
    assert train_property(store, out=tmp_path, **given) == metrics
    loaded = neural_functionals.load(tmp_path)
    weights = torch.from_numpy(zoo.open(store)["tiny"].weights(table["member"].to_numpy()))
    batch = zoo.WeightBatch(weights, *[torch.empty(0)] * 4)
    torch.testing.assert_close(loaded(batch), table["prediction"].to_torch())
    scores = evaluate_property(tmp_path, store, part="validation")
    assert scores["validation_mae"] == pytest.approx(metrics["validation_mae"])


def test_least_squares_has_no_other_loss(store, tmp_path):
    with pytest.raises(InvalidConfigError, match="Expected loss 'mse' for linear-statistics"):
        train_property(store, out=tmp_path, model="linear-statistics", loss="bce")


def test_each_model_is_trained_in_its_own_way(store):
    data = zoo.ZooDataModule(zoo.open(store)["tiny"], target="test_accuracy")
    space = data.population.space
    linear = PropertyRegression(neural_functionals.LinearStatistics(space))
    trainer = lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, **QUIET)
    with pytest.raises(InvalidConfigError, match=r"fit_at_once\(datamodule.train\)"):
        trainer.fit(linear, data)
    with pytest.raises(InvalidConfigError, match="fitted at once, got statnn"):
        PropertyRegression(neural_functionals.StatNN(space)).fit_at_once(data.train)


def test_models_that_run_members_need_one_network(store, one_network, tmp_path):
    options = {"model": "probegen", "options": {"num_probes": 2, "hidden": [3]}, "max_epochs": 1}
    with pytest.raises(InvalidConfigError, match=r"in activation.*--where \"activation = 'relu'\""):
        train_property(store, out=tmp_path / "mixed", trainer=QUIET, **options)
    assert not (tmp_path / "mixed").exists()
    run = tmp_path / "run"
    train_property(one_network, out=run, trainer=QUIET, **options)
    task = neural_functionals.load(run)
    assert task.model.config.network["activation"] == "relu"
    relu = "activation = 'relu'"
    assert evaluate_property(run, store, where=relu, part="train")["train_mae"] < 1
    with pytest.raises(WeightSpaceMismatchError, match="'tanh'"):
        evaluate_property(run, store, where="activation = 'tanh'", part="train")


def test_graph_models_with_probes_are_told_the_network(one_network, tmp_path):
    options = {"width": 4, "num_waves": 2, "num_probes": 2, "hidden": [3]}
    train_property(
        one_network, out=tmp_path, trainer=QUIET, model="ng-gnn", options=options, max_epochs=1
    )
    assert neural_functionals.load(tmp_path).model.config.network["hidden"] == [3, 5]
    assert evaluate_property(tmp_path, one_network, part="train")["train_mae"] < 1


def test_squared_error_predicts_in_the_targets_unit(store, tmp_path):
    metrics = train_property(
        store,
        out=tmp_path,
        trainer=QUIET,
        model="statnn",
        options={"hidden": [32]},
        learning_rate=5e-3,
        target="test_loss",
        loss="mse",
        max_epochs=20,
        patience=20,
        batch_size=8,
    )
    assert metrics["train_r2"] > 0.5


def test_loaded_task_predicts_the_same_without_data(store, finished):
    task = neural_functionals.load(finished[0])
    assert not task.training
    table = predictions(finished[0])
    weights = torch.from_numpy(zoo.open(store)["tiny"].weights(table["member"].to_numpy()))
    batch = zoo.WeightBatch(weights, *[torch.empty(0)] * 4)
    expected = table["prediction"].to_torch()
    torch.testing.assert_close(task(batch), expected, rtol=1e-5, atol=1e-6)


def test_evaluation_repeats_the_runs_numbers(store, finished):
    scores = evaluate_property(finished[0], store, part="validation")
    assert scores["validation_tau"] == pytest.approx(finished[1]["validation_tau"])
    assert scores["validation_mae"] == pytest.approx(finished[1]["validation_mae"])


def test_evaluation_refuses_other_networks(store, finished, tmp_path):
    from zoo.networks import build, example_input

    network = TINY_NETWORK | {"hidden": [2, 5]}
    space = zoo.trace(build(network), example_input(network))
    tiny_population(tmp_path / "other.zarr", network=network, space=space)
    with pytest.raises(WeightSpaceMismatchError, match="in population 'tiny'"):
        evaluate_property(finished[0], tmp_path / "other.zarr")


# Lightning's own use of a class that newer torch deprecates.
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_plain_lightning_trainer_works(store, tmp_path):
    population = zoo.open(store)["tiny"].where("test_accuracy > 0.4")
    data = zoo.ZooDataModule(population, target="test_accuracy", batch_size=16)
    model = neural_functionals.NFN(population.space, channels=(3, 2), hidden=(5,))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=tmp_path,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    task = neural_functionals.PropertyRegression(model)
    trainer.fit(task, data)
    assert float(model.normalise.std[0]) != 1.0
    assert trainer.test(task, datamodule=data, verbose=False)[0]["test_mae"] < 1


def test_accuracy_loss_on_other_targets_is_refused_but_not_remembered(store, tmp_path):
    options = SMALL | {"target": "test_loss", "max_epochs": 1}
    with pytest.raises(InvalidConfigError, match=r"Expected targets in \[0, 1\].*--loss mse"):
        train_property(store, out=tmp_path, trainer=QUIET, **options)
    train_property(store, out=tmp_path, trainer=QUIET, loss="mse", **options)


def test_bad_names_and_parts(store, tmp_path):
    with pytest.raises(UnknownNameError, match="Known: .*statnn"):
        train_property(store, out=tmp_path / "run", model="nf")
    with pytest.raises(UnknownNameError, match="Unknown target"):
        train_property(store, out=tmp_path / "run", model="nfn", target="accuracy")
    first = int(zoo.open(store)["tiny"].split()["train"][0])
    with pytest.raises(InvalidConfigError, match="'validation'"):
        train_property(store, out=tmp_path / "run", model="nfn", where=f"member = {first}")
    with pytest.raises(InvalidConfigError, match="at least 1"):
        PropertyRun(model="nfn", max_epochs=0)
    assert not (tmp_path / "run").exists()


def test_population_must_be_named_where_there_are_several(tmp_path):
    tiny_population(tmp_path / "two.zarr")
    tiny_population(tmp_path / "two.zarr", name="second")
    with pytest.raises(UnknownNameError, match=r"--population\).*Known: second, tiny|tiny, second"):
        train_property(tmp_path / "two.zarr", out=tmp_path / "run", model="nfn")


class OwnModel(NeuralFunctional):
    name = "own"
    reads = "weights"

    def __init__(self, space):
        super().__init__(space, PropertyRun(model="own"), 1)
        self.linear = torch.nn.Linear(space.num_parameters, 1)

    def forward(self, inputs):
        return self.linear(inputs)

    def fit_statistics(self, inputs):
        pass


def test_load_says_what_is_wrong(store, tmp_path):
    with pytest.raises(MissingDataError, match=r"checkpoints/best\.ckpt"):
        neural_functionals.load(tmp_path)
    (tmp_path / "noise.ckpt").write_bytes(b"noise")
    with pytest.raises(StoreError, match="cannot be read as a checkpoint"):
        neural_functionals.load(tmp_path / "noise.ckpt")
    checkpoint = {"state_dict": {}}
    PropertyRegression(OwnModel(zoo.open(store)["tiny"].space)).on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "own.ckpt")
    with pytest.raises(StoreError, match="does not say which model"):
        neural_functionals.load(tmp_path / "own.ckpt")


def test_task_refuses_what_it_cannot_train(store):
    space = zoo.open(store)["tiny"].space
    with pytest.raises(InvalidConfigError, match="model with 1 output"):
        PropertyRegression(neural_functionals.StatNN(space, num_outputs=2))


def brute_force_tau(x, y):
    """Kendall's tau-b by its definition."""
    pairs = list(combinations(range(len(x)), 2))
    a = [(x[i] > x[j]).int() - (x[i] < x[j]).int() for i, j in pairs]
    b = [(y[i] > y[j]).int() - (y[i] < y[j]).int() for i, j in pairs]
    agree = sum(int(p * q) for p, q in zip(a, b, strict=True))
    untied = [sum(int(p * p) for p in signs) for signs in (a, b)]
    return agree / (untied[0] * untied[1]) ** 0.5


def test_scores_follow_their_definitions():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(5, (20,), generator=generator).float()
    prediction = target + torch.randint(-2, 3, (20,), generator=generator)
    scores = score(prediction, target)
    assert scores.tau == pytest.approx(brute_force_tau(prediction, target), abs=1e-6)
    rest = (target - prediction).square().sum() / (target - target.mean()).square().sum()
    assert scores.r2 == pytest.approx(1 - float(rest), abs=1e-6)
    assert scores.mae == pytest.approx(float((target - prediction).abs().mean()))


def test_undefined_scores_are_nan():
    one = score(torch.tensor([0.5]), torch.tensor([0.4]))
    assert one.tau != one.tau
    assert one.mae == pytest.approx(0.1)
    flat = score(torch.ones(3), torch.tensor([0.0, 1.0, 2.0]))
    assert flat.tau != flat.tau
    assert flat.r2 == pytest.approx(0.0)


def test_commands(store, tmp_path, capsys):
    out = tmp_path / "run"
    words = f"train property {store} --model nfn --out {out} --max_epochs 1 --options.channels [2]"
    assert main([*words.split(), "--trainer.enable_progress_bar", "false"]) == 0
    assert "Kendall tau" in capsys.readouterr().out
    assert main(["evaluate", str(out), str(store)]) == 0
    assert "nfn on test_accuracy, seed 0" in capsys.readouterr().out
    assert main([*words.split(), "--model", "nf", "--out", str(tmp_path / "b")]) == 2
    assert "Known: hyperparameters, nfn" in capsys.readouterr().err
