"""Composing configs. If that fails, every problem is reported, a line each; Hydra alone would stop at the first."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tbptt import compat
from tbptt.config.checks import keys, nearest_key, problems, unknown_key
from tbptt.config.earlier import reruns, with_what_was_done_then
from tbptt.config.hydra_node import LAUNCHERS, hydra_problems, not_installed, typed_for_hydra
from tbptt.config.moved import spelled_anew
from tbptt.config.schema import all_keys
from tbptt.config.words import spelled, text_keys
from tbptt.options.option import CHOSEN, GROUPS
from tbptt.options.takes import wrong_value
from tbptt.options.values import quoted
from tbptt.system import folders
from tbptt.system.files import write_text
from tbptt.system.nesting import DEEPEST, is_too_deep, yaml_problem
from tbptt.system.secrets import hide
from tbptt.system.stores import sqlite_path, without_password

# What composing may raise: given a value that is no text, Hydra does not catch the errors of Python itself.
WRONG = (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, LookupError, AssertionError)


class CommandError(ValueError):
    """The command or its config is wrong; ``lines`` has a line for each problem."""

    def __init__(self, lines: Sequence[str]):
        self.lines = list(map(hide, lines))
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True)
class ConfigSource:
    """Where a config comes from.

    Attributes:
        folder: searched first.
        name: of the primary config. ``best~schedule`` is ``best`` without its part about the group ``schedule``, for
            which another option was chosen. With a ``~``, a file that reruns a run has what was done then in the place
            of each new key that it does not say; ``best~`` has only that.
        also: one more folder, searched second.
        shipped: the folder whose files may configure Hydra itself, as those in ``first`` may; None if no file comes
            from elsewhere. If it is set, :func:`composed` checks that no other file configures Hydra.
        first: ``conf/`` of the working folder, whose files come before the shipped ones; None if there is none. They
            are the user's own.
    """

    folder: Path
    name: str = "config"
    also: Path | None = None
    shipped: Path | None = None
    first: Path | None = field(default_factory=folders.first)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Within, configs can be composed, also in a Hydra job. The same overrides are composed only once."""
        before = get_gh_backup()
        GlobalHydra.instance().clear()
        _composed.cache_clear()  # the files may have changed since
        _chosen.cache_clear()
        _parted.cache_clear()
        _is_group.cache_clear()
        self.register()
        _look_at_files()
        try:
            with folders.coming_first(self.first), initialize_config_dir(str(self.folder), version_base="1.3"):
                yield
        finally:
            restore_gh_from_backup(before)

    def register(self) -> None:
        """For a name with ``~``: give Hydra the primary config without those groups."""
        name, *without = self.name.split("~")
        if without:
            file = self.folder / f"{name}.yaml"
            refuse_growth(file)
            content = yaml.safe_load(file.read_text())
            if reruns(file):
                content = with_what_was_done_then(content)
            ConfigStore.instance().store(name=self.name, node={k: v for k, v in content.items() if k not in without})

    def compose(self, overrides: Iterable[str]) -> DictConfig:
        """The config of one run. Raises Hydra's and OmegaConf's errors."""
        return self.compose_both(overrides)[0]

    def compose_both(self, overrides: Iterable[str]) -> tuple[DictConfig, DictConfig]:
        """The config of one run, and Hydra's own."""
        cfg, whole = _composed(self, tuple(overrides))
        return cfg.copy(), whole.hydra

    def save(self, folder: Path, overrides: Sequence[str]) -> None:
        """Write the files that Hydra writes for a job: config.yaml, hydra.yaml, overrides.yaml."""
        cfg, hydra = _composed(self, tuple(overrides))
        folder.mkdir(parents=True, exist_ok=True)
        content = {"hydra": hydra, "config": cfg, "overrides": OmegaConf.create(list(overrides))}
        for name, part in content.items():
            write_text(folder / f"{name}.yaml", OmegaConf.to_yaml(part))

    def options(self, group: str) -> list[str]:
        """The options of a group in alphabetical order; empty if there is no such group."""
        return sorted({path.stem for folder in self._folders() for path in (folder / group).glob("*.yaml")})

    def file(self, name: str) -> Path | None:
        """The file of a config such as ``optimizer/adam``, as Hydra finds it; None if there is none."""
        return next((file for folder in self._folders() if (file := folder / f"{name}.yaml").is_file()), None)

    def _folders(self) -> list[Path]:
        """Where Hydra looks for configs, in its order."""
        own = [self.first, self.folder] if folders.is_shipped(str(self.folder)) else [self.folder, self.first]
        return [folder for folder in (*own, self.also) if folder]


def parsed(words: Iterable[str], may_sweep: bool = True) -> tuple[list[Override], list[str]]:
    """The words as Hydra's overrides, and a line for each word that is no override.

    Args:
        may_sweep: whether a comma in a key's text separates several values.
    """
    parser = OverridesParser.create()
    texts = text_keys()
    overrides, lines = [], []
    for word in words:
        if is_too_deep(word):
            key = word.partition("=")[0][:100]
            lines.append(f"{key}: is nested too deeply; takes at most {DEEPEST} brackets in each other")
            continue
        try:
            override = parser.parse_override(spelled(spelled_anew(word), texts, may_sweep))
            if _names_more(override) and not override.is_add():  # Hydra adds names to a mapping only so
                override = parser.parse_override(f"+{override.input_line}")
            if override.is_delete():
                lines.append(f"{word}: a key cannot be taken away; takes KEY=VALUE")
            else:
                overrides.append(override)
        except HydraException as error:
            lines.append(_no_override(word, error))
    return overrides, lines


def _names_more(override: Override) -> bool:
    """Whether an override gives a mapping for a key that takes names of the user's own."""
    return override.key_or_group == "tags" and isinstance(override.value(), dict)


def _no_override(word: str, error: Exception) -> str:
    key, is_there, _ = word.partition("=")
    names = [name for name, *_ in all_keys()]
    if is_there and key not in names and (near := nearest_key(key, names)):
        return f"{key}: unknown key; did you mean {near}?"
    return f"{without_password(word)}: not an override ({str(error).splitlines()[0]}); takes key=value"


def composed(source: ConfigSource, overrides: Sequence[str]) -> tuple[DictConfig | None, list[str]]:
    """The config of one run (None if it cannot be composed) and a line for each problem."""
    try:
        cfg, hydra = source.compose_both(overrides)
    except WRONG as error:
        return None, _located(source, list(overrides), error)
    here = OmegaConf.select(hydra, "launcher._target_") == LAUNCHERS["basic"]
    typed = tuple(typed_for_hydra(list(overrides)))
    if source.shipped is None:
        lines = hydra_problems(hydra, None)
        return (None, lines) if lines else (cfg, problems(cfg, here))
    expected, expected_hydra = _shipped(source.shipped, source.first, typed)
    if lines := hydra_problems(hydra, expected_hydra):
        return None, lines
    return cfg, [*problems(cfg, here), *_servers_of_files(cfg, expected, overrides)]


def _servers_of_files(cfg: DictConfig, shipped: DictConfig, overrides: Sequence[str]) -> list[str]:
    """A line for each server that is named, or taken from the environment, by a file from elsewhere: the user's
    credentials would be sent there. A server that the shipped config names is the user's own."""
    typed = {word.lstrip("+").split("=", 1)[0] for word in overrides}
    return [
        f"{key}: a file in --config-dir names the server {hide(without_password(uri))}, where your credentials would "
        f"go; type {key}=… on the command line"
        for key in ("tracking.uri", "study.storage")
        if key not in typed
        and sqlite_path(uri := str(OmegaConf.select(cfg, key))) is None
        and uri != str(OmegaConf.select(shipped, key))
    ]


def refuse_growth(path: Path) -> None:
    """Raise CommandError if a YAML file would take too much memory or is nested too deeply."""
    if problem := yaml_problem(path):
        raise CommandError([f"{path} {problem}"])


@cache
def _look_at_files() -> None:
    """Have Hydra check each file before it reads it, for the rest of this process."""
    compat.before_each_file(refuse_growth)


@lru_cache(maxsize=32)  # a trial's config is composed to check it and again to record it
def _composed(source: ConfigSource, overrides: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
    """The config, and Hydra's own part of it under the key ``hydra``. Hydra takes 0.1 s to read and merge the files of
    the chosen options, and a study's points mostly choose the same options. So those are composed once, and a function
    of Hydra's puts the other values on top of a copy."""
    words = [_word(one) for one in overrides]
    changes = all(o.type == OverrideType.CHANGE or _names_more(o) for o in words)
    simple = changes and not any(o.is_hydra_override() or o.package is not None for o in words)
    values = [o for o in words if simple and not _is_group(source, o.key_or_group)]
    cfg, hydra = deepcopy(_parted(source, tuple(str(o.input_line) for o in words if o not in values)))
    if values:
        compat.put_on_top(cfg, values)
        hydra.hydra.overrides.task = list(overrides)
        hydra.hydra.job.override_dirname = compat.override_dirname(words, hydra.hydra.job.config.override_dirname)
    return cfg, hydra


@lru_cache(maxsize=1000)  # most words of a study's points are the same
def _word(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


@lru_cache(maxsize=1000)
def _is_group(source: ConfigSource, key: str) -> bool:
    return bool(source.options(key))


@lru_cache(maxsize=32)
def _parted(source: ConfigSource, overrides: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
    """The config without Hydra's own part, and that part alone: a copy of each is smaller than one of both."""
    cfg = deepcopy(_chosen(source, overrides))
    hydra = OmegaConf.masked_copy(cfg, ["hydra"])
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, hydra


@lru_cache(maxsize=32)
def _chosen(source: ConfigSource, overrides: tuple[str, ...]) -> DictConfig:
    """The config as Hydra composes it, with Hydra's own part."""
    searched = [f"hydra.searchpath=[{quoted(f'file://{source.also}')}]"] if source.also else []
    return compose(source.name, [*searched, *overrides], return_hydra_config=True)


@cache
def _shipped(shipped: Path, first: Path | None, words: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
    """The config with some overrides without files from elsewhere, and Hydra's own config."""
    source = ConfigSource(shipped, first=first)
    with source.opened():
        return source.compose_both(words)


def _located(source: ConfigSource, overrides: list[str], error: Exception) -> list[str]:
    """All problems of a config that cannot be composed. Hydra stops at the first error, so each override is tried by
    itself; then the config with all good ones is checked."""
    words, _ = parsed(overrides)
    lines, groups, good = [], [], []
    for override in (o for o in words if source.options(o.key_or_group)):
        options = source.options(override.key_or_group)
        if override.value() in options:
            groups.append(str(override.input_line))
        else:
            takes = "one of " + ", ".join(options)
            lines.append(
                wrong_value(override.key_or_group, override.value(), takes)
                + (_without_yaml(override) or _nearest(override.value(), options))
            )
    try:
        base, hydra = source.compose_both(groups)
    except WRONG as alone:
        return [*lines, _launcher_problem(alone) or _first_line(alone)]
    takes_of = {name: takes for name, _, _, takes in keys(base)}
    for override in (o for o in words if not source.options(o.key_or_group)):
        line, key = str(override.input_line), override.key_or_group
        try:
            source.compose([*groups, line])
            good.append(line)
        except WRONG as alone:
            if key in takes_of:
                lines.append(wrong_value(key, override.value(), takes_of[key].text))
            elif (of_hydra := _of_hydra(hydra, override)) is not None:
                lines.append(of_hydra)
            elif OmegaConf.select(base, key) is None:
                lines.append(_unknown(source, key, takes_of, groups))
            elif key.replace(".", "/") in CHOSEN:
                lines.append(unknown_key(key, []))
            elif OmegaConf.is_dict(OmegaConf.select(base, key)):
                lines.append(f"{key}: has keys of its own; takes {key}.KEY=VALUE")
            else:
                lines.append(f"{key}: {_first_line(alone)}")
    with suppress(*WRONG):
        told = {line.split(":")[0] for line in lines}
        lines += [line for line in problems(source.compose([*groups, *good])) if line.split(":")[0] not in told]
    return lines or [_first_line(error)]


def _unknown(source: ConfigSource, key: str, known: Iterable[str], groups: list[str]) -> str:
    """The line about a key that does not exist: the options that have such a key, or else the nearest existing key."""
    if key.startswith("hydra/"):
        return f"{key}: there is no such option"
    group, _, leaf = key.lstrip("+~").partition(".")
    having = []
    for option in source.options(group) if leaf else ():
        with suppress(*WRONG):  # an option that cannot be composed has a line of its own once it is chosen
            cfg = source.compose([*groups, f"{group}={option}"])
            having += [f"{group}={option}"] * any(f"{group}.{leaf}" == name for name, *_ in keys(cfg))
    if having:
        return f"{key}: a key of {' and '.join(having)}, and another {group} is chosen"
    return unknown_key(key, [*known, *CHOSEN])


def _of_hydra(hydra: DictConfig, override: Override) -> str | None:
    """The line about a value that Hydra's own part of the config does not take; None if it has no such key."""
    key, unknown = override.key_or_group, object()
    if not key.startswith("hydra."):
        return None
    current = OmegaConf.select(hydra, key.removeprefix("hydra."), default=unknown)
    if current is unknown:
        return None
    if OmegaConf.is_dict(current):
        return f"{key}: has keys of its own; takes {key}.KEY=VALUE"
    return wrong_value(key, override.value(), "a text" if isinstance(current, str) else "another kind of value")


def _launcher_problem(error: Exception) -> str | None:
    """The line about a launcher whose package is not installed, if that is why composing failed."""
    found = (name for name in LAUNCHERS if f"'hydra/launcher/{name}'" in str(error))
    return next(map(not_installed, found), None)


def _without_yaml(override: Override) -> str:
    """An addition to the line if the user's class for this option exists but its yaml is missing."""
    group, name = override.key_or_group, override.value()
    found = GROUPS.get(group, {}).get(name) if isinstance(name, str) else None
    return f"; class {found.__name__} exists, but the file conf/{group}/{name}.yaml does not" if found else ""


def _nearest(got: object, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(got), list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
