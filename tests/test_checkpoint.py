"""Checkpoints: whole or not at all, plain types only, and nothing in a file is run when it is read."""

import pickle
from collections import OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tbptt.runs.checkpoint import load, save
from tbptt.runs.contents import why_not_plain

CONTENT: dict[str, Any] = {
    "model": {"weight": torch.arange(2000.0).reshape(40, 50)},
    "numbers": [1, 2.5, None, True],
    "pair": (1, "text"),
    "metrics": {"val/loss": 0.25},
}


class Evil:
    """Runs code of its own when it is unpickled."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "new" / "folder" / "a.ckpt", CONTENT)
    content = load(tmp_path / "new" / "folder" / "a.ckpt")
    assert torch.equal(content["model"]["weight"], CONTENT["model"]["weight"])
    assert {k: content[k] for k in ("numbers", "pair", "metrics")} == {
        k: CONTENT[k] for k in ("numbers", "pair", "metrics")
    }


def test_saved_file_needs_nothing_but_plain_types(tmp_path: Path) -> None:
    save(tmp_path / "a.ckpt", CONTENT)
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["metrics"] == {"val/loss": 0.25}


def test_save_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save(path, {"epoch": 1})
    with path.open("rb") as held:  # a reader that began before keeps the old one, whole
        old = path.read_bytes()
        save(path, {"epoch": 2})
        assert held.read() == old
    assert load(path)["epoch"] == 2
    assert list(tmp_path.iterdir()) == [path]


def test_save_that_fails_halfway_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ckpt"
    save(path, {"epoch": 1})

    def full_disk(content: object, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(path, {"epoch": 2})
    assert load(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_is_on_the_disk_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.ckpt"
    save(path, {"epoch": 1})
    seen: list[int] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: seen.append(load(path)["epoch"]))
    save(path, {"epoch": 2})
    assert seen == [1, 2]  # first the file, still beside; then the folder that names it


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_file_cut_short_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save(path, CONTENT)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert_refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_changed_byte_never_gives_other_weights(share: float, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save(path, CONTENT)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0xFF
    path.write_bytes(content)
    try:
        loaded = load(path)
    except ValueError:
        return
    assert torch.equal(loaded["model"]["weight"], CONTENT["model"]["weight"])


@pytest.mark.parametrize("foreign", [{"model": {}}, {"format": 99}, torch.zeros(3), [1, 2]], ids=str)
def test_file_of_another_kind_is_refused(foreign: object, tmp_path: Path) -> None:
    torch.save(foreign, tmp_path / "a.ckpt")
    assert_refused(tmp_path / "a.ckpt")


def test_text_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.ckpt").write_text("notes")
    (tmp_path / "folder.ckpt").mkdir()
    for name in ("notes.ckpt", "folder.ckpt", "missing.ckpt"):
        assert_refused(tmp_path / name)


@pytest.mark.parametrize("how", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_inside_a_file_is_not_run(how: Any, tmp_path: Path) -> None:
    path, witness = tmp_path / "evil.ckpt", tmp_path / "was_run"
    how({"format": 1, "model": Evil(witness)}, path)
    assert_refused(path)
    assert not witness.exists()
    torch.load(path, weights_only=False) if how is torch.save else pickle.loads(path.read_bytes())
    assert witness.exists()  # it would have been


def assert_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=path.name) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def nested(deep: int) -> list[Any]:
    return [nested(deep - 1)] if deep else []


@pytest.mark.parametrize(
    "value",
    [
        *({"a": [1, 2.5, None, True, "text"]}, (1, 2), {}, OrderedDict(a=1), 2**63 - 1, nested(30)),
        *(torch.ones(2, requires_grad=True), torch.ones(1, dtype=torch.bfloat16), torch.tensor([True])),
        *(2**63, np.float64(1), np.int64(1), np.ones(2), defaultdict(list), {1, 2}, b"bytes", Path("a"), nested(60)),
        *(nn.Parameter(torch.ones(2)), torch.ones(2, dtype=torch.complex64), torch.eye(2).to_sparse()),
        *({"a": [np.float64(1)]}, {np.float64(1): 1}, namedtuple("Pair", "a b")(1, 2), 1j, lambda: 1),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_is_refused_in_memory_is_what_could_not_be_read(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    try:
        save(path, {"value": value})
        load(path)
        could_be_read = True
    except Exception:
        could_be_read = False
    assert (why_not_plain(value) is None) == could_be_read
