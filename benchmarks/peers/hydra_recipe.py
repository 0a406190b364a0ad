"""A peer: a sweep as the documentation of Hydra, Lightning and MLflow has it, without this package's engine.

    python benchmarks/peers/hydra_recipe.py -m clip=0.5,1,2

Hydra's own sweeper and launcher, one job after the other in one process; Lightning's recipe for truncated
backpropagation through time (docs: common/tbptt) with its MLFlowLogger and its default checkpoints; PyTorch's default
threads. Data, network, optimizer and numbers are those of `python train.py`; the windows are made beforehand, once a
job, as a data set of that recipe holds them.
"""

from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import MLFlowLogger
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from tbptt.data.options import ArticleData
from tbptt.data.sequences import Sequences
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.tasks.options import QValues

Hiddens = list[tuple[Tensor, Tensor]]


class Recurrent(nn.Module):
    """Two dense layers, two LSTMs, a head; noise between them in training."""

    def __init__(self, noise_std: float, window: int = 128, size: int = 64):
        super().__init__()
        self.noise_std = noise_std
        self.dense1, self.dense2 = nn.Linear(window, size), nn.Linear(size, size)
        self.lstm1, self.lstm2 = nn.LSTM(size, size, batch_first=True), nn.LSTM(size, size, batch_first=True)
        self.head = nn.Linear(size, 2)

    def forward(self, x: Tensor, hiddens: Hiddens | None) -> tuple[Tensor, Hiddens]:
        before = hiddens or [None, None]
        x = self.noise(torch.tanh(self.dense1(x)))
        x = self.noise(torch.tanh(self.dense2(x)))
        x, first = self.lstm1(x, before[0])
        x, second = self.lstm2(self.noise(x), before[1])
        return self.head(x), [first, second]

    def noise(self, x: Tensor) -> Tensor:
        return x + self.noise_std * torch.randn_like(x) if self.training else x


class Recipe(pl.LightningModule):
    def __init__(self, cfg: DictConfig):
        super().__init__()
        self.automatic_optimization = False
        self.cfg = cfg
        self.network = Recurrent(cfg.noise_std)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.cfg.lr, eps=self.cfg.eps)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        steps = x.shape[1] // self.cfg.chunks
        optimizer: Any = self.optimizers()
        hiddens: Hiddens | None = None
        for x_split, y_split in zip(x.split(steps, dim=1), y.split(steps, dim=1), strict=True):
            y_hat, hiddens = self.network(x_split, hiddens)
            loss = mse_loss(y_hat, y_split)
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, gradient_clip_val=self.cfg.clip, gradient_clip_algorithm="norm")
            optimizer.step()
            hiddens = [(h.detach(), c.detach()) for h, c in hiddens]
            # Of one batch Lightning logs the last value and the mean: less than the other side's points an update.
            self.log("train/loss", loss, on_step=True, on_epoch=True)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        y_hat, _ = self.network(x, None)
        self.log("val/loss", mse_loss(y_hat, y))


def loader(part: Sequences) -> DataLoader[Any]:
    """All series as one batch."""
    windows = part.features(0, part.length).contiguous()  # (B, T, 128)
    return DataLoader(TensorDataset(windows, part.targets), batch_size=part.batch)


@hydra.main(version_base="1.3", config_path="conf", config_name="hydra_recipe")
def main(cfg: DictConfig) -> float:
    torch.manual_seed(cfg.seed)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    data = SequenceDataModule(
        ArticleData(name="article", length=cfg.length), QValues(name="q_values", fee=0.02, fee_unit="price")
    )
    trainer = pl.Trainer(
        max_epochs=cfg.epochs,
        logger=MLFlowLogger("recipe", tracking_uri=cfg.tracking_uri),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Recipe(cfg), loader(data.train), loader(data.val))
    return trainer.callback_metrics["val/loss"].item()


if __name__ == "__main__":
    main()
