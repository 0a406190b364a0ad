"""``conf/`` of the working folder, for the command tbptt: its files come before the shipped ones of the same name."""

from pathlib import Path

import pytest
from conftest import CONF, ROOT

from tbptt.cli.command_line import checked
from tbptt.cli.help_page import help_text
from tbptt.cli.working_folder import looked_at
from tbptt.config.compose import CommandError, ConfigSource, composed
from tbptt.config.plain import rerunnable
from tbptt.config.schema import register
from tbptt.studies.worker_spec import WorkerSpec
from tbptt.system import folders


@pytest.fixture
def conf(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``conf/`` of an empty working folder."""
    register()
    monkeypatch.setattr(folders, "_first", None)
    (here / "conf" / "optimizer").mkdir(parents=True)
    return here / "conf"


def write(file: Path, was: str = "", becomes: str = "", of: str | None = None) -> None:
    """A shipped config of the same name, or of the name ``of``, with one text replaced."""
    shipped = CONF / (of or f"{file.parent.name}/{file.name}" if file.parent.name != "conf" else file.name)
    text = shipped.read_text()
    assert was in text
    file.write_text(text.replace(was, becomes))


def config(source: ConfigSource, *words: str) -> object:
    with source.opened():
        cfg, wrong = composed(source, words)
    assert cfg is not None, wrong
    assert wrong == []
    return cfg


def test_files_of_the_working_folder_come_first_and_new_ones_are_options(conf: Path) -> None:
    write(conf / "base.yaml", "clip: 1.0", "clip: 0.7")
    write(conf / "optimizer" / "adam.yaml", "lr: 0.01 ", "lr: 0.25 ")
    write(conf / "optimizer" / "mine.yaml", "lr: 0.01 ", "lr: 0.75 ", of="optimizer/adam.yaml")
    assert looked_at(CONF) == 0
    source = ConfigSource(CONF)
    assert source.first == conf
    cfg = config(source)
    assert (cfg.clip, cfg.optimizer.lr, cfg.data.name) == (0.7, 0.25, "article")
    assert config(source, "optimizer=mine").optimizer.lr == 0.75
    assert "mine" in source.options("optimizer")
    assert source.file("optimizer/adam") == conf / "optimizer" / "adam.yaml"
    assert source.file("optimizer/sgd") == CONF / "optimizer" / "sgd.yaml"
    assert source.file("optimizer/none") is None
    shown = help_text(CONF)
    assert "adagrad, adam, adamw, mine, momentum" in shown
    assert "  clip=0.7  " in shown
    assert "  optimizer.lr=0.25  " in shown
    assert ConfigSource(CONF, first=None) != source
    assert config(ConfigSource(CONF, first=None)).clip == 1.0


def test_a_file_of_config_dir_comes_before_both(conf: Path, here: Path) -> None:
    write(conf / "base.yaml", "clip: 1.0", "clip: 0.7")
    write(conf / "optimizer" / "adam.yaml", "eps: 1.0e-7", "eps: 1.0e-3")
    assert looked_at(CONF) == 0
    (here / "sent").mkdir()
    (here / "sent" / "best.yaml").write_text("defaults: [config, _self_]\noptimizer: {lr: 0.5}\n")
    words = checked(["--config-dir", "sent", "--config-name", "best", "epochs=3"], CONF)
    assert words == [f"--config-dir={CONF}", "--config-name=best", f"--config-path={here / 'sent'}", "epochs=3"]
    cfg = config(ConfigSource(here / "sent", "best", CONF, shipped=CONF), "epochs=3")
    assert (cfg.optimizer.lr, cfg.optimizer.eps, cfg.clip, cfg.epochs) == (0.5, 1e-3, 0.7, 3)


def test_what_a_run_kept_is_rerun_whatever_the_working_folder_says_now(conf: Path, here: Path) -> None:
    (here / "kept").mkdir()
    (here / "kept" / "best.yaml").write_text(rerunnable(config(ConfigSource(CONF), "clip=0.3")))
    write(conf / "base.yaml", "clip: 1.0", "clip: 0.7")
    assert looked_at(CONF) == 0
    assert config(ConfigSource(here / "kept", "best", CONF, shipped=CONF)).clip == 0.3


def test_a_worker_is_told_the_folder(conf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(conf / "base.yaml", "clip: 1.0", "clip: 0.7")
    spec = WorkerSpec(str(CONF), "config", None, [], "", first=str(conf))
    assert folders.first() is None  # it is another process, maybe in another folder
    cfg = config(spec.source)
    assert cfg.clip == 0.7
    assert folders.first() is None
    assert WorkerSpec(str(CONF), "config", None, [], "").source == ConfigSource(CONF)


def test_its_files_may_name_a_server_and_those_of_config_dir_may_not(conf: Path, here: Path) -> None:
    server = "tracking: {uri: 'http://127.0.0.1:1'}\n"
    (here / "sent").mkdir()
    (here / "sent" / "mine.yaml").write_text("defaults: [config, _self_]\n" + server)
    (conf / "config.yaml").write_text((CONF / "config.yaml").read_text() + server.replace(":1'", ":2'"))
    assert looked_at(CONF) == 0
    assert config(ConfigSource(CONF)).tracking.uri == "http://127.0.0.1:2"
    with pytest.raises(
        CommandError, match=r"^tracking\.uri: a file in --config-dir names the server http://127\.0\.0\.1:1"
    ):
        checked(["--config-dir", "sent", "--config-name", "mine"], CONF)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "hydra: {callbacks: {x: {_target_: os.system, command: touch done}}}",
            "hydra.callbacks.x._target_: got 'os.s",
        ),
        (
            "hydra: {job_logging: {handlers: {x: {class: logging.handlers.SMTPHandler}}}}",
            "handlers.x.class: got 'loggi",
        ),
    ],
)
def test_hydra_starts_nothing_else_for_it(conf: Path, text: str, said: str) -> None:
    (conf / "config.yaml").write_text(f"{(CONF / 'config.yaml').read_text()}\n{text}\n")
    assert looked_at(CONF) == 0
    with pytest.raises(CommandError) as caught:
        checked(["clip=0.5"], CONF)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("config", "db: mysql\n", "it does not begin with tbptt's own"),
        ("config", "defaults: [base, _self_]\n", "its defaults do not have `override hydra/sweeper: study`"),
        ("config", "defaults: [db: mysql, _self_]\n", "In 'config': Could not find 'db/mysql'"),
        ("config", "[1", 'while parsing a flow sequence in "'),
        ("base", "db: mysql\n", "it does not begin with tbptt's own"),
    ],
)
def test_a_conf_of_another_program_costs_one_line(
    name: str, text: str, why: str, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (conf / f"{name}.yaml").write_text(text)
    assert looked_at(CONF) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"conf/{name}.yaml in the working folder comes before the shipped one, and {why}")
    assert line.endswith("; take a copy of the shipped one, another name, or another folder to work in")


def test_without_a_file_of_these_names_another_programs_conf_does_no_harm(conf: Path) -> None:
    (conf / "db").mkdir()
    (conf / "db" / "mysql.yaml").write_text("[1")
    assert looked_at(CONF) == 0
    assert config(ConfigSource(CONF)).clip == 1.0


def test_a_checkouts_own_folder_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_first", None)
    monkeypatch.chdir(ROOT)
    assert looked_at(CONF) == 0
    assert folders.first() is None


def test_yaml_that_stands_for_gigabytes_is_refused_there_too(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a0: &a0 [1, 1]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))]
    (conf / "base.yaml").write_text("\n".join(lines))
    assert looked_at(CONF) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{conf / 'base.yaml'} stands for more than 20,000 keys and values"
