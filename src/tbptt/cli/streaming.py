"""predict.py --stream: rows from stdin, answers to stdout, what is wrong to stderr."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tbptt.cli.ending import FAILED, as_mistakes
from tbptt.system import collecting
from tbptt.system.runtime import StopSignals, keep_freed_memory, say

if TYPE_CHECKING:
    from tbptt.serving.source import Source
    from tbptt.serving.stream import Reader, Stream


def answer_rows(source: "Source", data: dict[str, Any], state: Path | None, skip: bool, device: str) -> int:
    """Answer rows until they end, nobody reads the answers any more, or a signal comes; what was answered is written,
    and the state kept. Returns the exit status.

    Args:
        data: typed keys of ``data``, which count before those of the run.
        state: a file to go on from, and to keep the state in.
        skip: whether a wrong row gets an empty answer and the stream goes on.
    """
    import torch

    from tbptt.data.options import TableData
    from tbptt.serving import state_file
    from tbptt.serving.next_file import data_of
    from tbptt.serving.predictor import Predictor
    from tbptt.serving.rows_of_text import Form
    from tbptt.serving.stream import Reader, Stream, columns_of
    from tbptt.serving.trained import trained

    torch.set_num_threads(1)  # a second one slows steps as small as these
    keep_freed_memory()
    collecting.as_usual()
    with as_mistakes():
        network, own = trained(source), data_of(source)
        said = {key: getattr(own, key, None) for key in ("delimiter", "decimal", "time", "time_format", "gaps")} | data
        form = Form.of(said["delimiter"], said["decimal"], said["time_format"])
    time = said["time"] if isinstance(said["time"], str) and said["time"] != "none" else None
    with StopSignals() as signals:
        reader = Reader(0, lambda: signals.signum is not None)
        first = reader.first()
        if not first:
            return _status(signals)
        with as_mistakes():
            columns, is_header = columns_of(network, first, form, time)
            predictor = Predictor(network, len(columns.names), device)
            until = state_file.read(state, predictor, columns.names)
            until.refuse_other_rows(columns.time is not None, "the stream")
        if is_header:
            reader.skip(first)
        if columns.unused:
            say(f"not used: {', '.join(columns.unused)}", sys.stderr)
        carry = isinstance(own, TableData) and said["gaps"] == "carry"
        stream = Stream(predictor, columns, form, until, skip, lambda line: say(line, sys.stderr), carry)
        try:
            stops = _answer_all(reader, stream)
        finally:
            if state is not None:
                state_file.write(state, predictor, until)
        return FAILED if stops else _status(signals)


def _answer_all(reader: "Reader", stream: "Stream") -> bool:
    """Returns whether a wrong row ended it."""
    from tbptt.serving.stream import write

    if not write(1, stream.header()):
        return False
    while block := reader.lines():
        answers, stops = stream.answers(block)
        if not write(1, answers) or stops:
            return stops
    return False


def _status(signals: StopSignals) -> int:
    return 0 if signals.signum is None else 128 + signals.signum
