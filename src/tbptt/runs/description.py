"""The description of a run or a study in MLflow, in Markdown: its notes, its command, its result.

Nothing that a user typed becomes Markdown or HTML: texts are escaped, and commands are code blocks. A description that
somebody edited in MLflow's UI stays as it is: with what was written last, a digest of it is kept (:data:`DIGEST`).
"""

import hashlib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from tbptt.evaluation import words
from tbptt.evaluation.results import Judged
from tbptt.options.values import shortened
from tbptt.system.command import command
from tbptt.system.secrets import hide
from tbptt.system.typed_command import in_a_shell

if TYPE_CHECKING:
    from tbptt.runs.tracking import Run

DIGEST = "description.sha256"
LONGEST = 8000  # the most letters that MLflow takes
LONGEST_NOTES, LONGEST_CODE = 4500, 1500
RESULT, ON_TEST = "Result", "On test"  # titles of sections that change
# Words of a command that do not change what a run computes, or that a single run does not take.
_NOT_OF_A_RUN = ("study", "sweep", "cluster", "hydra", "progress", "resume", "notes", "tags")


# --- Markdown -------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """A text that Markdown and HTML show as it is, without a line break at its ends."""
    text = "".join(letter for letter in hide(text) if letter.isprintable() or letter == "\n")
    text = re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", text.strip())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    lines = (re.sub(r"^([-+=]|\d+(?=[.)]))", _as_entity, line.strip()) for line in text.split("\n"))
    return "  \n".join(lines)


def _as_entity(match: re.Match[str]) -> str:
    """What would begin a list, or make a heading of the line above."""
    first, rest = match[0][0], match[0][1:]
    return f"&#{ord(first)};{rest}"


def code(text: str) -> str:
    """A code block. It is indented, so nothing in the text ends it."""
    return "\n".join(f"    {line}" for line in shortened(text, LONGEST_CODE).splitlines())


def section(title: str, *parts: str) -> str:
    return "\n\n".join([f"### {title}", *filter(None, parts)])


def bullets(lines: Sequence[str]) -> str:
    """A list of texts that are escaped already."""
    return "\n".join(f"- {line}" for line in lines)


def without(note: str, title: str) -> str:
    """A description without the section of this title. No line of a user's begins with ``###``."""
    left = re.sub(rf"(^|\n\n)### {re.escape(title)}\n\n.*?(?=\n\n### |\Z)", "", note, flags=re.DOTALL)
    return left.lstrip("\n")


# --- writing it -----------------------------------------------------------------------------------------------------


def tags_for(note: str, before: Mapping[str, str]) -> dict[str, str]:
    """The tags that make a text a run's description; none if somebody else wrote the one that it has.

    Args:
        before: the tags that it has.
    """
    if not _is_ours(before):
        return {}
    note = shortened(note, LONGEST)
    return {MLFLOW_RUN_NOTE: note, DIGEST: _digest(note)}


def added(before: Mapping[str, str], title: str, *parts: str) -> dict[str, str]:
    """The tags that give a run's description a section after the notes, in place of the one of this title; no tags if
    the run has no description, or somebody else wrote it."""
    note = before.get(MLFLOW_RUN_NOTE)
    if not note:
        return {}
    note = without(note, title)
    first = re.search(r"(^|\n\n)### |\Z", note)
    at = first.start() if first else len(note)
    parts_of_it = [note[:at], section(title, *parts), note[at:].lstrip("\n")]
    return tags_for("\n\n".join(filter(None, parts_of_it)), before)


def unfinished(before: Mapping[str, str]) -> dict[str, str]:
    """The tags with which a run that goes on has no result any more."""
    note = before.get(MLFLOW_RUN_NOTE, "")
    left = without(without(note, RESULT), ON_TEST)
    return tags_for(left, before) if left != note else {}


def _is_ours(tags: Mapping[str, str]) -> bool:
    note, digest = tags.get(MLFLOW_RUN_NOTE, ""), tags.get(DIGEST, "")
    return digest == _digest(note) if digest else not note


def _digest(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()


# --- what it says of a run ------------------------------------------------------------------------------------------


def of_notes(notes: str | None) -> str:
    """The user's text, as long as there is room for more."""
    return shortened(escaped(notes or ""), LONGEST_NOTES)


def of_run(run: "Run", notes: str | None, typed: Sequence[str] | None) -> str:
    """The description of a run that begins.

    Args:
        notes: the user's text.
        typed: the overrides that make its config of the shipped one; None if another file than the shipped one, or more
            than overrides, had a part in it.
    """
    return "\n\n".join(filter(None, [of_notes(notes), section("This run again", code(again(run, typed)))]))


def again(run: "Run", typed: Sequence[str] | None) -> str:
    """The command that trains exactly this run again."""
    if typed is not None and not any(word.split("=")[0].lstrip("+") == "sweep" for word in typed):
        kept = [word.lstrip("+") for word in typed if not _is_left_out(word)]
        if len(said := in_a_shell(kept)) <= LONGEST_CODE and "…@" not in said:
            return said
    uri = run.store.tracking.uri
    if run.is_local:
        server = "" if run.store.path else f" tracking.uri={shlex.quote(uri)}"
        return hide(f"{command('train')} --config-dir {shlex.quote(str(run.folder))} --config-name config{server}")
    fetch = f"mlflow artifacts download --run-id {run.id} --artifact-path config.yaml --dst-path {run.id}"
    return hide(
        f"MLFLOW_TRACKING_URI={shlex.quote(uri)} {fetch}\n"
        f"{command('train')} --config-dir {run.id} --config-name config tracking.uri={shlex.quote(uri)}"
    )


def _is_left_out(word: str) -> bool:
    key, _, value = word.partition("=")
    return re.split("[./]", key.lstrip("+"))[0] in _NOT_OF_A_RUN or value.startswith("${oc.env:MLFLOW_")


def result(best: Mapping[str, Any] | None, reason: str | None, judged: Judged | None) -> list[str]:
    """The result of a run, as escaped lines.

    Args:
        best: a checkpoint's entry of the best epoch (:class:`tbptt.runs.best.Best`); None if there is no checkpoint.
        reason: its stop reason.
    """
    lines = []
    if best is None:
        lines.append("no epoch has ended")
    elif best["epoch"] is None:
        lines.append("no epoch is the best: the objective was never measured")
    else:
        pairs = zip(best["objectives"], best["values"], strict=False)
        values = ", ".join(f"**{value:.6g}** {escaped(name)}" for name, value in pairs if math.isfinite(value))
        lines.append(f"best epoch {best['epoch'] + 1}: {values}")
    lines.append(f"stopped: {escaped(reason or 'error')}")
    return [*lines, *(map(escaped, words.lines(judged)) if judged else ())]
