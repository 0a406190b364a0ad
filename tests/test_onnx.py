"""A file of a network gives the network's numbers, for chunks of any size, to who has nothing but the file."""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import ROOT
from networks import of_config
from omegaconf import DictConfig
from test_docs import blocks
from test_own import written
from torch import Tensor, nn

from tbptt import inputs, sides
from tbptt.data.features import Scaler
from tbptt.models.state import leaves, rebuild, with_places
from tbptt.serving import exported, to_onnx, to_torch
from tbptt.serving.trained import Trained

Compose = Callable[..., DictConfig]
SIZES = [(1, (1, 2, 1)), (6, (17, 1)), (2, (130,))]  # other than those that the writer compares
SHIPPED = {
    "lstm": [],
    "lstm without dense": ["model.dense=[]", "model.hidden=[7]"],
    "gru": ["model.cell=gru"],
    "gru without dense": ["model.cell=gru", "model.dense=[]"],
    "minlstm": ["model=minlstm", "model.dense=[5]", "model.hidden=[4,7]"],
}


class Own(nn.Module):
    """A network of one's own: y is what ``compute`` makes of (B, K, 6) inputs and the state h."""

    def __init__(self, start: float = 0.0):
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 4), nn.Linear(4, 2)
        self.start = nn.Parameter(torch.full((4,), start))

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        h = self.compute(self.enter(x), state["h"])
        return self.leave(h), {"h": h[:, -1]}

    def compute(self, x: Tensor, h: Tensor) -> Tensor:
        return x.tanh() + h[:, None]

    def zero_state(self, batch: int) -> Any:
        return {"h": self.start.expand(batch, 4)}


class OfNoForm(Own):
    def compute(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.special.bessel_j0(x) + h[:, None]


class InALoop(Own):
    def compute(self, x: Tensor, h: Tensor) -> Tensor:
        found = []
        for t in range(x.shape[1]):
            h = (x[:, t] + h).tanh()
            found.append(h)
        return torch.stack(found, 1)


class Stateless(Own):
    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.leave(self.enter(x).tanh()), state

    def zero_state(self, batch: int) -> Any:
        return None


class Mixed(Own):
    """Its first state is not one sequence's beside another's."""

    def zero_state(self, batch: int) -> Any:
        return {"h": torch.arange(4.0 * batch).reshape(batch, 4)}


def residual() -> Any:
    """The network of docs/using.md's example, with dropout, which is off."""
    names: dict[str, Any] = {}
    code = written("own/residual.py").replace("@dataclass\n", "").replace(', options=["residual"]', "")
    exec(code, names)
    model = names["Residual"].__new__(names["Residual"])
    model.width, model.dropout = 4, 0.5
    return model.build(6, 2)


OWN: dict[str, Callable[[], Any]] = {
    "residual": residual,
    "stateless": Stateless,
    "with a trained start": lambda: Own(0.7),
}


def made(config: Compose, kind: str) -> Trained:
    return of_config(config, *SHIPPED[kind]) if kind in SHIPPED else of_config(config, network=OWN[kind]())


def of_file(path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["tbptt"])


def begun(about: dict[str, Any], batch: int) -> dict[str, Any]:
    """The first state, from the metadata alone."""
    shapes = [[batch if n == "batch" else n for n in part["shape"]] for part in about["state"]]
    return {p["name"]: np.full(shape, p["start"], p["type"]) for p, shape in zip(about["state"], shapes, strict=True)}


def chunks(network: Any, batch: int, lengths: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
    """Random chunks, what the network gives for each, and the state after it."""
    random, state = torch.Generator().manual_seed(7), network.zero_state(batch)
    for steps in lengths:
        x = torch.randn(batch, steps, 6, generator=random)
        with torch.no_grad():
            y, state = network(x, state)
        yield x, y, leaves(state)


def close(found: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(found), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [*SHIPPED, *OWN])
def test_an_onnx_file_gives_the_networks_numbers_with_the_state_carried(
    config: Compose, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trained = made(config, kind)
    assert to_onnx.write(trained, tmp_path / "a.onnx").difference < 1e-5
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    session, about = of_file(tmp_path / "a.onnx")
    for batch, lengths in SIZES:
        state = begun(about, batch)
        for x, y, after in chunks(trained.network, batch, lengths):
            found = session.run(None, {"x": x.numpy(), **state})
            state = dict(zip(state, found[1:], strict=True))
            for got, expected in zip(found, [y, *after], strict=True):
                close(got, expected)
    assert [each.name for each in session.get_outputs()] == ["y", *(part["next"] for part in about["state"])]
    shapes = {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}
    assert shapes["x"] == ["batch", "steps", 6]
    assert shapes["y"] == ["batch", "steps", 2]
    for part in about["state"]:
        assert shapes[part["name"]] == shapes[part["next"]] == part["shape"]


def test_a_state_is_named_after_its_places(config: Compose) -> None:
    def named(network: Any) -> list[tuple[str, str]]:
        return [(part.name, part.next) for part in exported.parts(network)]

    lstm = made(config, "lstm").network
    assert [place for place, _ in with_places(lstm.zero_state(1))][1] == "state[0][1]"
    assert named(lstm) == [(f"state.{i}.{k}", f"next.{i}.{k}") for i in (0, 1) for k in (0, 1)]
    assert named(residual()) == [("state.h", "next.h"), ("state.steps", "next.steps")]
    assert named(Stateless()) == []
    odd = Own()
    odd.zero_state = lambda batch: {"a b": torch.zeros(batch), "é/": torch.zeros(batch)}  # type: ignore[method-assign]
    assert named(odd) == [("state.0", "next.0"), ("state.1", "next.1")]


def test_the_metadata_say_what_made_the_file_and_how_its_numbers_are_scaled(config: Compose, tmp_path: Path) -> None:
    std = torch.tensor([[1.0, 2.0]]).double()
    more = {"extra_mean": std, "extra_std": torch.tensor([[3.0, torch.inf]]).double(), "mixing": torch.eye(2).double()}
    words = ["data=prices", "data.path=x.csv", "data.inputs=[volume,spread]", "data.input_window=3"]
    trained = of_config(config, *words, "data.features=one_step_change", target_std=std, **more)
    to_onnx.write(trained, tmp_path / "a.onnx")
    session, about = of_file(tmp_path / "a.onnx")
    assert session.get_inputs()[0].shape == ["batch", "steps", 6 + 2 * 2 * 3]
    known = {name: about[name] for name in ("run_id", "window", "features", "inputs", "input_window", "opset")}
    assert known == {
        "run_id": "x",
        "window": 6,
        "features": "one_step_change",
        "inputs": ["volume", "spread"],
        "input_window": 3,
        "opset": 20,
    }
    assert (about["task"]["name"], about["task"]["gamma"], about["outputs"], about["decides"]) == (
        "q_values",
        0.9,
        2,
        True,
    )
    assert about["scaler"] == {
        "input_mean": [0.1],
        "input_std": [3.0],
        "target_mean": trained.scaler.target_mean.tolist(),
        "target_std": [[1.0, 2.0]],
        "fee": [0.05],
        "mixing": [[1.0, 0.0], [0.0, 1.0]],
        "extra_mean": [[1.0, 2.0]],
        "extra_std": [[3.0, None]],
    }
    import onnx

    model = onnx.load(tmp_path / "a.onnx")
    assert [(each.domain, each.version) for each in model.opset_import if not each.domain] == [("", 20)]
    assert model.producer_name == "tbptt"


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (OfNoForm, "its operation aten.special_bessel_j0 has no form in ONNX"),
        (InALoop, "chunks of one length or one number of sequences only: it loops over the steps in Python"),
        (Mixed, "its state.h at the start is not one sequence's beside another's"),
    ],
)
def test_what_cannot_be_written_is_told_in_a_line_and_no_file_is_left(
    config: Compose, network: Any, why: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.onnx"
    path.write_text("before")
    with pytest.raises(ValueError, match=f"^run x cannot be written as ONNX: .*{why}") as error:
        to_onnx.write(of_config(config, network=network()), path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_other_numbers_gets_no_name(config: Compose, tmp_path: Path, monkeypatch: Any) -> None:
    trained, write = made(config, "lstm"), to_onnx._followed
    with exported.quiet(), torch.no_grad():
        wrong = write(trained)
        trained.network.head.bias += 3e-5  # type: ignore[attr-defined]
    monkeypatch.setattr(to_onnx, "_exported", write)
    monkeypatch.setattr(to_onnx, "_followed", lambda trained: wrong)
    assert to_onnx.write(trained, tmp_path / "a.onnx").difference < 1e-5  # the other way is right
    monkeypatch.setattr(to_onnx, "_exported", lambda trained: wrong)
    with pytest.raises(
        ValueError, match=r"its y differs from the network's by [23]\.?\d*e-05, which is more than 1e-05"
    ):
        to_onnx.write(trained, tmp_path / "b.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize("kind", ["lstm", "gru", "minlstm", "residual"])
def test_a_program_of_torch_gives_the_networks_numbers(
    config: Compose, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trained = made(config, kind)
    assert to_torch.write(trained, tmp_path / "a.pt2").difference < 1e-5
    assert capfd.readouterr() == ("", "")
    extra = {"tbptt.json": ""}
    program = torch.export.load(str(tmp_path / "a.pt2"), extra_files=extra).module()
    assert json.loads(extra["tbptt.json"]) == exported.about(trained)
    for batch, lengths in SIZES:
        state = trained.network.zero_state(batch)
        for x, y, after in chunks(trained.network, batch, lengths):
            with torch.no_grad():
                found, state = program(x, state)
            for got, expected in zip([found, *leaves(state)], [y, *after], strict=True):
                close(got, expected)


def test_a_program_of_a_loop_in_python_is_refused_in_a_line(config: Compose, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^run x cannot be written by torch\.export: .* loops over the steps"):
        to_torch.write(of_config(config, network=InALoop()), tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


# --- docs/export.md -------------------------------------------------------------------------------------------------


def write_prices(path: Path) -> np.ndarray:
    walks = np.random.default_rng(2).standard_normal((2, 400)).cumsum(1).round(2)
    prices = np.array([[100.0], [50.0]]) + walks
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["day", "close_b", "close_a"], *([t, b, a] for t, (a, b) in enumerate(prices.T))])
    return prices


@pytest.mark.parametrize("features", ["lagged_change", "one_step_change"])
def test_the_page_predicts_from_a_csv_without_tbptt(config: Compose, here: Path, features: str) -> None:
    prices = write_prices(here / "prices.csv")
    mixing = torch.tensor([[0.5, 1.0], [0.5, -1.0]]).double()
    trained = of_config(
        config, "data=prices", "data.path=prices.csv", f"data.features={features}", series=2, mixing=mixing
    )
    trained = dataclasses.replace(trained, series=["close_a", "close_b"])
    to_onnx.write(trained, here / "first.onnx")
    code = blocks("docs/export.md", "python")[0]
    assert "tbptt" not in code.replace('map["tbptt"]', "")
    names: dict[str, Any] = {}
    exec(code, names)
    with torch.no_grad():
        x = inputs(torch.from_numpy(prices), trained.scaler, trained.config)
        y, state = trained.network(x, trained.network.zero_state(2))
    q = trained.scaler.to_price_units(y.double())
    close(names["x"], x)
    close(names["y"], y)
    torch.testing.assert_close(torch.from_numpy(names["q"]), q, atol=1e-4, rtol=0)
    for found, expected in zip(names["state"].values(), leaves(state), strict=True):
        close(found, expected)
    assert torch.equal(torch.from_numpy(names["side"]), sides(torch.from_numpy(names["q"]), trained.scaler.fee))
    assert 0 < names["side"].mean() < 1


def test_the_pages_formula_for_other_inputs_is_that_of_the_network(config: Compose) -> None:
    random = np.random.default_rng(1)
    prices, extra = random.standard_normal((1, 30)).cumsum(1), random.standard_normal((1, 30, 2))
    extra[0, 10, 0], extra[0, 20, 0] = np.nan, 1e9
    mean, std = torch.tensor([[[0.5, 1.0]], [[2.0, torch.inf]]]).double()
    words = ["data=prices", "data.path=x.csv", "data.inputs=[v,w]", "data.input_window=3"]
    trained = of_config(config, *words, extra_mean=mean, extra_std=std)
    x = inputs(prices, trained.scaler, trained.config, extra)[0]
    scaler = exported.about(trained)["scaler"]
    for t in range(6, 30):
        for i in (0, 1):
            for j in range(3):
                v, std = extra[0, t - j, i], scaler["extra_std"][0][i]
                known = np.isfinite(v)
                value = 0.0 if not known or std is None else (v - scaler["extra_mean"][0][i]) / std
                assert float(x[t - 6, 6 + 3 * i + j]) == pytest.approx(np.clip(value, -10_000, 10_000), abs=1e-5)
                assert float(x[t - 6, 6 + 6 + 3 * i + j]) == known


def test_the_pages_torch_export_works_on_a_loaded_network(here: Path) -> None:
    (checkpoint,) = (ROOT / "tests" / "before" / "sweeps").glob("*/best.ckpt")
    code = blocks("docs/export.md", "python")[1]
    assert '"sweeps/first/best.ckpt"' in code
    names: dict[str, Any] = {}
    with chdir(here):
        exec(code.replace("sweeps/first/best.ckpt", str(checkpoint)), names)
    expected, after = names["network"](torch.zeros(5, 200, 8), names["network"].zero_state(5))
    close(names["y"], expected.detach())
    for found, leaf in zip(leaves(names["state"]), leaves(after), strict=True):
        close(found, leaf.detach())
    assert isinstance(names["scaler"], Scaler)
    assert rebuild(names["state"], leaves(names["state"])) == names["state"]
