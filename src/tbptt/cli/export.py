"""``export.py``: a trained network in another form, for use where this package is not, or in MLflow's registry."""

import argparse
import os
import re
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tbptt.cli.ending import OF_STORES as KEYS
from tbptt.cli.ending import Arguments, keys_of, ran, stores_named
from tbptt.config.compose import CommandError
from tbptt.serving.source import Source, wrong_alias, wrong_name
from tbptt.system.command import command, install
from tbptt.system.runtime import say

ENDS = {"onnx": ".onnx", "torch": ".pt2", "pyfunc": "-pyfunc", "registry": ""}  # of what is written by default
EXTRA = ("onnx", "onnxscript", "onnxruntime")


def main(argv: Sequence[str], conf: Path) -> int:
    """Run ``python export.py WHAT --to FORM`` and return the exit status (:func:`tbptt.cli.ending.ran`)."""
    return ran(lambda: _export(argv, conf))


def _export(argv: Sequence[str], conf: Path) -> int:
    parser = _parser()
    if {"--help", "-h"} & set(argv):
        say(parser.format_help())
        return 0
    args = parser.parse_intermixed_args(list(argv))
    if args.what is None:
        parser.error("WHAT is missing")
    out = _checked(args)
    cfg = keys_of(args.keys, conf)
    source = _found(args, cfg)
    say(f"took {source.why or source.said}")
    if args.to == "registry":
        return _register(source, args, cfg)
    return _package(source, out) if args.to == "pyfunc" else _write(source, args.to, out)


def _parser() -> Arguments:
    parser = Arguments(command("export"), "Write a trained network for use elsewhere, checked against the network.")
    add = parser.add_argument
    add(
        "what",
        metavar="WHAT",
        nargs="?",
        help="a run's id, a study, a checkpoint (FILE.ckpt), a registered model (models:/…)",
    )
    add("keys", metavar="KEY=VALUE", nargs="*", help=f"{' and '.join(KEYS)}, if they are not the defaults")
    add("--to", required=True, choices=ENDS, help="onnx: for ONNX runtimes; torch: a program of torch.export; pyfunc: "
        "a folder for MLflow; registry: a version of a registered model of MLflow")  # fmt: skip
    add("--out", metavar="PATH", help="where it is written; default: a name after WHAT, in the working folder")
    add("--force", action="store_true", help="replace what is at PATH")
    add("--name", help="of the registered model (--to registry)")
    add("--alias", help="that the version gets (--to registry); default: champion")
    add("--which", choices=["best", "last"], default="best", help="epoch of a run; default: best")
    return parser


def _checked(args: argparse.Namespace) -> Path:
    """Where it will be written. Raises CommandError with a line for each mistake, before anything is loaded."""
    takes = " and ".join(f"{key}=…" for key in KEYS)
    wrong = [f"{word}: unknown here; takes {takes}" for word in args.keys if _key(word) not in KEYS]
    if args.to == "registry":
        if not args.name:
            wrong.append("--name: is missing; takes the name of the registered model")
        elif problem := wrong_name(args.name):
            wrong.append(f"--name: {problem}")
        if args.alias is not None and (problem := wrong_alias(args.alias)):
            wrong.append(f"--alias: {problem}")
        wrong += [f"--{name}: registry writes no file" for name in ("out", "force") if getattr(args, name)]
    else:
        wrong += [f"--{name}: is for --to registry only" for name in ("name", "alias") if getattr(args, name)]
    out = Path(args.out or _name(args.what) + ENDS[args.to])
    if args.to != "registry":
        wrong += _problem(out, args)
    if args.to == "onnx" and (lacks := [name for name in EXTRA if find_spec(name) is None]):
        wrong.append(f"--to onnx needs {', '.join(lacks)}: {install(' '.join(lacks), 'export')}")
    if wrong:
        raise CommandError(wrong)
    return out


def _key(word: str) -> str:
    return word.partition("=")[0] if "=" in word else ""


def _name(what: str) -> str:
    """A file's name, without its end, after what a user calls a network."""
    if what.startswith("models:/"):
        return re.split(r"[/@]", what.removeprefix("models:/"))[0] or "model"
    return Path(what).name.removesuffix(".ckpt") or "network"


def _problem(out: Path, args: argparse.Namespace) -> list[str]:
    """What is wrong with where it is to be written."""
    folder = args.to == "pyfunc"
    if not out.parent.is_dir():
        return [f"--out: got {out}; there is no folder {out.parent}"]
    if not os.path.lexists(out):
        return []
    if not args.force:
        return [f"--out: {out} is there already; --force replaces it, --out PATH writes elsewhere"]
    replaceable = (out / "MLmodel").is_file() and not out.is_symlink() if folder else not out.is_dir()
    return [] if replaceable else [f"--out: {out} is no {'model of MLflow' if folder else 'file'}, and is not replaced"]


def _found(args: argparse.Namespace, cfg: DictConfig) -> Source:
    from tbptt.serving.source import find

    try:
        tracking_uri, storage = stores_named(cfg, args.keys)
        return find(args.what, tracking_uri, args.which, storage)
    except ValueError as error:
        raise CommandError([str(error)]) from None


def _write(source: Source, to: str, out: Path) -> int:
    """Write a file and say how it is used."""
    from tbptt.serving.trained import trained

    exported: Any = import_module("tbptt.serving.exported")
    writer: Any = import_module(f"tbptt.serving.to_{to}")
    found = trained(source)
    written = writer.write(found, out)
    sizes = "any number of sequences and of steps"
    what = f"ONNX, opset {written.opset}" if written.opset else "a program of torch.export"
    say(f"wrote {out}: {what}, for {sizes}")
    say(f"largest difference from the network, on random chunks of several sizes: {written.difference:.1e}")
    by_name, features = to == "onnx", exported.input_size(found.config)
    if by_name:
        fed = ", ".join(['"x": x', *(f'"{part.name}": …' for part in writer.parts(found.network))])
        lines = (
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{out}")',
            f"y, *state = session.run(None, {{{fed}}})",
        )
        about = f'json.loads(session.get_modelmeta().custom_metadata_map["{writer.KEY}"])'
    else:
        lines = (
            "import torch",
            f'program = torch.export.load("{out}").module()',
            "y, state = program(x, state)",
        )
        loaded = f'torch.export.load("{out}", extra_files=extra)'
        about = f'extra = {{"{writer.KEY}": ""}}; {loaded}; json.loads(extra["{writer.KEY}"])'
    _say_use(
        *lines,
        after=f"x: (sequences, steps, {features}) float32\nthe first state: {exported.first_state(found, by_name)}\n"
        f"about, whose how_to says how x is made of prices and y read: {about}",
    )
    return 0


def _package(source: Source, out: Path) -> int:
    packaged: Any = import_module("tbptt.serving.packaged")
    packaged.write(source, out, replace=out.is_dir())
    say(f"wrote {out}: a model of MLflow (pyfunc)")
    _say_use("import mlflow", f'model = mlflow.pyfunc.load_model("{out}")', "found = model.predict(prices)")
    return 0


def _register(source: Source, args: argparse.Namespace, cfg: DictConfig) -> int:
    registry: Any = import_module("tbptt.serving.registry")
    alias = args.alias or "champion"
    version, is_new = registry.register(source, args.name, alias, cfg.tracking.uri)
    model = f"models:/{args.name}@{alias}"
    if is_new:
        say(f"registered {args.name}, version {version}, which is {model} now")
    else:
        say(f"it is version {version} of {args.name} already, which is {model} now; no other is made")
    _say_use("import tbptt", f'network, scaler, config = tbptt.load_run("{model}")')
    return 0


def _say_use(*lines: str, after: str = "") -> None:
    say("use it:\n" + "\n".join(f"    {line}" for line in lines) + (f"\n{after}" if after else ""))
