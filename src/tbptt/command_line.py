"""What was typed, checked: everything is composed here first, so that a mistake costs nothing.

Hydra alone would exit with 1 and leave files behind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from tbptt.checks import keys
from tbptt.compose import CommandError, Source, composed, parsed
from tbptt.config import GROUPS, OF_A_RUN, register
from tbptt.devices import from_another_process
from tbptt.environment import words_of_environment
from tbptt.plan import make_plan
from tbptt.resume import resume_problems
from tbptt.stores import without_password


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
    for flag, given in (("--config-path", args.config_path), ("--experimental-rerun", args.experimental_rerun)):
        if given:
            raise CommandError([f"{flag}: is not taken; takes --config-dir FOLDER, whose files are data"])
    if args.hydra_help or args.shell_completion or (args.info and not args.config_dir):
        return list(argv)
    overrides, lines = parsed(args.overrides)
    more = words_of_environment([o.get_key_element() for o in overrides])
    overrides += parsed(more)[0]
    argv = [*argv, *more]
    chosen = {o.get_key_element(): o for o in overrides if o.get_key_element() in OF_A_RUN}
    source, argv = _find_source(list(argv), args.config_dir, args.config_name, conf, chosen)
    if any(o.get_key_element().lstrip("+") == "hydra.searchpath" for o in overrides):
        source = replace(source, shipped=conf)  # files from there are looked at like those of --config-dir
    with source.opened():
        if args.multirun:
            if lines:
                raise CommandError(lines)
            with from_another_process():  # the workers train, not this one
                make_plan(source, overrides)
            return argv
        sweeps = [o for o in overrides if o.is_sweep_override()]
        for o in sweeps:
            shown = without_password(o.get_value_string())
            lines.append(f"{o.key_or_group}: got {shown}, several values; takes one, or add -m")
        cfg, wrong = composed(source, [str(o.input_line) for o in overrides if o not in sweeps])
        lines += wrong
        if cfg is not None and cfg.resume:
            lines += resume_problems(cfg, [o.get_key_element() for o in overrides], bool(wrong))
        if cfg is not None and cfg.space:
            lines.append("sweep: searches several values; add -m")
    if lines:
        raise CommandError(lines)
    return argv


def _find_source(
    argv: list[str], config_dir: str | None, name: str | None, conf: Path, chosen: Mapping[str, Override]
) -> tuple[Source, list[str]]:
    """A config in ``--config-dir`` comes before the shipped one of the same name; Hydra has it the other way round.

    Where another option of a group is chosen on top of it, what it says of that group is left out.
    """
    if not config_dir:
        return Source(conf, name or "config"), argv
    folder = Path(config_dir).absolute()
    if not folder.is_dir():
        raise CommandError([f"--config-dir: got {config_dir!r}; takes a folder that exists"])
    name = (name or "config").removesuffix(".yaml")
    file = folder / f"{name}.yaml"
    if not file.is_file():
        return Source(conf, name, folder, shipped=conf), argv
    try:
        own = OmegaConf.load(file)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CommandError([f"--config-name: {file} cannot be read: {' '.join(str(error).split())}"]) from None
    if OmegaConf.select(own, "hydra.searchpath") is not None:
        raise CommandError(["hydra.searchpath: set by a file in --config-dir; takes one folder, --config-dir"])
    others = [
        group
        for group, o in chosen.items()
        if o.is_sweep_override() or OmegaConf.select(own, f"{group}.name") != o.value()
    ]
    source = Source(folder, "~".join([name, *(group for group in others if group in own)]), conf, shipped=conf)
    source.register()
    rest = _without(argv, ("--config-dir", "-cd"), ("--config-name", "-cn"))
    return source, [f"--config-path={folder}", f"--config-dir={conf}", f"--config-name={source.name}", *rest]


def _without(argv: list[str], *flags: tuple[str, str]) -> list[str]:
    """Arguments less some flags and their values."""
    kept, words = [], iter(argv)
    for word in words:
        if any(word in names for names in flags):
            next(words, None)
        elif not any(word.startswith(f"{long}=") for long, _ in flags):
            kept.append(word)
    return kept


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
            *(f"  {group:<24} {', '.join(source.options(group))}" for group in (*GROUPS, "figure", "cluster", "sweep")),
            "",
            "Keys (KEY=VALUE), with their defaults:",
            *(f"  {name + '=' + _shown(node[leaf]):<44} {takes.text}" for name, node, leaf, takes in keys(cfg)),
        ]
        here = {name for name, *_ in keys(cfg)}
    for group, schemas in GROUPS.items():
        for option, schema in schemas.items():  # read, not composed: that takes a second for all of them
            if not (conf / group / f"{option}.yaml").exists():
                continue  # of one's own, and not finished yet
            values = cast(DictConfig, OmegaConf.load(conf / group / f"{option}.yaml"))
            for name, _, leaf, takes in keys(cast(DictConfig, OmegaConf.structured(schema)), f"{group}."):
                if name not in here:
                    here.add(name)
                    value = "" if OmegaConf.is_missing(values, leaf) else _shown(values[leaf])
                    lines.append(f"  {name + '=' + value:<44} {takes.text}  [{group}={option}]")
    return "\n".join([*lines, "", "Hydra's own flags: python train.py --hydra-help"])


def _shown(value: object) -> str:
    return "null" if value is None else str(value).replace(" ", "")
