"""What training computes stays what it was: losses after each update, recorded from the code of commit 7eb98b3.

In float64, where PyTorch's own layers compute. Everything is given here, by formulas: weights, prices, targets and all
settings. So neither a random stream nor another default changes a number, and rounding differs in the last digits only.
"""

from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from test_bptt import LENGTH, WINDOW, Problem, make

from tbptt.evaluation.losses import evaluate
from tbptt.models.article import QNetwork
from tbptt.training.chunks import epoch_loss, train_pass
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer
from tbptt.training.schedule import ChunkSchedule

STEPS = [LENGTH, 17, 20]  # of three series, so that there is a mask
ADAM = {"name": "adam", "lr": 0.02, "betas": (0.9, 0.999), "eps": 1e-7}
MOMENTUM = {"name": "momentum", "lr": 0.05, "momentum": 0.9}

# Two epochs of five updates and two of two: the loss of all steps before the first and after each.
RECORDED: dict[str, list[float]] = {
    "lstm, adam, norm": [
        0.9710867478306294,
        0.8976056137592605,
        0.8424829256550067,
        0.7975173894697513,
        0.7582464143303246,
        0.7246315856653418,
        0.6952927380031827,
        0.6713771268727838,
        0.6540071692197345,
        0.6351437629076693,
        0.6156954503808314,
        0.596863506024582,
        0.5781487272524661,
        0.5603442707660763,
        0.5431277441351579,
    ],
    "gru, momentum, value": [
        1.3885421405308922,
        1.2714713090266254,
        1.0974389188215483,
        0.9221401427077389,
        0.7467530673820975,
        0.6161778138387166,
        0.5512669093698079,
        0.5330925032434704,
        0.5319582867326178,
        0.5389045513388474,
        0.5573701025609513,
        0.5664740464373149,
        0.5644840822817917,
        0.5494781231947701,
        0.527433455049782,
    ],
    "lstm, momentum, norm, segments": [
        0.9710867478306294,
        0.9553132133828132,
        0.9281554507268045,
        0.8917830233451499,
        0.8478415681889181,
        0.7986401570451813,
        0.7459311928799294,
        0.6950255937159056,
        0.6560535650181674,
        0.6178868339347291,
        0.5819667648841094,
        0.5499529602098342,
        0.5254852531914272,
        0.5073995967342698,
        0.49858192133080076,
    ],
    "gru, adam, value, segments": [
        1.3885421405308922,
        1.1109354425102809,
        0.9154404775338968,
        0.8028221953870092,
        0.7162350919885584,
        0.6475066299055001,
        0.5939607227775894,
        0.5535130999306579,
        0.5246662312965864,
        0.499291310305716,
        0.4771336023121034,
        0.45798075344438344,
        0.44376759064681687,
        0.42978665067278154,
        0.4186090897583031,
    ],
}


def problem() -> Problem:
    given = Problem(STEPS)
    b, t = np.arange(3.0)[:, None], np.arange(float(WINDOW + LENGTH))
    given.prices = 100 + 1.5 * np.sin(0.4 * t + b) + 0.7 * np.cos(1.1 * t * (1 + 0.1 * b))
    t = t[:LENGTH, None]
    given.targets = np.sin(0.3 * t + b[..., None] + np.arange(2.0)) + 0.2
    return given


def network_of(cell: str) -> QNetwork:
    """Two dense and two recurrent layers, each weight by a formula."""
    network = make(cell, noise_std=0.0)
    with torch.no_grad():
        for i, (_, weight) in enumerate(sorted(network.named_parameters())):
            if weight.requires_grad:
                weight.copy_(0.6 * torch.sin(1.7 * torch.arange(weight.numel()).double() + i).view_as(weight))
    return network


def losses_of(cell: str, optimizer: dict[str, Any], **settings: Any) -> tuple[list[float], list[float]]:
    """The frozen loss before the first and after each update, and whether each was clipped."""
    network, sequences = network_of(cell), problem().sequences()
    parameters = FlatParameters(network)
    steps = build_optimizer([parameters.vector], **optimizer)
    schedule = ChunkSchedule.plan([5, 2], epochs=4, patience=None, stage_epochs=2)
    losses = [evaluate(network, sequences).item()]
    clipped: list[float] = []
    for _ in range(4):
        record = train_pass(
            network,
            parameters,
            steps,
            sequences,
            schedule.chunks,
            after_chunk=lambda: losses.append(evaluate(network, sequences).item()),
            **settings,
        )
        clipped += record.clipped.tolist()
        schedule.end_epoch(epoch_loss(record.losses.tolist(), sequences))
    return [loss for loss, _ in groupby(losses)], clipped  # between is called after each segment, too


@pytest.mark.parametrize(
    ("case", "cell", "optimizer", "clip", "mode", "segment"),
    [
        ("lstm, adam, norm", "lstm", ADAM, 0.3, "norm", None),
        ("gru, momentum, value", "gru", MOMENTUM, 0.25, "value", None),
        ("lstm, momentum, norm, segments", "lstm", MOMENTUM, 0.3, "norm", 3),
        ("gru, adam, value, segments", "gru", ADAM, 0.2, "value", 3),
    ],
)
def test_losses_after_each_update_are_those_recorded(
    case: str, cell: str, optimizer: dict[str, Any], clip: float, mode: str, segment: int | None
) -> None:
    losses, clipped = losses_of(cell, optimizer, clip=clip, clip_mode=mode, segment_length=segment)
    assert len(losses) == len(clipped) + 1 == 15
    assert 0 < sum(clipped) < 14, "the clip acts on some updates only"
    assert losses == pytest.approx(RECORDED[case], rel=1e-9)
