"""A trained network with everything that predicting with it takes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from omegaconf import DictConfig, OmegaConf

from tbptt.config.schema import typed
from tbptt.runs.load import network_of
from tbptt.serving.source import Source
from tbptt.tasks.options import TaskConfig

if TYPE_CHECKING:
    from tbptt.data.features import Scaler
    from tbptt.models.protocol import Network


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network.

    Attributes:
        network: in evaluation mode, on the CPU.
        scaler: brings predictions back to price units.
        config: the run's config as it was composed.
        series: the names of the series that it was trained on, in their order; None for a checkpoint that is older
            than this field, or whose data have no names.
        source: where it was found.
    """

    network: "Network"
    scaler: "Scaler"
    config: DictConfig
    series: list[str] | None
    source: Source

    @property
    def window(self) -> int:
        """Prices before a step that its inputs are made of, W."""
        return int(self.config.data.window)

    @property
    def inputs(self) -> list[str]:
        """The names of the other inputs, in their order."""
        return other_inputs(self.config)

    @property
    def task(self) -> TaskConfig:
        return cast(TaskConfig, OmegaConf.to_object(self.config.task))


def trained(source: Source) -> Trained:
    """The network of a checkpoint.

    Raises ValueError if its config and its weights do not fit each other, or if an option that it names as model, task
    or data does not exist here.
    """
    from tbptt.data.features import Scaler

    content = source.content
    cfg = typed(content["config"], needs=("model", "task", "data"))
    try:
        network = network_of(content, cfg)
        scaler = Scaler(**content["scaler"])
        if count_of(scaler) != len(other_inputs(cfg)):
            raise ValueError("its scaler is not that of its data.inputs")
    except ValueError as error:
        raise ValueError(f"{source.said}: {error}") from None
    return Trained(network.eval(), scaler, cfg, content.get("series"), source)


def other_inputs(cfg: DictConfig) -> list[str]:
    """The names of a config's other inputs; some data have none."""
    return list(OmegaConf.select(cfg, "data.inputs") or [])


def count_of(scaler: "Scaler") -> int:
    """How many other inputs a scaler is of."""
    return 0 if scaler.extra_mean is None else scaler.extra_mean.shape[1]
