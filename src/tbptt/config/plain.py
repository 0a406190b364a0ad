"""A config in plain types, and as a YAML file that reruns it."""

from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf

from tbptt.config.moved import under_names_of_now
from tbptt.options.option import OF_A_RUN

# Such a file is known by this line (earlier.py), so it never changes.
HEADER = "# Reruns this run: python train.py --config-dir FOLDER --config-name NAME (of this file, without .yaml)\n"


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A config in plain types. ``${...}`` stays as it was typed, so that no secret is written out."""
    return under_names_of_now(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False)), cfg)


def rerunnable(cfg: DictConfig) -> str:
    """A config as YAML that Hydra composes again: it begins with the defaults list, so overrides still work."""
    content = {name: value for name, value in plain(cfg).items() if name not in ("study", "space", "resume")}
    groups: list[Any] = [{f"override {group}": content[group]["name"]} for group in OF_A_RUN]
    defaults = [
        "base",
        {"figure": None},
        {"cluster": "local"},
        {"sweep": None},
        {"override hydra/sweeper": "study"},
        *groups,
        "_self_",
    ]
    return HEADER + yaml.safe_dump({"defaults": defaults, **content}, sort_keys=False, allow_unicode=True)
