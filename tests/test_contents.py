"""A checkpoint that somebody sent costs no more than its size, and one line: whatever is in it."""

import math
import zipfile
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tbptt import load_run
from tbptt.config.schema import typed
from tbptt.runs import checkpoint
from tbptt.runs.contents import DEEPEST, OF_A_RUN


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run keeps, made by hand: of no dense and one LSTM layer of 2 cells that sees one price."""
    epoch = dict.fromkeys(("number", "time", "stage", "first_update"), 0) | {"chunks": 1, "metrics": {"val/loss": 0.5}}
    lists = {"losses": [0.5], "norms": [1.0], "clipped": [0.0]}
    return {
        "config": {
            "data": {"name": "article", "window": 1, "fee": 0.0, "fee_unit": "price"},
            "model": {"name": "article", "dense": [], "hidden": [2]},
        },
        "scaler": {"input_mean": torch.zeros(1), "input_std": torch.ones(1), "target_mean": torch.zeros(1, 2),
                   "target_std": torch.ones(1), "fee": None},
        "best": {"objectives": ["val/loss"], "epoch": 0, "values": (0.5,)},
        "stop_reason": None,
        "record": {**epoch, **lists, "diverged_at": None, "stage_ended": False, "last": False},
        "epoch": 0, "updates": 1, "train_seconds": 0.1,
        "model": {"recurrent.0.weight_ih_l0": torch.zeros(8, 1), "recurrent.0.weight_hh_l0": torch.zeros(8, 2),
                  "recurrent.0.bias_ih_l0": torch.zeros(8), "recurrent.0.bias_hh_l0": torch.zeros(8),
                  "head.weight": torch.zeros(2, 2), "head.bias": torch.zeros(2)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []},
        "schedule": {"stages": [1]},
        "random": {"cpu": torch.get_rng_state()},
    }  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sent.ckpt"


def refused(path: Path) -> str:
    """What is said of it; the same by load_run."""
    lines = []
    for read in (partial(checkpoint.load, path, OF_A_RUN), partial(load_run, path)):
        with pytest.raises(ValueError, match=path.name) as caught:
            read()
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0]
    assert len(lines[0]) < 300 + len(str(path))
    return lines[0].removeprefix(str(path))


def test_a_whole_one_is_read(path: Path, good: dict[str, Any]) -> None:
    checkpoint.save(path, good)
    assert checkpoint.load(path, OF_A_RUN)["best"] == good["best"]
    network, scaler, _ = load_run(path)
    assert network.hidden == [2]
    assert torch.equal(scaler.input_std, torch.ones(1))


def test_what_callbacks_and_optimizers_of_tensors_keep_is_read(path: Path, good: dict[str, Any]) -> None:
    state = {n: {"m": torch.zeros(2, n + 1), "history": [torch.zeros(1)]} for n in range(3)}
    callbacks = {"Mine": {"seen": [1, 2.5, None], "average": {"head.bias": torch.ones(2)}, 3: True}}
    checkpoint.save(path, {**good, "optimizer": {"state": state, "param_groups": []}, "callbacks": callbacks})
    content = checkpoint.load(path, OF_A_RUN)
    assert content["callbacks"]["Mine"]["seen"] == [1, 2.5, None]
    assert content["optimizer"]["state"][2]["m"].shape == (2, 3)


def test_what_was_read_is_memory_of_its_own(path: Path, good: dict[str, Any]) -> None:
    checkpoint.save(path, good)
    content = checkpoint.load(path, OF_A_RUN)
    path.write_bytes(bytes(path.stat().st_size))  # a file that is mapped would change
    assert content["scaler"]["input_std"].item() == 1
    assert torch.equal(content["random"]["cpu"], good["random"]["cpu"])


def laughs(levels: int) -> list[Any]:
    """A list with 2^levels things in it, which takes a few bytes a level."""
    found: list[Any] = [0]
    for _ in range(levels):
        found = [found, found]
    return found


def nested(levels: int) -> tuple[Any, ...]:
    found: tuple[Any, ...] = ()
    for _ in range(levels):
        found = (found,)
    return found


class Asks:
    """What torch would call as it reads: it asks for three gigabytes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (3 * 10**9,)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (torch.zeros(1).expand(10**6, 10**6), "it repeats itself to more than its size"),
        (laughs(40), "it repeats itself to more than its size"),
        ([torch.zeros(100_000)] * 1000, "it repeats itself to more than its size"),
        (nested(DEEPEST + 1), f"it is nested more than {DEEPEST} deep"),
        (Asks(), "it would have '__builtin__ bytearray' called"),
        (torch.empty(10**12, device="meta"), "it would have 'torch"),
        (torch.zeros(2, dtype=torch.complex64), "it would have 'torch ComplexFloatStorage' called"),
        (10**30, "it holds a number of more than 64 bits"),
    ],
    ids=["expanded", "repeated", "shared", "nested", "asks for memory", "meta", "complex", "long"],
)
def test_what_would_grow_is_refused(path: Path, good: dict[str, Any], content: Any, says: str) -> None:
    torch.save({"format": 1, "sha256": "", **good, "more": content}, path)
    assert says in refused(path)


def test_an_archive_that_unpacks_to_more_is_not_unpacked(path: Path, good: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"format": 1, **good}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in plain.namelist():
            bomb.writestr(name, bytes(10**7) if name.endswith("data/0") else plain.read(name))
    assert "bytes, and would unpack to 10," in refused(path)


def test_a_tensor_that_says_to_be_larger_than_the_file_is_not_read(path: Path, tmp_path: Path) -> None:
    torch.save({"format": 1, "model": torch.zeros(1000)}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as plain, zipfile.ZipFile(path, "w") as larger:
        for name in plain.namelist():
            larger.writestr(name, plain.read(name).replace(b"M\xe8\x03", b"M\xff\xff"))  # 1000, 65535
    assert "is damaged" in refused(path)


def test_one_larger_than_the_memory_is_not_read(
    path: Path, good: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(path, good)
    monkeypatch.setattr("tbptt.system.memory.free_memory", lambda: 1000)
    assert "is too large: it needs about" in refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", None), ("config", {1: 2}), ("scaler", {}), ("scaler", {"input_mean": 1}), ("best", None),
        ("best", {"objectives": [[]], "epoch": None, "values": []}),
        ("best", {"objectives": [], "epoch": None, "values": []}),
        ("stop_reason", 3), ("record", {}), ("epoch", -1), ("epoch", True), ("epoch", "1"), ("updates", math.nan),
        ("train_seconds", math.nan), ("train_seconds", -1.0), ("model", None), ("model", {"head.bias": [0.0]}),
        ("optimizer", []), ("optimizer", {"state": {"x": {}}}), ("schedule", {"stages": []}),
        ("schedule", {"stages": [1], "stage": 1}), ("schedule", {"stages": [-1]}),
        ("schedule", {"stages": [1], "x": 1}),
        ("random", {}), ("random", {"cpu": torch.zeros(3, dtype=torch.uint8)}), ("records", [{}]), ("records", 3),
        ("optimizer", {"state": {-1: {}}}), ("callbacks", [1]), ("callbacks", {1: {}}),
    ],
)  # fmt: skip
def test_something_else_in_place_of_a_thing_is_told(path: Path, good: dict[str, Any], key: str, value: Any) -> None:
    checkpoint.save(path, {**good, key: value})
    assert refused(path) == f" is not a checkpoint of a run: something else is in place of its {key}"


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("hidden", [10**6, 10**6], "its weights are not those of its model"),
        ("hidden", [10**9, 10**9], "its model cannot be built"),
        ("hidden", [2, 2], "its weights are not those of its model: recurrent.1"),
        ("hidden", [], "model.hidden: got []; takes"),
        ("hidden", [-1], "model.hidden: got [-1]; takes"),
        ("cell", "rnn", "model.cell: got 'rnn'; takes one of lstm, gru"),
        ("dense", None, "a config that is none of tbptt's"),
        ("noise_std", "${oc.env:NOTHING_OF_THIS_NAME}", "model.noise_std: "),
    ],
)
def test_a_model_that_the_weights_are_not_of_is_told(
    path: Path, good: dict[str, Any], where: str, value: Any, says: str
) -> None:
    config = {**good["config"], "model": {**good["config"]["model"], where: value}}
    checkpoint.save(path, {**good, "config": config})
    with pytest.raises(ValueError, match=r".") as caught:
        load_run(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


class Kind(StrEnum):
    ONE = "one"


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("optimizer", {"state": {}, "param_groups": [{"dtype": torch.float32}]}, "optimizer=mine: its state_dict"),
        ("optimizer", {"state": {0: {"of": {"a": 1}}}, "param_groups": []}, "optimizer=mine: its state_dict"),
        ("optimizer", {"state": {0: {"call": lambda: 0}}, "param_groups": []}, "optimizer=mine: its state_dict"),
        ("scaler", {"fee": torch.ones(1, dtype=torch.int64)}, "task=mine: the scale of its targets"),
        ("callbacks", {"Mine": {"kind": Kind.ONE}}, "callback=mine: its state_dict"),
        ("callbacks", {"Mine": {"wave": torch.zeros(2, dtype=torch.complex64)}}, "callback=mine: its state_dict"),
        ("callbacks", {"Mine": {"seed": 2**63}}, "callback=mine: its state_dict"),
        ("callbacks", {"Mine": {"wide": torch.zeros(1).expand(10**6)}}, "callback=mine: its state_dict"),
    ],
)
def test_what_could_not_be_read_is_named_when_it_is_first_written(
    path: Path, good: dict[str, Any], part: str, value: Any, said: str
) -> None:
    options = {group: {"name": "mine"} for group in ("optimizer", "task", "callback")}
    value = {**good["scaler"], **value} if part == "scaler" else value
    spoilt = {**good, "config": {**good["config"], **options}, part: value}
    with pytest.raises(ValueError, match=rf"^{said}.* holds what no checkpoint may: .*; takes tensors") as caught:
        checkpoint.save_and_try(path, spoilt, keep_previous=True)
    assert "\n" not in str(caught.value)
    assert list(path.parent.iterdir()) == []
    checkpoint.save_and_try(path, good, keep_previous=True)
    with pytest.raises(ValueError, match=said):
        checkpoint.save_and_try(path, spoilt, keep_previous=True)
    assert checkpoint.load(path, OF_A_RUN)["best"] == good["best"]  # what was there is there again


def test_momenta_in_bfloat16_are_kept(path: Path, good: dict[str, Any]) -> None:
    state = {0: {"m": torch.rand(3).bfloat16()}}
    checkpoint.save_and_try(path, {**good, "optimizer": {"state": state, "param_groups": []}})
    assert torch.equal(checkpoint.load(path, OF_A_RUN)["optimizer"]["state"][0]["m"], state[0]["m"])


@pytest.mark.parametrize("group", ["optimizer", "schedule", "callback"])
def test_a_network_is_loaded_without_options_that_it_does_not_need(
    path: Path, good: dict[str, Any], group: str
) -> None:
    for option in ({"name": "gone", "width": 3}, {"name": "adam", "gone": [1]}):
        config = {**good["config"], group: option}
        checkpoint.save(path, {**good, "config": config})
        network, _, cfg = load_run(path)
        assert network.hidden == [2]
        assert cfg[group] == option
        with pytest.raises(ValueError, match="none of tbptt's"):
            typed(config)  # as to go on with the run


@pytest.mark.parametrize("group", ["model", "task", "data"])
def test_a_network_whose_own_option_is_gone_is_one_line(path: Path, good: dict[str, Any], group: str) -> None:
    checkpoint.save(path, {**good, "config": {**good["config"], group: {"name": "gone"}}})
    with pytest.raises(ValueError, match=rf"{group}: got 'gone'; takes one of .*, or the file in own/ that brings it$"):
        load_run(path)
