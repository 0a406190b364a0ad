"""Truncated backpropagation as Lightning's documentation has it (see turns.py for how it is asked).

    python benchmarks/peers/lightning_recipe.py [--logger none|mlflow|mlflow-each] FOLDER

Manual optimization, ``training_step`` splits the batch along time. ``self.log`` is called at every split, but Lightning
hands a logger only what a training step logged last: ``mlflow`` gets one loss a pass. ``mlflow-each`` also gives it
every split's, as a loss curve by updates needs. Progress bar, checkpoints and model summary are off.
"""

import tempfile

import mlflow
import pytorch_lightning as pl
import torch
from plain_torch import Network, adam, detached
from pytorch_lightning.loggers import MLFlowLogger
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader
from turns import STEPS, Turns, load, parser


class Recipe(pl.LightningModule):
    def __init__(self, network: Network, log_each: bool):
        super().__init__()
        self.automatic_optimization = False
        self.network, self.log_each = network, log_each
        self.turns: Turns | None = None
        self.mean_loss = torch.zeros(())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        state, losses = None, []
        for x, y in zip(*(part.split(STEPS, dim=1) for part in batch), strict=True):
            prediction, state = self.network(x, state)
            loss = mse_loss(prediction, y)
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
            optimizer.step()
            state = detached(state)
            self.log("train_loss", loss)
            if self.log_each:
                self.logger.log_metrics({"chunk_loss": loss.item()}, step=self.global_step)
            losses.append(loss.detach())
        self.mean_loss = torch.stack(losses).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adam(self.network)

    def on_train_epoch_end(self) -> None:
        # What Lightning still does after this hook is counted into the pass that follows.
        assert self.turns is not None
        self.trainer.should_stop = not self.turns.another(float(self.mean_loss))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--logger", choices=("none", "mlflow", "mlflow-each"), default="none")
    options = arguments.parse_args()
    batch = tuple(map(torch.from_numpy, load(options.folder)))
    torch.set_num_threads(1)
    torch.manual_seed(1)
    module = Recipe(Network(batch[0].shape[2]), options.logger == "mlflow-each")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        logger: MLFlowLogger | bool = False
        versions = {"torch": torch.__version__, "pytorch-lightning": pl.__version__}
        if options.logger != "none":
            logger = MLFlowLogger(tracking_uri=f"sqlite:///{folder}/mlflow.db", artifact_location=folder)
            versions["mlflow"] = mlflow.__version__
        trainer = pl.Trainer(
            max_epochs=-1,
            accelerator="cpu",
            devices=1,
            logger=logger,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        updates = batch[1].shape[1] // STEPS
        module.turns = Turns(updates, sum(p.numel() for p in module.parameters()), versions)
        # The batch as it is: collating 15 sequences would copy all inputs at every pass.
        trainer.fit(module, DataLoader([batch], batch_size=None))


if __name__ == "__main__":
    main()
