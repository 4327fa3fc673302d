"""A training run on two processes, each of which notes what it saw; run by ``test_ddp.py``."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

import zoo


class Recorder(lightning.LightningModule):
    """Notes the members of every batch, and keeps ranks in step by a buffer that they share."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(47, 1)
        self.register_buffer("steps", torch.zeros(1))
        self.seen: dict[str, list[list[int]]] = {}
        self.loaders: list[str] = []

    def _note(self, name: str, batch: zoo.WeightBatch) -> Tensor:
        self.seen.setdefault(name, []).append(batch.member.tolist())
        return nn.functional.mse_loss(self.line(batch.weights)[:, 0], batch.target)

    def training_step(self, batch: zoo.WeightBatch, index: int) -> Tensor:
        self.steps += 1
        return self._note(f"train {self.current_epoch}", batch)

    def validation_step(self, batch: zoo.WeightBatch, index: int) -> None:
        self._note(f"validation {self.current_epoch}", batch)

    def test_step(self, batch: zoo.WeightBatch, index: int) -> None:
        self._note("test", batch)

    def predict_step(self, batch: zoo.WeightBatch, index: int) -> None:
        self._note("predict", batch)

    def on_train_end(self) -> None:
        loaders = [self.trainer.train_dataloader, self.trainer.val_dataloaders]
        self.loaders = [f"{type(each).__module__}.{type(each).__name__}" for each in loaders]
        self.loaders += [type(each.batch_sampler).__name__ for each in loaders]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def train(members: zoo.Population, shuffle: str) -> dict[str, Any]:
    """Train for two epochs, test and predict; return what this rank saw."""
    torch.manual_seed(0)
    data = zoo.ZooDataModule(
        members, target="test_accuracy", batch_size=3, seed=5, shuffle=shuffle, io="pread"
    )
    trainer = lightning.Trainer(
        strategy="ddp",
        devices=2,
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    module = Recorder()
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    trainer.predict(module, data)
    weights = [parameter.tolist() for parameter in module.line.parameters()]
    report = {"seen": module.seen, "loaders": module.loaders, "weights": weights}
    return report | {"rank": trainer.global_rank}


def main(path: str, out: str) -> None:
    """Train with both ways to shuffle and write ``<out>/<rank>.json``."""
    members = zoo.open(path)["tiny"]
    reports = {shuffle: train(members, shuffle) for shuffle in ("rows", "blocks")}
    Path(out, f"{reports['rows']['rank']}.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    main(*sys.argv[1:])
