"""One epoch of every model on two processes; run by ``test_ddp_models.py``."""

import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch

import zoo
from neural_functionals import PropertyRegression
from neural_functionals.models import MODELS, FittedFunctional, build_model, needs_network
from neural_functionals.testing import SMALL, VARIANTS


def trained() -> list[str]:
    """Names of all variants that take gradient steps."""
    return [
        name
        for name, (registered, _) in VARIANTS.items()
        if not issubclass(MODELS[registered][1], FittedFunctional)
    ]


def train(name: str, members: zoo.Population) -> dict[str, Any]:
    """Train for an epoch under ddp, with weights and members that differ between ranks."""
    data = zoo.ZooDataModule(members, target="test_accuracy", batch_size=5, seed=0)
    registered, options = VARIANTS[name]
    options = SMALL[registered] | options
    if needs_network(registered, options):
        options = options | {"network": members.network_of(int(members.member_ids[0]))}
    trainer = lightning.Trainer(
        strategy="ddp",
        devices=2,
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    torch.manual_seed(trainer.global_rank)
    model = build_model(
        registered,
        space=members.space,
        num_hyperparameters=data.num_hyperparameters,
        **options,
    )
    trainer.fit(PropertyRegression(model), data)
    return {
        "rank": trainer.global_rank,
        "steps": trainer.global_step,
        "state": digest(model),
        "finite": all(bool(value.isfinite().all()) for value in model.parameters()),
    }


def digest(model: torch.nn.Module) -> str:
    """Hash of all weights and measured statistics, to the last bit."""
    state = model.state_dict()
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()


def main(path: str, out: str) -> None:
    """Train every model and write ``<out>/<rank>.json``."""
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
    members = zoo.open(path)["tiny"]
    reports = {name: train(name, members) for name in trained()}
    rank = next(iter(reports.values()))["rank"]
    Path(out, f"{rank}.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    main(*sys.argv[1:])
