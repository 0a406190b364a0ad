"""Using a finished run in Python: its network, the network's inputs, the side to be on."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from tbptt.config.moved import said_by_old_names_too
from tbptt.serving.next_file import listed
from tbptt.serving.source import find
from tbptt.serving.trained import count_of, other_inputs, trained

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from tbptt.data.features import Scaler
    from tbptt.models.protocol import Network

    Numbers = Tensor | NDArray[np.float64] | pd.DataFrame | pd.Series


def load_run(
    run_id: str | Path, tracking_uri: str | None = None, which: str = "best", storage: str | None = None
) -> "tuple[Network, Scaler, DictConfig]":
    """A trained network, for use in Python.

    Args:
        run_id: MLflow's run id; a study's name or folder, for the run of its best trial; or the path of a checkpoint,
            such as ``sweeps/STUDY/best.ckpt``, with which the stores do not matter, and
            which is of one epoch, so that ``which`` cannot choose.
        tracking_uri: the store of the run. The default is that of the command: the variable MLFLOW_TRACKING_URI, or
            the store below the working directory.
        which: ``best`` (the epoch with the best objective) or ``last``.
        storage: the storage of studies, by default ``sqlite:///sweeps/optuna.db``.

    Returns:
        model: a :class:`tbptt.models.protocol.Network` in evaluation mode on the CPU; see there for
            ``model(x, state)``.
        scaler: a :class:`tbptt.data.features.Scaler`; ``scaler.to_price_units(y)`` brings predictions back to prices.
        config: the run's config as it was composed. Your own optimizer, schedule and callback are in it even if their
            files are gone, as the network does not need them; they are not checked then.

    Raises:
        ValueError: there is no such run or study, it has no such checkpoint, or an option that it names as model, task
            or data does not exist here.
    """
    found = trained(find(run_id, tracking_uri, which, storage))
    return found.network, found.scaler, said_by_old_names_too(found.config)


def inputs(prices: "Numbers", scaler: "Scaler", config: DictConfig, extra: "Numbers | None" = None) -> "Tensor":
    """The inputs of a loaded network for some prices.

    Args:
        prices: (B, W + T) in NumPy or PyTorch, oldest first; W is ``config.data.window``. Or in pandas: a DataFrame
            with a row for each time and a column of numbers for each series, or a Series. Columns are taken in their
            order, whatever their names. If the run scales each series by itself,
            they must be its series, in the same order.
        scaler, config: as :func:`load_run` returns them.
        extra: (B, W + T, D) in NumPy or PyTorch, the run's other inputs beside each price, as :func:`panel` gives
            them; of one series, also a DataFrame with a column for each input. NaN where one is missing. Needed if the
            run has ``data.inputs``.

    Returns:
        (B, T, ``input_size``) float32: the W lags of the price, then those of the other inputs
        (:class:`tbptt.data.features.LagFeatures`). Step t belongs to prices[:, W + t] and sees nothing later.

    Raises:
        ValueError: there are too few prices, or not as many series as the run had; ``extra`` is missing, or is not of
            the run's inputs.
    """
    from tbptt.data.features import LagFeatures

    prices = _as_tensor(prices, by_column=True)
    window, known = config.data.window, len(scaler.input_std)
    if prices.ndim != 2 or prices.shape[1] <= window or known not in (1, len(prices)):
        series = "any number of series" if known == 1 else f"{known} series"
        raise ValueError(f"prices: got {tuple(prices.shape)}; takes {series} of more than {window} prices each")
    names = other_inputs(config)
    beside = (*prices.shape, len(names))
    more = None if extra is None else _as_tensor(extra)
    if more is None and not names:
        more = prices.new_empty(beside)
    if more is None or tuple(more.shape) != beside or count_of(scaler) != len(names):
        got = None if more is None else tuple(more.shape)
        of = f", {listed(names)} beside each price" if names else ", as the run has no other inputs"
        raise ValueError(f"extra: got {got}; takes {beside}{of}")
    lags = config.data.input_window if names else 1
    kind = config.data.features
    features = LagFeatures(prices, scaler, window, kind, extra=more if names else None, input_window=lags)
    return features(0, features.length)


def _as_tensor(numbers: "Numbers", by_column: bool = False) -> "Tensor":
    """As float64. An array is copied: those of a panel are read-only, and PyTorch has no such tensors.

    A Series or DataFrame of pandas gets a first dimension, that of the series; with ``by_column``, the columns of a
    DataFrame are the series.
    """
    import numpy as np
    import torch

    if isinstance(numbers, torch.Tensor):
        return numbers.detach().cpu().double()
    try:
        found = torch.from_numpy(np.array(numbers, dtype=np.float64))
    except (TypeError, ValueError):
        raise ValueError(f"prices and extra take numbers alone: got {_not_numbers(numbers)}") from None
    if not hasattr(numbers, "iloc"):
        return found
    return found.T.contiguous() if by_column and found.ndim == 2 else found[None]


def _not_numbers(given: object) -> str:
    """What of some data are no numbers, in words."""
    columns = getattr(given, "dtypes", None)
    if not hasattr(columns, "items"):
        return f"a {type(given).__name__} of something else"
    others = [f"{name} ({dtype})" for name, dtype in columns.items() if dtype.kind not in "iufb"]  # type: ignore[union-attr]
    return f"columns {listed(others)}"


def sides(
    q: "Tensor | NDArray[np.float64]", fee: "float | Tensor | None", held: "Tensor | NDArray[np.bool_] | None" = None
) -> "Tensor":
    """The side to hold at every step, from Q-values and the cost of changing sides.

    A change of side costs 2 · fee, one fee to close and one to open. The Q-values of a step do not include this cost at
    that step. So the side changes only if the other side's Q-value exceeds that of the side held by more than 2 · fee.

    Args:
        q: (B, T, 2) in price units, of buying and of selling, in PyTorch or NumPy.
        fee: in price units, as ``scaler.fee``: one number, or (B,) or (1,).
        held: (B,) the sides held before the first step: the result's ``[:, -1]`` for the steps before. None begins on
            the side that is worth more.

    Returns:
        (B, T) bool: True is bought (long), False is sold (short).

    Raises:
        ValueError: a shape is not one of these, or the fee is missing or below 0.
    """
    import torch

    from tbptt.tasks.decisions import held as held_sides

    q = torch.as_tensor(q)
    if q.ndim != 3 or q.shape[-1] != 2 or not q.shape[1]:
        raise ValueError(f"q: got {tuple(q.shape)}; takes (series, steps, 2)")
    cost = 2 * torch.as_tensor(math.nan if fee is None else fee).to(q).flatten()  # (1,) or (B,)
    if len(cost) not in (1, len(q)) or not (cost >= 0).all():
        got = fee if fee is None or len(cost) == 1 else f"{len(cost)} numbers"
        raise ValueError(f"fee: got {got}; takes price units from 0, one number or one for each of {len(q)} series")
    gain = q[..., 0] - q[..., 1]
    return held_sides(gain, cost[:, None], gain[:, 0] > 0 if held is None else torch.as_tensor(held).bool())
