"""Trying a model that nobody has tested, before a run begins with it: whether its network can be trained."""

import ast
import copy
import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from tbptt.models.build import build_network
from tbptt.models.options import ModelConfig
from tbptt.models.protocol import Network
from tbptt.models.state import State, difference
from tbptt.options.own import said_of

ALL_FIELDS = {"__dict__", "__reduce_ex__"}  # reading one of these, as vars() and copy() do, reads every field


def try_out(model: ModelConfig, inputs: int, outputs: int) -> Network:
    """Build a model's network, compute two short chunks with it, and return it.

    Do not train this network, as the chunks may have changed its buffers. PyTorch's random state does not change.

    Raises:
        ValueError: the network cannot be trained, or nothing reads one of the option's keys. The message is a line that
            names the option.
    """
    watched, read = _watched(model)
    with torch.random.fork_rng(devices=[]):
        network = build_network(watched, inputs, outputs)
        with said_of(type(model), f"model={model.name}: forward"):
            problem = _misfit(network, inputs, outputs)
    if problem:
        raise ValueError(f"model={model.name}: {problem}")
    names = {f.name for f in fields(model)} - {"name"}
    if not read & ALL_FIELDS and (unread := sorted(names - read - set(_mentioned(type(model))))):
        raise ValueError(f"model={model.name}: nothing reads its key {unread[0]}, which would change nothing")
    return network


def _misfit(network: Network, inputs: int, outputs: int) -> str | None:
    """What is wrong with a network, found with two chunks of two sequences in training mode; None if nothing is. Errors
    of the network pass through."""
    state = network.zero_state(2)
    if problem := _form_problem(state, state):
        return problem
    for steps in (3, 2):
        answer = network(torch.zeros(2, steps, inputs), state)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            return f"its forward gives a {type(answer).__name__}; takes (y, state)"
        y, after = answer
        if not isinstance(y, Tensor) or tuple(y.shape) != (2, steps, outputs):
            got = tuple(y.shape) if isinstance(y, Tensor) else f"a {type(y).__name__}"
            return f"its forward gives {got} for 2 sequences of {steps} steps; takes (2, {steps}, {outputs})"
        if not y.requires_grad:
            return "its output depends on nothing that is trained"
        if problem := _form_problem(state, after):
            return problem
        state = after
    return _not_kept(network)


def _form_problem(before: State, after: State) -> str | None:
    try:
        return difference(before, after)
    except TypeError as error:
        return f"its {error}"


def _not_kept(network: Network) -> str | None:
    """The first part of a network that a checkpoint cannot keep; None if it can keep all."""
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_complex():
            return f"its {name} is no dense tensor of real numbers; a checkpoint keeps those only"
    for module in network.modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Generator):
                return f"its {name} is a random generator of its own, which a resumed run does not get back"
    return None


def _watched(model: ModelConfig) -> tuple[ModelConfig, set[str]]:
    """A copy of an option, and a set that collects the names of the attributes that are read from this copy."""
    kind: Any = type(model)
    read: set[str] = set()

    class Watched(kind):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    Watched.__name__, Watched.__qualname__ = kind.__name__, kind.__qualname__
    watched = copy.copy(model)
    watched.__class__ = Watched
    read.clear()
    return watched, read


def _mentioned(kind: type) -> Iterator[str]:
    """All attribute names in the files of a class and of its base classes. The code may read one of them later, or only
    under a condition, so that :func:`_watched` misses it."""
    for base in kind.__mro__:
        module = sys.modules.get(base.__module__)
        if base is ModelConfig or module is None:
            break
        try:
            tree = ast.parse(inspect.getsource(module))
        except (OSError, TypeError, SyntaxError):
            continue
        yield from (node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))
