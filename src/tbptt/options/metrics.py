"""What a study may make best: each is also a metric of every run, and has a fixed direction."""

from tbptt.options.takes import Takes, list_of, one_of

# Metrics that the code asks for by name: the three losses, and how many chunks a series was cut into.
VAL_LOSS = "val/loss"  # held-out series, weights frozen
TRAIN_LOSS = "train/loss"  # while the weights move
TRAIN_EVAL_LOSS = "train/eval_loss"  # training series, weights frozen
CHUNKS = "schedule/chunks"
LOSSES = (VAL_LOSS, TRAIN_LOSS, TRAIN_EVAL_LOSS)
KEPT_CURVES = (*LOSSES, CHUNKS)  # whose values by epoch a study keeps with each trial, for its report

# What an objective may be, and which way is better.
OBJECTIVES = {
    VAL_LOSS: "minimize",
    TRAIN_LOSS: "minimize",
    TRAIN_EVAL_LOSS: "minimize",
    "train/chunk_loss_max": "minimize",
    "grad/norm_max": "minimize",
    "grad/norm_mean": "minimize",
    "grad/clipped_fraction": "minimize",
    "time/epoch_seconds": "minimize",
    "time/train_seconds": "minimize",
    "time/timesteps_per_second": "maximize",
}

OBJECTIVE = Takes(
    "a metric, one of " + ", ".join(OBJECTIVES) + ", or a list of them",
    lambda v: (
        v in OBJECTIVES
        if isinstance(v, str)
        else list_of("metrics", one_of(*OBJECTIVES)).test(v) and len(set(v)) == len(v)
    ),
)


def sign(objective: str) -> int:
    """What makes a smaller value of an objective the better one: 1 or -1."""
    return 1 if OBJECTIVES[objective] == "minimize" else -1


def as_objectives(objective: str | list[str]) -> list[str]:
    """The objectives of a config: one or several, the first leads."""
    return [objective] if isinstance(objective, str) else list(objective)
