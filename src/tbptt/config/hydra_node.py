"""Limits on what a config may make Hydra itself do. Hydra may start only the classes listed here, and a file from
elsewhere may not configure Hydra at all.

Hydra instantiates launchers, sweepers, callbacks and log handlers by the class names in its own part of the config.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, cast

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from tbptt.options.takes import wrong_value
from tbptt.system.command import install
from tbptt.system.secrets import IN_A_URL, in_a_url, is_secret

LAUNCHERS = {
    "basic": "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "joblib": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
}
SWEEPERS = {"study": "hydra_plugins.tbptt_study.sweeper.StudySweeper"}
CLASSES = {*LAUNCHERS.values(), *SWEEPERS.values(), "logging.StreamHandler", "logging.FileHandler"}
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
# Keys that Hydra fills in and reads again. With another value it would search other folders or do something else.
OF_HYDRA = (
    "hydra.runtime",
    "hydra.overrides",
    "hydra.mode",
    *(f"hydra.job.{n}" for n in ("name", "config_name", "id", "num", "override_dirname")),
)
# Keys that differ from command to command and start nothing.
OF_THE_COMMAND = ("runtime.", "overrides.", "searchpath", "job.name", "job.config_name", "job.override_dirname")


def hydra_problems(hydra: DictConfig, expected: DictConfig | None) -> list[str]:
    """A line for each problem of Hydra's own part of a config.

    Args:
        hydra: this part, as it was composed.
        expected: this part composed without files from elsewhere; None if there are no such files.
    """
    found = _flat(hydra)
    lines = [f"hydra.{key}: got {value!r}; {takes}" for key, value in found.items() if (takes := _refused(key, value))]
    lines += [f"hydra.{key}: {IN_A_URL}" for key, value in found.items() if in_a_url(value) and not _is_of_others(key)]
    lines += [
        f"hydra.{key}: got a secret (its name says so), which would be kept; takes none: export it"
        for key, value in found.items()
        if key.startswith("job.env_set.") and is_secret(key) and value
    ]
    if expected is None or lines:
        return lines
    shipped = _flat(expected)
    return [
        f"hydra.{key}: set by a file from elsewhere; only the command line may say what Hydra does"
        for key in dict.fromkeys([*found, *shipped])
        if not key.startswith(OF_THE_COMMAND) and found.get(key) != shipped.get(key)
    ]


def not_installed(launcher: str) -> str | None:
    """The line about a launcher whose package is not installed; None if it is."""
    plugin = LAUNCHERS[launcher].split(".")[:2]
    if plugin[0] != "hydra_plugins" or find_spec(".".join(plugin)):
        return None
    package = plugin[1].replace("_", "-")
    return f"hydra/launcher: got {launcher!r}, which needs {package}: {install(package)}"


def typed_problem(override: Override) -> str | None:
    """The line about a wrong override of Hydra's own config, in cases that Hydra itself would not report in a line."""
    key, value = override.key_or_group, override.value()
    if key == "hydra":
        return "hydra: has keys of its own; takes hydra.KEY=VALUE"
    if any(key == name or key.startswith(f"{name}.") for name in OF_HYDRA):
        right = {"hydra.job.config_name": "--config-name NAME", "hydra.mode": "-m"}.get(key, "no value")
        return f"{key}: is filled in by Hydra; takes {right}"
    for group, options in (("hydra/launcher", LAUNCHERS), ("hydra/sweeper", SWEEPERS)):
        if key == group.replace("/", "."):
            return wrong_value(key, value, f"{group}={'|'.join(options)}")
        if key == group and not override.is_sweep_override():
            if not isinstance(value, str) or value not in options:
                return wrong_value(key, value, "one of " + ", ".join(options))
            return not_installed(value) if options is LAUNCHERS else None
    if key.startswith("hydra/") and not override.is_sweep_override() and not isinstance(value, str):
        return wrong_value(key, value, "the name of an option")
    return None


def typed_for_hydra(words: list[str]) -> list[str]:
    """The overrides of Hydra's own config, but not of where it searches for files."""
    about = [word for word in words if word.lstrip("+~").startswith(("hydra.", "hydra/", "cluster="))]
    return [word for word in about if not word.lstrip("+").startswith("hydra.searchpath")]


def _refused(key: str, value: Any) -> str | None:
    """What a key of Hydra's takes, if its value would start something that is not allowed; else None."""
    *_, leaf = key.split(".")
    if key.startswith("callbacks."):
        return "no callbacks are taken"
    if leaf == "()":
        return "no factories are taken"
    if leaf in ("_target_", "class") and value not in CLASSES:
        return f"takes hydra/launcher={'|'.join(LAUNCHERS)} and hydra/sweeper=study"
    if isinstance(value, str) and value.startswith(("ext://", "cfg://")) and value not in STREAMS:
        return f"takes {' or '.join(STREAMS)}"
    return None


def _is_of_others(key: str) -> bool:
    """Whether a key of Hydra's only repeats what was typed for other keys. Those keys are checked themselves."""
    return key.startswith(("overrides.", "job.override_dirname", "searchpath"))


def _flat(node: DictConfig) -> dict[str, Any]:
    return dict(_leaves(cast(Mapping[str, Any], OmegaConf.to_container(node, resolve=False)), ""))


def _leaves(content: object, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _leaves(value, f"{prefix}.{name}".lstrip("."))
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from _leaves(value, f"{prefix}.{i}")
    else:
        yield prefix, content
