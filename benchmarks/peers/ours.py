"""This project's chunk loop, inputs computed chunk by chunk as in a run (see turns.py for how it is asked).

    python benchmarks/peers/ours.py [--kernels auto|torch] [--precision 32|bf16] [--cell lstm|gru] FOLDER
    TBPTT_KERNELS=avx512|avx2|plain python benchmarks/peers/ours.py FOLDER      # the compiled layers of this set

With the compiled layers where they were built, or with PyTorch's, which bf16 always takes.
"""

from contextlib import nullcontext

import numpy as np
import torch
from article import article
from turns import STEPS, Turns, parser

from tbptt.models import kernels
from tbptt.models.build import build_network
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.system.runtime import keep_freed_memory
from tbptt.training.chunks import train_pass
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kernels", choices=("auto", "torch"), default="auto")
    arguments.add_argument("--precision", choices=("32", "bf16"), default="32")
    arguments.add_argument("--cell", choices=("lstm", "gru"), default="lstm")
    options = arguments.parse_args()
    chunks = np.load(options.folder / "targets.npy", mmap_mode="r").shape[1] // STEPS
    config = article(chunks, options.cell)
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    data = SequenceDataModule(config.data, config.task)
    network = build_network(config.model, config.data.input_size, config.task.outputs)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], **vars(config.optimizer))

    def one_pass() -> float:
        with torch.autocast("cpu", torch.bfloat16) if options.precision == "bf16" else nullcontext():
            record = train_pass(network, parameters, optimizer, data.train, chunks, clip=config.clip)
        losses, *_ = record.to_host()
        return sum(losses) / len(losses)

    with kernels.torch_only() if options.kernels == "torch" else nullcontext():
        layers = kernels.describe(precision=options.precision, cell=options.cell)
        versions = {"torch": torch.__version__, "layers": layers}
        Turns(chunks, parameters.vector.numel(), versions).take(one_pass)


if __name__ == "__main__":
    main()
