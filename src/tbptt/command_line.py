"""From the command line to Hydra: everything is composed and checked here first, so that a mistake costs nothing.

Hydra alone would stop at the first error, exit with 1, and leave files behind.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tbptt.checks import keys, problems, unknown_key
from tbptt.config import GROUPS, register, wrong_value


class CommandError(ValueError):
    """The command or its config is wrong; ``lines`` says how, one problem a line."""

    def __init__(self, lines: Sequence[str]):
        super().__init__("\n".join(lines))
        self.lines = list(lines)


@dataclass(frozen=True)
class Source:
    """Where a config comes from: the folder looked in first, the name of the primary config, one more folder."""

    folder: Path
    name: str = "config"
    also: Path | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        with initialize_config_dir(str(self.folder), version_base="1.3"):
            yield

    def compose(self, overrides: Iterable[str]) -> DictConfig:
        """The config of one run. Raises Hydra's and OmegaConf's errors."""
        searched = [f"hydra.searchpath=['file://{self.also}']"] if self.also else []
        return compose(self.name, [*searched, *overrides])

    def options(self, group: str) -> list[str]:
        """What can be chosen for a group, in alphabetical order; empty if there is no such group."""
        folders = [self.folder, *([self.also] if self.also else [])]
        return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def checked(argv: Sequence[str], conf: Path) -> list[str]:
    """Check a command and everything it would run; returns the arguments for Hydra.

    Args:
        argv: without the program's name.
        conf: the folder of the shipped configs.

    Raises:
        CommandError: with every problem found. Nothing has been written.
    """
    register()
    args = get_args_parser().parse_args(list(argv))
    if args.hydra_help or args.info or args.shell_completion:
        return list(argv)
    source, argv = _find_source(list(argv), args.config_dir, args.config_name, conf)
    overrides, lines = _parsed(args.overrides)
    if not args.multirun:
        sweeps = [o for o in overrides if o.is_sweep_override()]
        lines += [f"{o.key_or_group}: got {o.get_value_string()}, several values; takes one, or add -m" for o in sweeps]
        overrides = [o for o in overrides if o not in sweeps]
    with source.opened():
        for point in _points(overrides):
            lines += [line for line in _point_problems(source, point) if line not in lines]
    if lines:
        raise CommandError(lines)
    return argv


def _find_source(argv: list[str], config_dir: str | None, name: str | None, conf: Path) -> tuple[Source, list[str]]:
    """A config in ``--config-dir`` comes before the shipped one of the same name; Hydra has it the other way round."""
    if not config_dir:
        return Source(conf, name or "config"), argv
    folder = Path(config_dir).absolute()
    if not folder.is_dir():
        raise CommandError([f"--config-dir: got {config_dir!r}; takes a folder that exists"])
    if name and (folder / name).with_suffix(".yaml").is_file():
        rest = [a for a in argv if a not in ("--config-dir", "-cd", config_dir) and not a.startswith("--config-dir=")]
        return Source(folder, name, conf), [f"--config-path={folder}", f"--config-dir={conf}", *rest]
    return Source(conf, name or "config", folder), argv


def _parsed(words: Iterable[str]) -> tuple[list[Override], list[str]]:
    parser = OverridesParser.create()
    overrides, lines = [], []
    for word in words:
        try:
            overrides.append(parser.parse_override(word))
        except HydraException as error:
            lines.append(f"{word}: not an override ({str(error).splitlines()[0]}); takes key=value")
    return overrides, lines


def _points(overrides: list[Override]) -> Iterator[list[str]]:
    """For the check of a sweep: each swept value once, beside the first values of the other keys."""
    values = [_values(o) for o in overrides]
    first = [v[0] for v in values]
    yield first
    for i, others in enumerate(values):
        for other in others[1:]:
            yield [*first[:i], other, *first[i + 1 :]]


def _values(override: Override) -> list[str]:
    """The overrides that one override stands for; for an interval its ends."""
    if not override.is_sweep_override():
        assert override.input_line is not None
        return [override.input_line]
    key = override.get_key_element()
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        return [f"{key}={swept.start}", f"{key}={swept.end}"]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _point_problems(source: Source, overrides: list[str]) -> list[str]:
    try:
        cfg = source.compose(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        return _located(source, overrides, error)
    return problems(cfg)


def _located(source: Source, overrides: list[str], error: Exception) -> list[str]:
    """Hydra stops at the first error; find what is wrong with each override by itself, then with what is left."""
    parsed, _ = _parsed(overrides)
    lines, groups, good = [], [], []
    for override in (o for o in parsed if source.options(o.key_or_group)):
        options = source.options(override.key_or_group)
        if override.value() in options:
            groups.append(str(override.input_line))
        else:
            takes = "one of " + ", ".join(options)
            lines.append(
                wrong_value(override.key_or_group, override.value(), takes) + _nearest(override.value(), options)
            )
    try:
        base = source.compose(groups)
    except (HydraException, OmegaConfBaseException) as alone:
        return [*lines, _first_line(alone)]
    takes_of = {name: takes for name, _, _, takes in keys(base)}
    for override in (o for o in parsed if not source.options(o.key_or_group)):
        line, key = str(override.input_line), override.key_or_group
        try:
            source.compose([*groups, line])
            good.append(line)
        except (HydraException, OmegaConfBaseException) as alone:
            if key in takes_of:
                lines.append(wrong_value(key, override.value(), takes_of[key].text))
            elif OmegaConf.select(base, key) is None:
                lines.append(_unknown(source, key, takes_of, groups))
            else:
                lines.append(f"{key}: {_first_line(alone)}")
    with suppress(HydraException, OmegaConfBaseException):
        lines += problems(source.compose([*groups, *good]))
    return lines or [_first_line(error)]


def _unknown(source: Source, key: str, known: Iterable[str], groups: list[str]) -> str:
    """A key that there is not: under which choice there would be one, or the nearest that there is."""
    group, _, leaf = key.lstrip("+~").partition(".")
    for option in source.options(group):
        if leaf and any(f"{group}.{leaf}" == name for name, *_ in keys(source.compose([*groups, f"{group}={option}"]))):
            return f"{key}: a key of {group}={option}, and another {group} is chosen"
    return unknown_key(key, [*known, *GROUPS])


def _nearest(got: object, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(got), list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def help_text(conf: Path) -> str:
    """What can be typed: commands, groups, and every key of the default config with what it takes."""
    register()
    source = Source(conf)
    with source.opened():
        cfg = source.compose([])
        lines = [
            "Train recurrent networks on sequences too long to backpropagate through at once; search what trains them.",
            "",
            "  python train.py                                            one run",
            "  python train.py optimizer=rmsprop clip=0.5 epochs=20       one run, keys changed",
            "  python train.py -m optimizer=adam,rmsprop clip=0.5,1,2     a run for each combination",
            "",
            "Groups (GROUP=OPTION):",
            *(f"  {group:<24} {', '.join(source.options(group))}" for group in GROUPS),
            "",
            "Keys (KEY=VALUE), with their defaults:",
            *(f"  {name + '=' + _shown(node[leaf]):<44} {takes.text}" for name, node, leaf, takes in keys(cfg)),
        ]
        here = {name for name, *_ in keys(cfg)}
    for group, schemas in GROUPS.items():
        for option, schema in schemas.items():  # read, not composed: that takes a second for all of them
            values = cast(DictConfig, OmegaConf.load(conf / group / f"{option}.yaml"))
            for name, _, leaf, takes in keys(cast(DictConfig, OmegaConf.structured(schema)), f"{group}."):
                if name not in here:
                    here.add(name)
                    value = "" if OmegaConf.is_missing(values, leaf) else _shown(values[leaf])
                    lines.append(f"  {name + '=' + value:<44} {takes.text}  [{group}={option}]")
    return "\n".join([*lines, "", "Hydra's own flags: python train.py --hydra-help"])


def _shown(value: object) -> str:
    return "null" if value is None else str(value).replace(" ", "")
