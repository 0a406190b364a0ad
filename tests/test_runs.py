"""A finished run as a thing to use again: its config reruns it, its network predicts in price units."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
import pytest
import torch
from conftest import CONF, ROOT, SMALL
from forked import python
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.file_utils import local_file_uri_to_path
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from tbptt import load_run
from tbptt.cli.command_line import CommandError, checked
from tbptt.config.plain import plain, rerunnable
from tbptt.config.schema import register
from tbptt.data.options import ArticleData
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.runs.fit import Result, fit

Compose = Callable[..., DictConfig]

# Unlike the defaults in every group, in numbers that a careless dump would change.
SETTINGS = [
    "optimizer=rmsprop",
    "optimizer.lr=3e-3",
    "schedule=fixed",
    "schedule.chunks=[7]",
    "schedule.patience=null",
    "clip=0.3",
    "clip_mode=value",
    "model.cell=gru",
    "seed=3",
    "task.fee=0.01",
    "epochs=3",
]


class Trained(NamedTuple):
    folder: Path
    uri: str
    cfg: DictConfig
    result: Result

    @property
    def config_file(self) -> Path:
        return self.artifact("config.yaml")

    def artifact(self, path: str) -> Path:
        return artifacts(MlflowClient(self.uri).get_run(self.result.run_id)) / path


def artifacts(run: Run) -> Path:
    """The folder of a run's artifacts: where the store says, without copying them."""
    return Path(local_file_uri_to_path(run.info.artifact_uri))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    uri = f"sqlite:///{folder}/mlruns/mlflow.db"
    base = [word for word in SMALL if not word.startswith("schedule.")]
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*base, f"tracking.uri={uri}", *SETTINGS])
    return Trained(folder, uri, cfg, fit(cfg))


def config_of(argv: list[str]) -> dict[str, Any]:
    """What a command would run, as the program composes it for Hydra."""
    args = get_args_parser().parse_args(checked(argv, CONF))
    with initialize_config_dir(str(args.config_path or CONF), version_base="1.3"):
        cfg = compose(
            args.config_name, [f"hydra.searchpath=['file://{Path(args.config_dir).absolute()}']", *args.overrides]
        )
    return plain(cfg)


def of_a_run(content: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in content.items() if k not in ("study", "space", "sweep", "resume")}


def losses(store: Path) -> tuple[pd.DataFrame, str]:
    """Of every update of the only run in a store, and the run's id."""
    client = MlflowClient(f"sqlite:///{store}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return pd.read_parquet(artifacts(run) / "updates.parquet"), run.info.run_id


# --- the config ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config", "best", "my.run-2"])
def test_config_file_composes_to_the_runs_config_whatever_its_name(name: str, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / f"{name}.yaml").write_bytes(trained.config_file.read_bytes())
    content = config_of(["--config-dir", str(tmp_path), "--config-name", name])
    assert of_a_run(content) == of_a_run(plain(trained.cfg))


@pytest.mark.parametrize(
    "flags",
    [
        ["--config-dir=again", "--config-name=config"],
        ["-cd", "again", "-cn", "config"],
        ["--config-dir", "./again/", "--config-name", "config.yaml"],
        ["--config-dir", "config", "--config-name", "config"],
    ],
    ids=" ".join,
)
def test_flags_may_be_written_in_any_of_hydras_ways(flags: list[str], trained: Trained, here: Path) -> None:
    """Else the shipped config of the same name would be run instead, without a word."""
    for folder in (here / "again", here / "config"):
        folder.mkdir()
        (folder / "config.yaml").write_bytes(trained.config_file.read_bytes())
    assert config_of(flags)["model"]["cell"] == "gru"


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["optimizer.lr=0.5"], {"optimizer": {"lr": 0.5}}),
        (["clip=null", "epochs=9"], {"clip": None, "epochs": 9}),
        (["schedule.chunks=[4,1]"], {"schedule": {"chunks": [4, 1]}}),
        (["data.seed=5", "model.hidden=[4,4]"], {"data": {"seed": 5}, "model": {"hidden": [4, 4]}}),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else None,
)
def test_overrides_work_on_top_of_a_config_file(
    overrides: list[str], changed: dict[str, Any], trained: Trained
) -> None:
    content = config_of(["--config-dir", str(trained.config_file.parent), "--config-name", "config", *overrides])
    expected = plain(cast(DictConfig, OmegaConf.merge(trained.cfg, changed)))
    assert of_a_run(content) == of_a_run(expected)


@pytest.mark.parametrize("choice", ["optimizer=adam", "schedule=geometric", "optimizer=sgd"])
def test_another_choice_of_a_group_works_on_top_of_a_config_file(choice: str, trained: Trained) -> None:
    content = config_of(["--config-dir", str(trained.config_file.parent), "--config-name", "config", choice])
    group, _, option = choice.partition("=")
    assert content[group]["name"] == option
    assert content["model"]["cell"] == "gru"  # the rest is the run's


def test_mistake_on_top_of_a_config_file_gets_its_line(trained: Trained) -> None:
    with pytest.raises(CommandError) as caught:
        checked(["--config-dir", str(trained.config_file.parent), "--config-name", "config", "clip=0", "fo=1"], CONF)
    assert sorted(line.split(":")[0] for line in caught.value.lines) == ["clip", "fo"]


def test_config_file_begins_with_the_defaults_list(trained: Trained) -> None:
    lines = [line for line in trained.config_file.read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "defaults:"
    assert "- override optimizer: rmsprop" in lines


def test_secret_of_the_environment_is_written_nowhere(
    small: Compose, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TBPTT_SECRET", "hunter2")
    cfg = small("tracking.experiment=${oc.env:TBPTT_SECRET}", "epochs=1")
    assert "hunter2" not in rerunnable(cfg)
    assert "${oc.env:TBPTT_SECRET}" in rerunnable(cfg)


def test_run_with_a_variable_in_its_config_loads_where_there_is_no_such_variable(
    small: Compose, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TBPTT_PLACE", str(trained.folder))
    result = fit(small("tracking.uri='sqlite:///${oc.env:TBPTT_PLACE}/mlruns/mlflow.db'", "epochs=1"))
    monkeypatch.delenv("TBPTT_PLACE")
    model, _, _ = load_run(result.run_id, trained.uri)
    assert model.hidden == [8]


def command(*argv: str, cwd: Path) -> str:
    done = python(str(ROOT / "train.py"), *argv, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_real_command_reruns_a_config_file_with_the_same_curve(trained: Trained, tmp_path: Path) -> None:
    folder = str(trained.config_file.parent)
    command("--config-dir", folder, "--config-name", "config", "tracking.uri=sqlite:///again.db", cwd=tmp_path)
    table, _ = losses(tmp_path / "again.db")
    assert len(table) == 21
    pd.testing.assert_frame_equal(table, pd.read_parquet(trained.artifact("updates.parquet")), check_exact=True)


def test_real_command_reruns_a_renamed_file_with_overrides_and_leaves_no_outputs(
    trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "best.yaml").write_bytes(trained.config_file.read_bytes())
    overrides = ["tracking.uri=sqlite:///mlruns/mlflow.db", "epochs=1", "progress=plain"]
    out = command("--config-dir", "old", "--config-name", "best", *overrides, cwd=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlruns", "old"]
    assert [p.name for p in (tmp_path / "old").iterdir()] == ["best.yaml"]
    table, run_id = losses(tmp_path / "mlruns" / "mlflow.db")
    first = pd.read_parquet(trained.artifact("updates.parquet")).query("epoch == 0")
    pd.testing.assert_frame_equal(table, first, check_exact=True)
    assert run_id in out
    assert "mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db" in out


# --- the network -----------------------------------------------------------------------------------------------


def test_load_run_gives_model_scaler_and_config(trained: Trained) -> None:
    model, scaler, config = load_run(trained.result.run_id, trained.uri)
    assert not model.training
    assert model.cell == "gru"
    assert scaler.target_std.shape == (1,)
    assert scaler.fee is not None
    assert scaler.fee.tolist() == [0.01]
    assert of_a_run(plain(config)) == of_a_run(plain(trained.cfg))
    stored = torch.load(trained.artifact("checkpoints/best.ckpt"), weights_only=True)["model"]
    assert all(torch.equal(weight, stored[name]) for name, weight in model.state_dict().items())


def test_config_of_a_loaded_run_is_typed(trained: Trained) -> None:
    _, _, cfg = load_run(trained.result.run_id, trained.uri)
    assert OmegaConf.to_object(cfg.optimizer) == OmegaConf.to_object(trained.cfg.optimizer)
    assert isinstance(OmegaConf.to_object(cfg.data), ArticleData)
    with pytest.raises(ValidationError):
        cfg.clip = "text"


def test_best_and_last_are_told_apart(small: Compose, trained: Trained) -> None:
    result = fit(small(f"tracking.uri={trained.uri}", "objective=time/train_seconds"))  # best at the first epoch
    stored = {w: torch.load(Trained(*trained[:3], result).artifact(f"checkpoints/{w}.ckpt")) for w in ("best", "last")}
    for which in ("best", "last"):
        model, _, _ = load_run(result.run_id, trained.uri, which)
        assert torch.equal(model.head.weight, stored[which]["model"]["head.weight"])
    assert (stored["best"]["epoch"], stored["last"]["epoch"]) == (0, 2)


def test_same_input_gives_the_same_prediction_as_noise_is_off(trained: Trained) -> None:
    model, _, _ = load_run(trained.result.run_id, trained.uri)
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        assert torch.equal(model(x, model.zero_state(2))[0], model(x, model.zero_state(2))[0])


@pytest.mark.parametrize("data", ["article", "prices"])
def test_price_units_undo_the_scaling_of_the_targets(data: str, small: Compose, here: Path, trained: Trained) -> None:
    """Shared by all series (article) and one a series (prices)."""
    overrides = []
    cfg = small()
    if data == "prices":
        rows = [f"{100 + i % 7},{5000 + 90 * (i % 11)}" for i in range(400)]
        Path("p.csv").write_text("\n".join(["a,b", *rows]))
        base = [word for word in SMALL if not word.startswith("data.")]
        overrides = ["data=prices", "data.path=p.csv", "data.window=8", "task.horizon=5", "epochs=1"]
        register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", [*base, *overrides])
    cfg.tracking.uri = trained.uri
    _, scaler, _ = load_run(fit(cfg).run_id, trained.uri)
    batch = 3 if data == "article" else 2
    q = torch.linspace(-50, 80, batch * 6 * 2, dtype=torch.float64).reshape(batch, 6, 2)
    scaled = scaler.scale_targets(q)
    assert not torch.allclose(scaled, q)
    torch.testing.assert_close(scaler.to_price_units(scaled), q)
    targets = SequenceDataModule(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)).train.targets
    prices = scaler.to_price_units(targets.double())
    spread = prices.std(dim=(1, 2))
    if data == "prices":
        assert spread[1] > 10 * spread[0]  # an index and a cheap thing, each in its own units


def test_run_is_loaded_from_the_default_store_and_from_elsewhere_by_an_absolute_uri(
    trained: Trained, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, _, _ = load_run(trained.result.run_id, trained.uri)
    assert list(here.iterdir()) == []
    monkeypatch.chdir(trained.folder)
    near, _, _ = load_run(trained.result.run_id)
    assert torch.equal(near.head.weight, away.head.weight)


def test_unknown_run_and_unknown_checkpoint_are_told(trained: Trained) -> None:
    with pytest.raises(ValueError, match="nosuchrun") as caught:
        load_run("nosuchrun", trained.uri)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"middle\.ckpt"):
        load_run(trained.result.run_id, trained.uri, "middle")


def test_looking_for_a_run_makes_no_store(here: Path) -> None:
    with pytest.raises(ValueError, match="nosuchrun"):
        load_run("nosuchrun", "sqlite:///mistyped/mlflow.db")
    assert list(here.iterdir()) == []


def test_damaged_checkpoint_is_told(small: Compose, trained: Trained) -> None:
    result = fit(small(f"tracking.uri={trained.uri}", "epochs=1"))
    path = Trained(*trained[:3], result).artifact("checkpoints/best.ckpt")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"best\.ckpt"):
        load_run(result.run_id, trained.uri)
