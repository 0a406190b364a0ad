"""A ``conf/`` in the working folder may be another program's. Then one line says so, before a command begins."""

from pathlib import Path

import yaml
from omegaconf import OmegaConf

from tbptt.cli.ending import WRONG, ended, ran
from tbptt.config.compose import WRONG as CANNOT_COMPOSE
from tbptt.config.compose import CommandError, ConfigSource
from tbptt.config.schema import Config, register
from tbptt.options.own import load_own
from tbptt.system import folders

BEFORE_ALL = ("config", "base")  # what every command begins with


def looked_at(conf: Path) -> int:
    """Have ``conf/`` of the working folder come before ``conf``, the shipped configs. Returns an exit status: 0, or 2
    after a line that says why it cannot."""
    folders.look_here()
    first = folders.first()
    if first is None or not any((first / f"{name}.yaml").is_file() for name in BEFORE_ALL):
        return 0
    return ran(lambda: _checked(first, conf))


def _checked(first: Path, conf: Path) -> int:
    try:
        load_own()
    except ValueError as error:
        return ended(str(error), WRONG)
    register()
    source = ConfigSource(conf)
    with source.opened():
        try:
            cfg, hydra = source.compose_both([])
        except CommandError:  # it names its file
            raise
        except yaml.YAMLError as error:
            raise _of_another(first, " ".join(str(error).split())) from None
        except (*CANNOT_COMPOSE, OSError) as error:
            raise _of_another(first, (str(error).strip().splitlines() or [type(error).__name__])[0]) from None
    if OmegaConf.get_type(cfg) is not Config:
        raise _of_another(first, "it does not begin with tbptt's own")
    if hydra.sweeper._target_.split(".")[:2] != ["hydra_plugins", "tbptt_study"]:
        raise _of_another(first, "its defaults do not have `override hydra/sweeper: study`")
    return 0


def _of_another(first: Path, why: str) -> CommandError:
    names = " and ".join(f"conf/{n}.yaml" for n in BEFORE_ALL if (first / f"{n}.yaml").is_file())
    copy = "take a copy of the shipped one, another name, or another folder to work in"
    return CommandError([f"{names} in the working folder comes before the shipped one, and {why}; {copy}"])
