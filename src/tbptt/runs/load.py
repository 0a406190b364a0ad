"""The checkpoint of a run from its store, and the network that a checkpoint describes."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tbptt.config.checks import keys
from tbptt.config.try_out import input_size, size_problem
from tbptt.models.options import ModelConfig
from tbptt.options.takes import wrong_value
from tbptt.tasks.options import TaskConfig

if TYPE_CHECKING:
    from torch import Tensor

    from tbptt.models.protocol import Network

INPUT_KEYS = ("data.window", "data.features", "data.inputs", "data.input_window")  # they say what a network sees


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


def checkpoint_of(run_id: str, tracking_uri: str, which: str) -> dict[str, Any]:
    """A run's checkpoint, from its store.

    Args:
        which: ``best`` or ``last``.

    Raises ValueError if there is no such run, or it has no such checkpoint that can be read.
    """
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
    name, kept = f"checkpoints/{which}.ckpt", None
    try:
        run = client.get_run(run_id)
        uri, kept = run.info.artifact_uri, run.data.tags.get(local_files.CHECKPOINTS)
        if path is not None and (problem := local_files.server_problem(uri)):
            raise ValueError(f"run {run_id}: {problem}")
        if path is not None and local_files.is_on_a_disk(uri):
            file = local_files.folder_of_run(path, run_id, uri) / name
            if not file.exists():
                why = local_files.why_removed(kept) if kept else f"expected at {file}"
                raise ValueError(f"run {run_id} has no checkpoint {which}.ckpt: {why}")
            return checkpoint.load(file, contents.OF_A_RUN)
        with tempfile.TemporaryDirectory() as folder:
            return checkpoint.load(Path(client.download_artifacts(run_id, name, folder)), contents.OF_A_RUN)
    except (MlflowException, OSError) as error:
        reason = local_files.why_removed(kept) if kept else str(error).splitlines()[0]
        where = without_password(tracking_uri)
        raise ValueError(
            f"run {run_id} in {where} has no checkpoint {which}.ckpt: {without_password(reason)}"
        ) from None
