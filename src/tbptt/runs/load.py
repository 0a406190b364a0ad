"""Using a finished run again: its config as a file that reruns it, its network in Python."""

import math
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tbptt.config.checks import keys
from tbptt.config.moved import said_by_old_names_too
from tbptt.config.schema import typed
from tbptt.config.try_out import input_size, size_problem
from tbptt.data.options import SplitData
from tbptt.models.options import ModelConfig
from tbptt.options.takes import wrong_value
from tbptt.tasks.options import TaskConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from tbptt.data.features import Scaler
    from tbptt.data.panel import Panel
    from tbptt.models.protocol import Network

    Numbers = Tensor | NDArray[np.float64]

INPUT_KEYS = ("data.window", "data.features", "data.inputs", "data.input_window")  # they say what a network sees


def load_run(
    run_id: str | Path, tracking_uri: str | None = None, which: str = "best"
) -> "tuple[Network, Scaler, DictConfig]":
    """The trained network of a run, for use in Python.

    Args:
        run_id: MLflow's run id; or the path of a checkpoint, such as ``sweeps/STUDY/best.ckpt``. With a path, the other
            arguments do not matter.
        tracking_uri: the store of the run. The default is that of the command: the variable MLFLOW_TRACKING_URI, or
            the store below the working directory.
        which: ``best`` (the epoch with the best objective) or ``last``.

    Returns:
        model: a :class:`tbptt.models.protocol.Network` in evaluation mode on the CPU; see there for
            ``model(x, state)``.
        scaler: a :class:`tbptt.data.features.Scaler`; ``scaler.to_price_units(y)`` brings predictions back to prices.
        config: the run's config as it was composed. Your own optimizer, schedule and callback are in it even if their
            files are gone, as the network does not need them; they are not checked then.

    Raises:
        ValueError: there is no such run, it has no such checkpoint, or an option that it names as model, task or data
            does not exist here.
    """
    from tbptt.data.features import Scaler

    content, what = _content(run_id, tracking_uri, which)
    cfg = typed(content["config"], needs=("model", "task", "data"))
    try:
        network = network_of(content, cfg)
        scaler = Scaler(**content["scaler"])
        if _count(scaler) != len(_other_inputs(cfg)):
            raise ValueError("its scaler is not that of its data.inputs")
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return network.eval(), scaler, said_by_old_names_too(cfg)


def _content(run_id: str | Path, tracking_uri: str | None, which: str) -> tuple[dict[str, Any], str]:
    """A run's checkpoint, and words for the run. The arguments and errors are those of :func:`load_run`."""
    from tbptt.runs import checkpoint, contents

    if Path(run_id).suffix == ".ckpt":
        return checkpoint.load(Path(run_id), contents.OF_A_RUN), str(run_id)
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    return _downloaded(str(run_id), uri, which), f"run {run_id}"


def _other_inputs(cfg: DictConfig) -> list[str]:
    """The names of a config's other inputs; some data have none."""
    return list(OmegaConf.select(cfg, "data.inputs") or [])


def _count(scaler: "Scaler") -> int:
    """How many other inputs a scaler is of."""
    return 0 if scaler.extra_mean is None else scaler.extra_mean.shape[1]


def network_of(state: dict[str, Any], cfg: DictConfig) -> "Network":
    """The network that a checkpoint's config describes, with the checkpoint's weights.

    Raises ValueError if config and weights do not fit each other, before it takes memory for the network.
    """
    from tbptt.models.build import build_network, outline

    for name, node, leaf, takes in keys(cfg):
        if name.startswith(("model.", "task.")) or name in INPUT_KEYS:
            try:
                value = node[leaf]
            except OmegaConfBaseException as error:
                raise ValueError(f"{name}: {str(error).splitlines()[0]}") from None
            value = OmegaConf.to_container(value) if isinstance(value, ListConfig) else value
            if not takes.test(value):
                raise ValueError(wrong_value(name, value, takes.text))
    model = cast(ModelConfig, OmegaConf.to_object(cfg.model))
    inputs, weights = input_size(cfg), state["model"]
    outputs = cast(TaskConfig, OmegaConf.to_object(cfg.task)).outputs
    if (shapes := outline(model, inputs, outputs)) is not None:
        _see_that_they_fit(shapes, weights)
    elif problem := size_problem(model, inputs, outputs):
        raise ValueError(f"its model cannot be built: {problem}")
    try:
        network = build_network(model, inputs, outputs)  # a user's own model may have no outline and still be built
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"its model cannot be built: {(str(error).splitlines() or [''])[0]}") from None
    if shapes is None:
        _see_that_they_fit(network, weights)
    network.load_state_dict(weights)
    return network


def _see_that_they_fit(network: "Network", weights: "dict[str, Tensor]") -> None:
    """Raise ValueError if the weights do not fit the network."""
    needs = {name: value.shape for name, value in network.state_dict().items()}
    if wrong := [name for name, shape in needs.items() if name not in weights or weights[name].shape != shape]:
        raise ValueError(f"its weights are not those of its model: {wrong[0]} is another, or missing")
    if more := [name for name in weights if name not in needs]:
        raise ValueError(f"its weights are not those of its model, which has no {more[0][:100]}")


def _downloaded(run_id: str, tracking_uri: str, which: str) -> dict[str, Any]:
    """A run's checkpoint."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from tbptt.runs import checkpoint, contents, local_files
    from tbptt.system.stores import OF_MLFLOW, absolute_uri, foreign, sqlite_path, without_password

    path = sqlite_path(tracking_uri)
    if path is not None and not path.exists():
        raise ValueError(f"run {run_id}: there is no store {path}")
    if path is not None and (problem := foreign(path, OF_MLFLOW)):
        raise ValueError(f"run {run_id}: {problem}")
    client = MlflowClient(tracking_uri=absolute_uri(tracking_uri))
    name = f"checkpoints/{which}.ckpt"
    try:
        uri = client.get_run(run_id).info.artifact_uri
        if path is not None and local_files.is_on_a_disk(uri):
            file = local_files.folder_of_run(path, run_id, uri) / name
            if not file.exists():
                raise ValueError(f"run {run_id} has no checkpoint {which}.ckpt: expected at {file}")
            return checkpoint.load(file, contents.OF_A_RUN)
        with tempfile.TemporaryDirectory() as folder:
            return checkpoint.load(Path(client.download_artifacts(run_id, name, folder)), contents.OF_A_RUN)
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        where = without_password(tracking_uri)
        raise ValueError(
            f"run {run_id} in {where} has no checkpoint {which}.ckpt: {without_password(reason)}"
        ) from None


def panel(
    run_id: str | Path, path: str | Path | None = None, tracking_uri: str | None = None, which: str = "best"
) -> "Panel":
    """The series and other inputs of a run's data source, read again, or of the next file of the same shape.

    Args:
        run_id, tracking_uri, which: as for :func:`load_run`.
        path: a file to be read as the run's was, with the run's keys; None reads the run's source again.

    Returns:
        The run's series in the run's order, whole, not cut into parts; ``inputs`` are the run's, in its order. Series
        that the run did not have are left out, and ``findings.left_out`` says so.

    Raises:
        ValueError: there is no such run; its data come from no file or source; the file cannot be read, or lacks a
            series or an input of the run.
    """
    from tbptt.data.split import as_panel

    content, what = _content(run_id, tracking_uri, which)
    cfg = typed(content["config"], needs=("data",))
    data = OmegaConf.to_object(cfg.data)
    if not isinstance(data, SplitData):
        raise ValueError(f"{what} has data={cfg.data.name}, whose series are held out whole and come from no source")
    if path is not None:
        if not hasattr(data, "path"):
            raise ValueError(f"path: got {path}; {what} has data={data.name}, which reads no path")
        data = replace(cast(Any, data), path=str(path))
    found, where = as_panel(data.prices(), data), str(getattr(data, "path", data.name))
    names = content.get("series") or data.columns or list(found.series)
    found = _named_as(found, names, data)
    if lacks := [name for name in names if name not in found.series]:
        new = [name for name in found.series if name not in names]
        more = f"; new are {_listed(new)}" if new else ""
        raise ValueError(f"{where} has no series {_listed(lacks)}, on which {what} was trained{more}")
    if len(names) != (known := len(content["scaler"]["input_mean"])):
        raise ValueError(f"{where} has {len(names)} series, and {what} was trained on {known}: give it the same")
    if lacks := [name for name in data.inputs if name not in found.inputs]:
        has = _listed(found.inputs) if found.inputs else "none"
        raise ValueError(f"{where} has no input {_listed(lacks)}, which {what} sees (it has: {has})")
    return _only(found, names, data.inputs)


def _named_as(found: "Panel", names: list[str], data: SplitData) -> "Panel":
    """A panel whose series have the run's names, where a file calls them almost so: in another case, or after its
    only symbol, though the column of the prices has the run's name."""
    import numpy as np

    from tbptt.data.panels.columns import resolved
    from tbptt.data.split import as_panel

    free = [name for name in found.series if name not in names]
    called = {near: name for name in names if name not in found.series and (near := resolved(name, free)) is not None}
    if not called and len(names) == len(free) == len(found.series) == 1:
        with suppress(ValueError):  # the file has no such column
            (of_column,) = as_panel((again := replace(data, columns=names)).prices(), again).series.values()
            if np.array_equal(of_column.prices, found.series[free[0]].prices):
                called = {free[0]: names[0]}
    return replace(found, series={called.get(name, name): each for name, each in found.series.items()})


def _only(found: "Panel", names: list[str], inputs: list[str]) -> "Panel":
    """A panel with these series and inputs alone, in this order."""
    columns = [found.inputs.index(name) for name in inputs]
    series = {name: found.series[name] for name in names}
    left = {name: "no series of the run" for name in found.series if name not in series}
    return replace(
        found,
        series={name: replace(each, inputs=each.inputs[:, columns]) for name, each in series.items()},
        inputs=tuple(inputs),
        findings=replace(found.findings, left_out={**found.findings.left_out, **left}),
    )


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def inputs(prices: "Numbers", scaler: "Scaler", config: DictConfig, extra: "Numbers | None" = None) -> "Tensor":
    """The inputs of a loaded network for some prices.

    Args:
        prices: (B, W + T) float64, oldest first; W is ``config.data.window``. If the run scales each series by itself,
            the rows must be its series, in the same order.
        scaler, config: as :func:`load_run` returns them.
        extra: (B, W + T, D) float64, the run's other inputs beside each price, as :func:`panel` gives them; NaN where
            one is missing. Needed if the run has ``data.inputs``.

    Returns:
        (B, T, ``input_size``) float32: the W lags of the price, then those of the other inputs
        (:class:`tbptt.data.features.LagFeatures`). Step t belongs to prices[:, W + t] and sees nothing later.

    Raises:
        ValueError: there are too few prices, or not as many series as the run had; ``extra`` is missing, or is not of
            the run's inputs.
    """
    from tbptt.data.features import LagFeatures

    prices = _as_tensor(prices)
    window, known = config.data.window, len(scaler.input_std)
    if prices.ndim != 2 or prices.shape[1] <= window or known not in (1, len(prices)):
        series = "any number of series" if known == 1 else f"{known} series"
        raise ValueError(f"prices: got {tuple(prices.shape)}; takes {series} of more than {window} prices each")
    names = _other_inputs(config)
    beside = (*prices.shape, len(names))
    more = None if extra is None else _as_tensor(extra)
    if more is None and not names:
        more = prices.new_empty(beside)
    if more is None or tuple(more.shape) != beside or _count(scaler) != len(names):
        got = None if more is None else tuple(more.shape)
        of = f", {_listed(names)} beside each price" if names else ", as the run has no other inputs"
        raise ValueError(f"extra: got {got}; takes {beside}{of}")
    lags = config.data.input_window if names else 1
    kind = config.data.features
    features = LagFeatures(prices, scaler, window, kind, extra=more if names else None, input_window=lags)
    return features(0, features.length)


def _as_tensor(numbers: "Numbers") -> "Tensor":
    """As float64. An array is copied: those of a panel are read-only, and PyTorch has no such tensors."""
    import numpy as np
    import torch

    if isinstance(numbers, torch.Tensor):
        return numbers.double()
    return torch.from_numpy(np.array(numbers, dtype=np.float64))


def sides(q: "Tensor", fee: "float | Tensor | None", held: "Tensor | None" = None) -> "Tensor":
    """The side to hold at every step, from Q-values and the cost of changing sides.

    A change of side costs 2 · fee, one fee to close and one to open. The Q-values of a step do not include this cost at
    that step. So the side changes only if the other side's Q-value exceeds that of the side held by more than 2 · fee.

    Args:
        q: (B, T, 2) in price units, of buying and of selling.
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

    if q.ndim != 3 or q.shape[-1] != 2 or not q.shape[1]:
        raise ValueError(f"q: got {tuple(q.shape)}; takes (series, steps, 2)")
    cost = 2 * torch.as_tensor(math.nan if fee is None else fee).to(q).flatten()  # (1,) or (B,)
    if len(cost) not in (1, len(q)) or not (cost >= 0).all():
        got = fee if fee is None or len(cost) == 1 else f"{len(cost)} numbers"
        raise ValueError(f"fee: got {got}; takes price units from 0, one number or one for each of {len(q)} series")
    gain = q[..., 0] - q[..., 1]
    return held_sides(gain, cost[:, None], gain[:, 0] > 0 if held is None else held.bool())
