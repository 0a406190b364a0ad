"""A trained network as an ONNX file, which is run and compared with the network before it has its name.

Its inputs are ``x`` (batch, steps, features) and the tensors of the state; its outputs ``y`` (batch, steps, outputs)
and the tensors of the state after the chunk. Any batch and any number of steps.
"""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tbptt.compat import onnx_graphs_unprinted, recurrent_layers_of_any_length
from tbptt.serving import exported
from tbptt.serving.exported import Flat, Part, Written, about, example, first_reason, largest_difference, parts, quiet
from tbptt.serving.trained import Trained
from tbptt.system.files import replaced

OPSET = 20
KEY = "tbptt"  # of the entry in the file's metadata that holds what docs/export.md describes


def write(trained: Trained, out: Path) -> Written:
    """Write a network as ONNX.

    Raises:
        ValueError: the network cannot be written so, or the file would give other numbers; ``out`` is then as it was.
            The message is one line.
    """
    reasons = []
    with replaced(out) as beside:
        for write_down in (_followed, _exported):
            try:
                with quiet(), onnx_graphs_unprinted(), torch.no_grad():
                    content = _described(write_down(trained), trained)
                    beside.write_bytes(content)
                    return Written(out, largest_difference(_run_of(beside, trained), trained), OPSET)
            except OSError:
                raise
            except Exception as error:
                reasons.append(exported.reason(error))
        raise ValueError(f"{trained.source.said} cannot be written as ONNX: {first_reason(reasons)}")


def _followed(trained: Trained) -> bytes:
    """By following the network through one chunk. PyTorch's own LSTM and GRU become ONNX's, which are fast; a loop in
    Python becomes that chunk's steps, which the comparison with other lengths finds."""
    x, state = example(trained)
    written: Any = io.BytesIO()
    torch.onnx.export(
        Flat(trained.network).eval(),
        (x, *state),
        written,
        dynamo=False,
        opset_version=OPSET,
        dynamic_axes={name: dict(axes) for name, axes in _axes(parts(trained.network))},
        **_names(trained),
    )
    content: bytes = written.getvalue()
    return content


def _exported(trained: Trained) -> bytes:
    """By torch.export, which knows more operations, and loops of PyTorch's own."""
    x, state = example(trained)
    some = torch.export.Dim.DYNAMIC
    shapes = ({0: some, 1: some}, tuple({part.dim: some} for part in parts(trained.network)))
    with recurrent_layers_of_any_length():
        program = torch.export.export(Flat(trained.network).eval(), (x, *state), dynamic_shapes=shapes)
    found: Any = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False, **_names(trained))
    content: bytes = found.model_proto.SerializeToString()
    return content


def _names(trained: Trained) -> dict[str, Any]:
    state = parts(trained.network)
    return {"input_names": ["x", *(p.name for p in state)], "output_names": ["y", *(p.next for p in state)]}


def _axes(state: list[Part]) -> Iterator[tuple[str, dict[int, str]]]:
    """For each input and output: the names of its dimensions that may have any size."""
    yield from (("x", {0: "batch", 1: "steps"}), ("y", {0: "batch", 1: "steps"}))
    for part in state:
        for name in (part.name, part.next):
            yield name, {} if part.dim is None else {part.dim: "batch"}


def _described(content: bytes, trained: Trained) -> bytes:
    """The file with what its user has to know."""
    import onnx

    model = onnx.load_from_string(content)
    axes = dict(_axes(parts(trained.network)))
    for value in (*model.graph.input, *model.graph.output):
        for i, name in axes[value.name].items():
            value.type.tensor_type.shape.dim[i].dim_param = name
    del model.graph.value_info[:]  # sizes within, under names that torch made up
    known = {**about(trained), "opset": OPSET}
    onnx.helper.set_model_props(model, {KEY: json.dumps(known, allow_nan=False)})
    model.producer_name, model.producer_version = "tbptt", known["tbptt"]
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _run_of(path: Path, trained: Trained) -> Callable[..., Any]:
    """The file, as :func:`tbptt.serving.exported.largest_difference` runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # only what ends the process; else it writes to stderr itself
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    state = parts(trained.network)
    taken = {each.name for each in session.get_inputs()}

    def run(x: torch.Tensor, before: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        given = {"x": x, **{part.name: leaf for part, leaf in zip(state, before, strict=True)}}
        fed = {name: value.numpy() for name, value in given.items() if name in taken}
        y, *after = map(torch.from_numpy, session.run(["y", *(part.next for part in state)], fed))
        return y, after

    return run
