"""The command predict.py: a table, a picture and metrics of predictions, or an answer to each row of a stream."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tbptt.cli.ending import Arguments, as_mistakes, keys_of, ran, stores_named
from tbptt.config.compose import CommandError
from tbptt.system.command import command
from tbptt.system.runtime import say

if TYPE_CHECKING:
    from tbptt.serving.predict import Result

ABOUT = """Predict with a trained network: of a run, of a study's best trial, of a checkpoint or of a registered model.

KEY=VALUE: data.path=FILE, which is read as the run's file was (without it: the run's own data); other keys of data say
how it is read, where that differs from the run; device=cuda; tracking.uri and study.storage, if they are not the
defaults."""
WHAT = "RUN|STUDY|FILE.ckpt|models:/NAME@ALIAS"
OTHERS = ("device", "tracking.uri", "study.storage")
READING = (
    *("path", "reading", "delimiter", "decimal", "thousands", "encoding", "header", "names", "footer"),
    *("time", "time_format", "by", "gaps", "columns"),
)
OF_A_STREAM = ("delimiter", "decimal", "time", "time_format", "gaps")
SHOWN = 10  # rows


def arguments() -> Arguments:
    """The command's words besides KEY=VALUE."""
    found = Arguments(command("predict"), ABOUT)
    found.add_argument("what", nargs="?", metavar=WHAT)
    found.add_argument("words", nargs="*", metavar="KEY=VALUE")
    found.add_argument("--which", choices=("best", "last"), default="best", help="of a run's checkpoints; default best")
    found.add_argument(
        "--out", type=Path, metavar="FILE", help="write the table: .csv or .parquet; a file that is there needs --force"
    )
    found.add_argument("--force", action="store_true", help="replace the table that is at --out")
    found.add_argument("--picture", type=Path, metavar="FILE.png", help="draw prices, sides, predictions and truth")
    found.add_argument(
        "--last",
        type=int,
        metavar="N",
        help=f"show the last N rows of the table, of all series together (default {SHOWN}), draw N steps of each",
    )
    found.add_argument("--state", type=Path, metavar="FILE", help="go on from here, and keep how far it went")
    found.add_argument("--stream", action="store_true", help="answer each row of CSV on stdin by one on stdout")
    found.add_argument("--on-error", choices=("stop", "skip"), default="stop", help="at a wrong row of a stream")
    return found


def main(argv: Sequence[str], conf: Path) -> int:
    """Run ``python predict.py …`` and return the exit status (:func:`tbptt.cli.ending.ran`)."""
    return ran(lambda: _main(argv, conf))


@dataclass(frozen=True)
class Command:
    """What was typed, checked.

    Attributes:
        typed: the options.
        data: keys of ``data`` and their values.
        device: of the config.
        tracking_uri, storage: of the config, if the user named them.
    """

    typed: Namespace
    data: dict[str, Any]
    device: str
    tracking_uri: str | None
    storage: str | None


def _main(argv: Sequence[str], conf: Path) -> int:
    if {"-h", "--help"} & set(argv):
        say(arguments().format_help().rstrip())
        return 0
    command = _checked(arguments().parse_intermixed_args(list(argv)), conf)
    from tbptt.serving.source import find

    typed = command.typed
    with as_mistakes():
        source = find(typed.what, command.tracking_uri, typed.which, command.storage)
    out = sys.stderr if typed.stream else sys.stdout
    if source.why:
        say(source.why, out)
    if typed.stream:
        from tbptt.cli.streaming import answer_rows

        return answer_rows(source, command.data, typed.state, typed.on_error == "skip", command.device)
    from tbptt.serving.predict import predicted

    path = command.data.get("path")
    changes = {key: value for key, value in command.data.items() if key != "path"}
    with as_mistakes():
        result = predicted(source, path, changes, typed.state, command.device)
    _show(result, typed.last or SHOWN)
    _write(result, typed)
    result.keep()
    return 0


# --- what was typed -------------------------------------------------------------------------------------------------


def _checked(typed: Namespace, conf: Path) -> Command:
    """Raises CommandError with a line for each problem."""
    if typed.what is None or "=" in typed.what:
        raise CommandError([f"usage: {command('predict')} {WHAT} [KEY=VALUE …]; see --help"])
    wrong = [_no_key(word) for word in typed.words if "=" not in word]
    words = [word for word in typed.words if "=" in word]
    of_data = [word for word in words if word.startswith("data.")]
    others = [word for word in words if word not in of_data]
    for word in others:
        if (key := word.partition("=")[0]) not in OTHERS:
            wrong.append(f"{key}: nothing is trained here; takes {_keys()}, {', '.join(OTHERS)}")
    wrong += [*_wrong_files(typed), *_not_beside_a_stream(typed, of_data)]
    if typed.last is not None and typed.last < 1:
        wrong.append(f"--last: got {typed.last}; takes a whole number from 1")
    data, lines = _data_of(of_data)
    if wrong or lines:
        raise CommandError([*wrong, *lines])
    cfg = keys_of(others, conf)
    return Command(typed, data, "cuda" if cfg.device == "cuda" else "cpu", *stores_named(cfg, others))


def _keys() -> str:
    return f"keys that say how data are read (data.{', data.'.join(READING[:3])}, …)"


def _no_key(word: str) -> str:
    a_file = Path(word).suffix or Path(word).exists()
    return f"{word}: takes KEY=VALUE" + (f"; a file to predict on is data.path={word}" if a_file else "")


def _wrong_files(typed: Namespace) -> list[str]:
    wrong = []
    for option, path, ends in (("--out", typed.out, (".csv", ".parquet")), ("--picture", typed.picture, (".png",))):
        if path is not None and path.suffix.lower() not in ends:
            wrong.append(f"{option}: got {str(path)!r}; takes a file that ends in {' or '.join(ends)}")
    for option, path in (("--out", typed.out), ("--picture", typed.picture), ("--state", typed.state)):
        if path is None:
            continue
        if path.is_symlink() or path.is_dir():
            what = "a link" if path.is_symlink() else "a folder"
            wrong.append(f"{option}: {path} is {what}, and nothing is written there; takes another path")
        elif not path.parent.is_dir():
            wrong.append(f"{option}: there is no folder {path.parent}")
        elif option == "--out" and path.exists() and not typed.force:
            wrong.append(f"--out: {path} is there already; --force replaces it, another path keeps both")
    if typed.force and typed.out is None:
        wrong.append("--force: is about the table at --out; takes --out beside it")
    return wrong


def _not_beside_a_stream(typed: Namespace, words: list[str]) -> list[str]:
    if not typed.stream:
        return (
            [] if typed.on_error == "stop" else ["--on-error: is about the rows of a stream; takes --stream beside it"]
        )
    wrong = [
        f"{option}: has no effect with --stream, whose answers go to stdout"
        for option, value in (("--out", typed.out), ("--picture", typed.picture), ("--last", typed.last))
        if value is not None
    ]
    keys = [word.partition("=")[0] for word in words]
    takes = ", ".join(f"data.{key}" for key in OF_A_STREAM)
    return wrong + [
        f"{key}: has no effect with --stream, whose rows come from stdin; takes {takes}"
        for key in keys
        if key.removeprefix("data.") not in OF_A_STREAM
    ]


def _data_of(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The keys of ``data`` with their values, and a line for each that is wrong."""
    from dataclasses import fields

    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from tbptt.config.checks import unknown_key
    from tbptt.config.compose import parsed
    from tbptt.data.options import ArticleData, MarketData, PricesData
    from tbptt.options.takes import wrong_value

    takes = {field.name: field.metadata["takes"] for field in fields(PricesData) if field.name in READING}
    fixed = {field.name for option in (ArticleData, MarketData, PricesData) for field in fields(option)}
    overrides, wrong = parsed(words, may_sweep=False)
    schema, found = OmegaConf.structured(PricesData(name="prices", path="none")), {}
    for override in overrides:
        key = override.key_or_group.removeprefix("data.")
        if key not in takes:
            if key in fixed:
                wrong.append(f"data.{key}: the run fixes it, as nothing is trained here; takes {_keys()}")
            else:
                wrong.append(unknown_key(f"data.{key}", [f"data.{name}" for name in takes]))
            continue
        try:
            merged = OmegaConf.merge(schema, {key: override.value()})
            value: Any = getattr(OmegaConf.to_object(merged), key)
        except OmegaConfBaseException:
            wrong.append(wrong_value(f"data.{key}", override.value(), takes[key].text))
            continue
        if takes[key].test(value):
            found[key] = value
        else:
            wrong.append(wrong_value(f"data.{key}", value, takes[key].text))
    return found, wrong


# --- what is shown and written --------------------------------------------------------------------------------------


def _show(result: "Result", last: int) -> None:
    from tbptt.evaluation.data_words import read_lines, wrapped

    for line in read_lines(result.given.panel, result.given.source):
        say(line)
    for note in result.notes:
        for line in wrapped(note):
            say(line)
    say(_parts_line(result))
    if len(result.table):
        say(_short(result, last))
    for part, metrics in result.metrics.items():
        say(_metrics_line(part, metrics))
    if not result.metrics and len(result.table):
        say("metrics: none, as no row that the run was not trained on has a truth that is known yet")


def _parts_line(result: "Result") -> str:
    """How many steps there are of each part, and that those of training are no result."""
    said = {
        "train": "that it was trained on, which say nothing of how good it is",
        "val": "of its val part, by which its epoch was chosen",
        "test": "of its test part",
        "new": "that are new to it",
        "": "of which that is not known",
    }
    counts = result.table["part"].value_counts()
    listed = [f"{counts[part]:,} {words}" for part, words in said.items() if part in counts]
    if not listed and result.new:
        window = result.trained.window
        return f"steps: none, as data.window={window} asks for more than {window} prices of a series"
    return f"steps: {'; '.join(listed)}" if listed else "steps: none that is new"


def _short(result: "Result", last: int) -> str:
    """The last rows of the table, in a terminal's letters."""
    shown = result.table.iloc[-last:].drop(columns="part" if result.table["part"].nunique() < 2 else [])
    if "time" in shown and (shown["time"] == shown["time"].dt.normalize()).all():
        shown = shown.assign(time=shown["time"].dt.strftime("%Y-%m-%d"))
    text: str = shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.6g}", max_colwidth=24)
    return text


def _metrics_line(part: str, metrics: dict[str, float]) -> str:
    steps = int(metrics["steps"])
    found = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name != "steps" and isfinite(value))
    few = [name for name, value in metrics.items() if not isfinite(value)]
    more = f"; too few for {', '.join(few)}" if few else ""
    return f"{part or 'unknown'}: {found} ({steps:,} step{'' if steps == 1 else 's'} whose truth is known{more})"


def _write(result: "Result", typed: Namespace) -> None:
    from tbptt.system.files import refuse_link, replaced

    if (path := typed.out) is not None and not len(result.table) and path.exists():
        say(f"no new rows; {path} stays as it is")
    elif path is not None:
        refuse_link(path)
        with replaced(path) as beside:
            if path.suffix.lower() == ".csv":
                result.table.to_csv(beside, index=False)
            else:
                result.table.to_parquet(beside, index=False)
        say(f"wrote {path}: {len(result.table):,} rows")
    if typed.picture is not None and not len(result.table):
        say(f"{typed.picture}: not drawn, as there is no step")
    elif typed.picture is not None:
        from tbptt.serving.picture import draw

        task = result.trained.task
        title = f"{result.trained.source.said} on {result.given.source}"
        unit = "price units" if task.name in ("q_values", "forecast") else "units of its target"
        left = draw(result.table, task.output_names, unit, title, typed.picture, typed.last)
        say(f"wrote {typed.picture}" + (f", without {', '.join(left)}" if left else ""))
