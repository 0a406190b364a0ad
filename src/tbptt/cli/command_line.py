"""Checking the typed command. Everything that it would run is composed here first, so that a mistake costs nothing.

Hydra alone would exit with 1 and leave files behind.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from tbptt import compat
from tbptt.config.compose import CommandError, ConfigSource, composed, parsed, refuse_growth
from tbptt.config.earlier import reruns, with_what_was_done_then
from tbptt.config.moved import first_name
from tbptt.config.schema import register
from tbptt.config.typed import Typed, overrides_of, read
from tbptt.config.words import as_typed, text_keys
from tbptt.options.option import OF_A_RUN
from tbptt.runs.resume import resume_problems
from tbptt.studies.planned import checked_plan
from tbptt.system.environment import words_of_environment
from tbptt.system.stores import without_password

# A single run takes no key of a study except study.storage: if a file names a server there, the user must be able to
# type another one.
OF_A_STUDY, OF_A_RUN_TOO = ("study.", "study/"), ("study.storage",)


def checked(argv: Sequence[str], conf: Path) -> list[str]:
    """Check a command and everything that it would run. Returns the arguments for Hydra.

    Args:
        argv: the command without the program's name.
        conf: the folder of the shipped configs.

    Raises:
        CommandError: the command is wrong; has a line for each problem. Nothing has been written.
    """
    register()
    typed = read(argv)
    if "--version" in typed.flags or "--shell-completion" in typed.flags:
        if typed.lines:
            raise CommandError(typed.lines)
        return typed.argv(typed.words)
    overrides, lines = overrides_of(typed)
    lines = [*typed.lines, *lines]
    overrides += parsed(words_of_environment([o.get_key_element() for o in overrides]))[0]
    chosen = {o.get_key_element(): o for o in overrides if o.get_key_element() in OF_A_RUN}
    try:
        source, flags = _find_source(typed.flags, conf, chosen)
    except CommandError as error:
        raise CommandError([*lines, *error.lines]) from None
    if any(o.get_key_element().lstrip("+") == "hydra.searchpath" for o in overrides):
        source = replace(source, shipped=conf)  # files in a searchpath are checked like those in --config-dir
    with source.opened():
        if typed.is_search:
            found = _search_problems(source, overrides, bool(lines))
        else:
            found = _run_problems(source, overrides, typed)
        lines += [line + _as_text(line, typed) for line in found]
    if lines:
        raise CommandError([_by_typed_name(line, typed) for line in dict.fromkeys(lines)])
    return Typed(flags).argv([str(o.input_line) for o in overrides])


def _by_typed_name(line: str, typed: Typed) -> str:
    """A line about a renamed key, with the key's old name if that one was typed."""
    key, _, said = line.partition(": ")
    was = {word.partition("=")[0].lstrip("+") for word in typed.words}
    old = first_name(key)
    return f"{old}: {said} (its name is {key} now)" if old != key and old in was else line


def _search_problems(source: ConfigSource, overrides: Sequence[Override], is_wrong: bool) -> list[str]:
    """A line for each problem of a sweep.

    Args:
        is_wrong: whether some of its words are wrong already. Then lines about ``-m`` itself are left out.
    """
    try:
        checked_plan(source, overrides)
    except CommandError as error:
        return [line for line in error.lines if not (is_wrong and line.startswith("-m: "))]
    return []


def _as_text(line: str, typed: Typed) -> str:
    """An addition to a line about a text, if Hydra gives the text a special meaning: how to type it literally."""
    for word in typed.words:
        key, _, text = word.partition("=")
        kind = text_keys().get(key)
        if kind is None or kind.is_list or kind.is_option or not line.startswith(f"{key}: "):
            continue
        is_one = text.startswith(("'", '"')) or "\\${" in text or "${oc.env" in text
        if not is_one and ("${" in text or text.startswith(("[", "{")) or ("," in text and typed.is_search)):
            return f"; to pass this text literally, type {as_typed(key, without_password(text))}"
        if not is_one and "," in text:
            return "; for several values add -m"
    return ""


def _run_problems(source: ConfigSource, overrides: Sequence[Override], typed: Typed) -> list[str]:
    """A line for each problem of a single run."""
    lines = []
    sweeps = [o for o in overrides if o.is_sweep_override()]
    lists = {key for key, text in text_keys().items() if text.is_list}
    for o in sweeps:
        shown = without_password(o.get_value_string())
        one = f"a list, [{shown}]" if o.key_or_group in lists and "[" not in shown else "one"
        more = "" if typed.starts_nothing else ", or add -m"
        lines.append(f"{o.key_or_group}: got {shown}, several values; takes {one}{more}")
    cfg, wrong = composed(source, [str(o.input_line) for o in overrides if o not in sweeps])
    lines += wrong
    if typed.starts_nothing:
        package = typed.flags.get("--package", "")
        if cfg is not None and package and not package.startswith(("hydra", "_")) and package not in _nodes(cfg):
            lines.append(f"--package: got {package!r}; takes a key of the config")
        return lines
    keys_typed = [o.key_or_group for o in overrides]
    if cfg is not None and cfg.resume:
        return lines + resume_problems(cfg, [o.get_key_element().lstrip("+") for o in overrides], bool(lines))
    lines += [
        f"{key}: belongs to a study, and this is a single run; add -m"
        for key in keys_typed
        if (key == "study" or key.startswith(OF_A_STUDY))
        and key not in OF_A_RUN_TOO
        and not any(x.startswith(f"{key}: ") for x in lines)
    ]
    if cfg is not None and cfg.space:
        lines.append("sweep: searches several values; add -m")
    return lines


def _nodes(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, cfg):
        yield prefix + name
        if isinstance(inner := compat.node_at(cfg, name), DictConfig) and compat.has_content(inner):
            yield from _nodes(inner, f"{prefix}{name}.")


def _find_source(
    flags: Mapping[str, str], conf: Path, chosen: Mapping[str, Override]
) -> tuple[ConfigSource, dict[str, str]]:
    """Where the primary config comes from, and the flags for Hydra.

    A config in ``--config-dir`` takes the place of the shipped one with the same name; in Hydra alone, the shipped one
    would win. If another option of a group is chosen on the command line, the config's part for that group is left out.
    """
    name = (flags.get("--config-name") or "config").removesuffix(".yaml")
    if "~" in name:  # in ConfigSource.name, ~ precedes a group that is left out
        raise CommandError([f"--config-name: got {name!r}; takes the name of a config, which has no ~ in it"])
    if "--config-dir" not in flags:
        return ConfigSource(conf, name), dict(flags)
    folder = Path(flags["--config-dir"]).absolute()
    if not folder.is_dir():
        raise CommandError([f"--config-dir: got {flags['--config-dir']!r}; takes a folder that exists"])
    file = folder / f"{name}.yaml"
    if not file.is_file():
        return ConfigSource(conf, name, folder, shipped=conf), dict(flags)
    try:
        refuse_growth(file)
        own = OmegaConf.load(file)
    except CommandError as error:
        raise CommandError([f"--config-name: {line}" for line in error.lines]) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CommandError([f"--config-name: {file} cannot be read: {' '.join(str(error).split())}"]) from None
    if not isinstance(own, DictConfig):
        raise CommandError([f"--config-name: {file} holds a list; takes a file of KEY: VALUE"])
    if OmegaConf.select(own, "hydra.searchpath") is not None:
        raise CommandError(["hydra.searchpath: set by a file in --config-dir; takes one folder, --config-dir"])
    said, is_older = set(map(str, own)), False
    if reruns(file):
        whole = with_what_was_done_then(cast(dict[str, Any], OmegaConf.to_container(own)))
        said, is_older = set(whole), whole != OmegaConf.to_container(own)
    others = [
        group
        for group, o in chosen.items()
        if group in said and (o.is_sweep_override() or OmegaConf.select(own, f"{group}.name") != o.value())
    ]
    without = others or ([""] if is_older else [])
    source = ConfigSource(folder, "~".join([name, *without]), conf, shipped=conf)
    source.register()
    turned = {"--config-path": str(folder), "--config-dir": str(conf), "--config-name": source.name}
    return source, {**flags, **turned}
