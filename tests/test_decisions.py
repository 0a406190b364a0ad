"""What predictions earn who follows them, and the metrics of all held-out steps at once, against plain loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parts import Told, prepared, q_values, scored, walks

from tbptt.data.sequences import Sequences
from tbptt.evaluation.losses import measure
from tbptt.options.metrics import METRICS, measured
from tbptt.tasks.decisions import decisions, scored_steps
from tbptt.tasks.prepare import Prepared

AT_ONCE = ("val/skill", "val/value", "val/turnover", "val/advantage_r2")


@pytest.fixture(params=[0.0, 0.4, 3.0], ids="fee {}".format)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Prepared:
    """Two series of different lengths and fees, with warm-up."""
    return prepared(tmp_path, walks(), q_values(fee=request.param))


def random_y(part: Sequences, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(part.targets.shape, generator=torch.Generator().manual_seed(1))


def in_prices(part: Sequences, y: torch.Tensor) -> np.ndarray:
    """(B, T, 2): standardised predictions in price units, by the scaler's own numbers."""
    assert part.scaler is not None
    return y.double().numpy() * part.scaler.target_std.numpy()[:, None, None] + part.scaler.target_mean.numpy()[:, None]


def followed(data: Prepared, part: Sequences, prices: dict[str, np.ndarray], y: torch.Tensor) -> Any:
    """Sides, changes and profits by (series, step), step by step as the definition says."""
    q, window = in_prices(part, y), data.split.window
    warm = part.warm or [0] * part.batch
    sides, changes, profits = {}, {}, {}
    for b, row in enumerate(prices.values()):
        assert part.scaler is not None
        assert part.scaler.fee is not None
        fee, side = float(part.scaler.fee[b]), 0
        for t in range(warm[b], part.steps[b]):
            buy, sell = q[b, t]
            before = side
            if side == 0:
                side = 1 if buy > sell else -1
            elif side == 1 and sell - 2 * fee > buy:
                side = -1
            elif side == -1 and buy - 2 * fee > sell:
                side = 1
            changed = before not in (0, side)
            sides[b, t], changes[b, t] = side, changed
            profits[b, t] = side * (row[window + t + 1] - row[window + t]) - 2 * fee * changed
    return sides, changes, profits


@pytest.mark.parametrize("name", ["val", "test"])
def test_decisions_are_those_of_a_plain_loop(data: Prepared, name: str) -> None:
    part = data.val if name == "val" else data.test()
    assert part is not None
    y = random_y(part)
    found = decisions(y, part)
    sides, changes, profits = followed(data, part, getattr(data.split, name), y)
    steps = scored(part)
    assert list(sides) == steps
    assert [found.side[at].item() for at in steps] == list(sides.values())
    assert [bool(found.changed[at]) for at in steps] == list(changes.values())
    np.testing.assert_allclose([found.profit[at].item() for at in steps], list(profits.values()), rtol=1e-9, atol=1e-9)
    assert sum(changes.values()) > 0
    for values in (found.side, found.changed, found.profit):
        assert not values[~scored_steps(part)].any()


def test_what_is_predicted_in_the_warm_up_and_the_padding_decides_nothing(data: Prepared) -> None:
    y = random_y(data.val)
    other = torch.where(scored_steps(data.val)[..., None], y, -7 * y.flip(2) + 3)
    assert not torch.equal(y, other)
    assert torch.equal(decisions(y, data.val).profit, decisions(other, data.val).profit)
    for name in AT_ONCE:
        before, after = (measure(Told(given), data.val, [METRICS[name]])[name] for given in (y, other))
        assert before == after, name


def test_metrics_of_all_steps_are_those_of_plain_loops(data: Prepared) -> None:
    part, steps = data.val, scored(data.val)
    y = random_y(part, 0.7)
    found = measure(Told(y), part, measured("q_values"), 37)
    _, changes, profits = followed(data, part, data.split.val, y)
    stds = [float(np.std(np.diff(row))) for row in data.split.train.values()]
    assert found["val/value"].item() == pytest.approx(np.mean([profits[at] / stds[at[0]] for at in steps]), rel=1e-9)
    assert found["val/turnover"].item() == pytest.approx(np.mean([changes[at] for at in steps]), rel=1e-9)

    loss = np.mean([(y[at] - part.targets[at]).square().tolist() for at in steps])
    mean = np.mean([part.targets[at].square().tolist() for at in steps])  # standardised: the training mean is 0
    assert found["val/skill"].item() == pytest.approx(1 - loss / mean, rel=1e-5)
    assert found["loss"].item() == pytest.approx(loss, rel=1e-6)

    assert part.scaler is not None
    q, true, centre = in_prices(part, y), in_prices(part, part.targets), part.scaler.target_mean.numpy()
    errors, spread = 0.0, 0.0
    for b, t in steps:
        wanted = (true[b, t, 0] - true[b, t, 1]) / stds[b]
        errors += (wanted - (q[b, t, 0] - q[b, t, 1]) / stds[b]) ** 2
        spread += (wanted - (centre[b, 0] - centre[b, 1]) / stds[b]) ** 2
    assert found["val/advantage_r2"].item() == pytest.approx(1 - errors / spread, rel=1e-9)


def test_the_truth_has_a_skill_and_an_r2_of_1_and_the_training_mean_of_0(data: Prepared) -> None:
    for y, expected in ((data.val.targets, 1.0), (torch.zeros_like(data.val.targets), 0.0)):
        found = measure(Told(y), data.val, [METRICS["val/skill"], METRICS["val/advantage_r2"]])
        assert found["val/skill"].item() == pytest.approx(expected, abs=1e-6)
        assert found["val/advantage_r2"].item() == pytest.approx(expected, abs=1e-6)


def test_one_side_all_the_time_earns_what_the_price_does_and_changes_nothing(data: Prepared) -> None:
    y = torch.zeros_like(data.val.targets)
    y[..., 0] = 1e3
    found = measure(Told(y), data.val, measured("q_values"))
    moved = [
        float(np.diff(row[data.split.window + warm : data.split.window + steps + 1]).sum()) / std
        for row, warm, steps, std in zip(
            data.split.val.values(), data.val.warm, data.val.steps, data.split.change_std, strict=True
        )
    ]
    assert found["val/value"].item() == pytest.approx(sum(moved) / len(scored(data.val)), rel=1e-9)
    assert found["val/turnover"] == 0
    assert found["val/value"] == -measure(Told(y.flip(2)), data.val, measured("q_values"))["val/value"]


def test_a_val_part_of_one_step_has_every_metric(tmp_path: Path) -> None:
    found = prepared(tmp_path, {"a": walks((400,))["s0"]}, q_values(horizon=98), val_fraction=0.25)
    assert found.val.valid_steps == 1
    values = measure(Told(random_y(found.val)), found.val, measured("q_values"))
    assert all(value.isfinite() for value in values.values())
    assert values["val/turnover"] == 0


def test_a_forecast_has_no_metric_of_decisions() -> None:
    assert {m.name for m in measured("forecast")} & set(AT_ONCE) == {"val/skill"}
