"""Flags and words in any order; what was not meant so gets a line, and what would be right."""

from pathlib import Path

import pytest
from conftest import CONF
from hydra.core.config_store import ConfigStore

from tbptt.cli.command_line import checked
from tbptt.config import compose, hydra_node
from tbptt.config.compose import CommandError
from tbptt.config.typed import FLAGS, read


def lines(*argv: str) -> list[str]:
    with pytest.raises(CommandError) as caught:
        checked(argv, CONF)
    return caught.value.lines


# --- flags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "flags", "words"),
    [
        (["a=1", "-m", "b=1,2"], {"-m": ""}, ["a=1", "b=1,2"]),
        (["a=1", "--multirun", "b=1"], {"-m": ""}, ["a=1", "b=1"]),
        (["a=1", "-cn", "best", "b=1", "-cd=x"], {"--config-name": "best", "--config-dir": "x"}, ["a=1", "b=1"]),
        (["--config-name=a=b.yaml"], {"--config-name": "a=b.yaml"}, []),
        (["--info", "a=1"], {"--info": "all"}, ["a=1"]),
        (["a=1", "-i", "plugins"], {"--info": "plugins"}, ["a=1"]),
        (["-c", "job", "a=1", "--resolve"], {"--cfg": "job", "--resolve": ""}, ["a=1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_may_stand_anywhere(argv: list[str], flags: dict[str, str], words: list[str]) -> None:
    typed = read(argv)
    assert (typed.flags, typed.words, typed.lines) == (flags, words, [])
    assert read(typed.argv(words)) == typed


def test_an_override_before_m_is_a_sweep_like_any_other(here: Path) -> None:
    assert checked(["optimizer=adam", "-m", "clip=0.5,1"], CONF) == ["-m", "optimizer=adam", "clip=0.5,1"]


COMPLETION = "takes install=SHELL or uninstall=SHELL beside it: bash, zsh or fish"
PRINTS = "prints what one run would have, and starts nothing; takes no -m beside it"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("-study.n_trials=5", "-study.n_trials=5: not a flag; takes study.n_trials=5, without the dash"),
        ("--clip=3", "--clip=3: not a flag; takes clip=3, without the dash"),
        ("-progress=RUN", "-progress=RUN: not a flag; takes progress=RUN, without the dash"),
        ("-m5", f"-m5: not a flag; takes one of {', '.join(FLAGS)}"),
        ("--multi", f"--multi: not a flag; takes one of {', '.join(FLAGS)}"),
        ("-m=3", "-m: got '3'; takes no value"),
        ("--cfg foo", "--cfg: got 'foo'; takes one of job, hydra, all"),
        ("--cfg", "--cfg: missing; takes job|hydra|all"),
        ("--config-name", "--config-name: missing; takes NAME"),
        ("--config-name ~x", "--config-name: got '~x'; takes the name of a config, which has no ~ in it"),
        ("--config-dir --resolve --cfg job", "--config-dir: missing; takes FOLDER"),
        ("--resolve", "--resolve: takes --cfg beside it"),
        ("-p optimizer", "--package: takes --cfg beside it"),
        ("--cfg job -p optimzer", "--package: got 'optimzer'; takes a key of the config"),
        ("--shell-completion", f"--shell-completion: {COMPLETION}"),
        ("-m --run clip=1,2", "--run: takes no -m beside it"),
        ("--cfg job --info all", "--info: takes no --cfg beside it"),
        *(
            (f"-m {flag} clip=1,2", f"{flag.split()[0]}: {PRINTS}")
            for flag in ("--cfg job", "--cfg hydra", "--cfg all --resolve", "--info", "--info plugins", "--info config")
        ),
    ],
)  # fmt: skip
def test_a_flag_that_was_not_meant_so_gets_a_line(argv: str, expected: str, here: Path) -> None:
    assert lines(*argv.split()) == [expected]
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "argv", ["--cfg job", "--info defaults optimizer=sgd", "--cfg job sweep=clip study.n_trials=3"]
)
def test_what_starts_nothing_may_show_a_study(argv: str, here: Path) -> None:
    assert checked(argv.split(), CONF)


# --- words ------------------------------------------------------------------------------------------------------

STUDY = "belongs to a study, and this is a single run; add -m"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("study.n_trials=20", f"study.n_trials: {STUDY}"),
        ("study.dry_run=true", f"study.dry_run: {STUDY}"),
        ("study/sampler=gp", f"study/sampler: {STUDY}"),
        ("study.sampler.seed=3", f"study.sampler.seed: {STUDY}"),
        ("study.trial=3", f"study.trial: {STUDY}"),
        ("study={n_trials: 3}", f"study: {STUDY}"),
        ("sweep=clip", "sweep: searches several values; add -m"),
        ("+clip=1", "+clip: is there already; takes clip=1, without the +"),
        ("++optimizer.lr=1", "++optimizer.lr: is there already; takes optimizer.lr=1, without the +"),
        ("+cilp=1", "cilp: unknown key; did you mean clip?"),
        ("~clip", "~clip: a key cannot be taken away; takes KEY=VALUE"),
        ("=3", "=3: has no key; takes KEY=VALUE"),
        ("clip@foo=1", "clip@foo: takes clip=VALUE, without @foo"),
        ("study.sampler=gp", "study.sampler: unknown key; did you mean study/sampler?"),
        ("study/pruner.patience=1", "study/pruner.patience: unknown key; did you mean study.pruner.patience?"),
        ("optimizer/lr=1", "optimizer/lr: unknown key; did you mean optimizer.lr?"),
        ("lr=0.1", "lr: unknown key; did you mean optimizer.lr?"),
        ("noise_std=1", "noise_std: unknown key; did you mean data.noise_std or model.noise_std?"),
        ("alpha=1", "alpha: unknown key; did you mean optimizer.alpha?"),
        ("n_trials=3", "n_trials: unknown key; did you mean study.n_trials?"),
        ("tracking=foo", "tracking: has keys of its own; takes tracking.KEY=VALUE"),
        ("hydra=int(1.5)", "hydra: has keys of its own; takes hydra.KEY=VALUE"),
        ("hydra/sweeper=optuna", "hydra/sweeper: got 'optuna'; takes one of study"),
        ("hydra/sweeper=1.5", "hydra/sweeper: got 1.5; takes one of study"),
        ("hydra/launcher=true", "hydra/launcher: got True; takes one of basic, joblib, submitit_local, submitit_slurm"),
        ("hydra/launcher=ray", "hydra/launcher: got 'ray'; takes one of basic, joblib, submitit_local, submitit_slurm"),
        ("hydra/job_logging=[1]", "hydra/job_logging: got [1]; takes the name of an option"),
        ("hydra/job_logging=nosuch", "hydra/job_logging: there is no such option"),
        ("hydra.sweeper=null", "hydra.sweeper: got null; takes hydra/sweeper=study"),
        (
            "hydra.launcher=null",
            "hydra.launcher: got null; takes hydra/launcher=basic|joblib|submitit_local|submitit_slurm",
        ),
        ("hydra.run=null", "hydra.run: has keys of its own; takes hydra.run.KEY=VALUE"),
        ("hydra.run.dir=null", "hydra.run.dir: got null; takes a text"),
        ("hydra.job_loging=null", "hydra.job_loging: unknown key"),
        (f"schedule.chunks=[{'1,' * 6000}1]", "schedule.chunks: got 12003 characters; takes at most 10000"),
        ("hydra.job.config_name=x", "hydra.job.config_name: is filled in by Hydra; takes --config-name NAME"),
        ("hydra.mode=MULTIRUN", "hydra.mode: is filled in by Hydra; takes -m"),
        ("hydra.runtime.output_dir=x", "hydra.runtime.output_dir: is filled in by Hydra; takes no value"),
        ("model=[1.5]", "model: got [1.5]; takes one of article, minlstm"),
        ("data={a:1}", "data: got {'a': 1}; takes one of article, market, prices"),
        ("data=[article,market]", "data: got ['article', 'market']; takes one of article, market, prices"),
        ("data.columns=a,b", "data.columns: got a,b, several values; takes a list, [a,b], or add -m"),
    ],
    ids=lambda value: value if "=" in value and ": " not in value else "",
)
def test_a_word_that_was_not_meant_so_gets_a_line(word: str, expected: str, here: Path) -> None:
    assert lines(word) == [expected]
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("word", ["study.storage=sqlite:///x.db", "cluster=server", "+hydra.job.env_set.A=b"])
def test_a_single_run_takes_where_studies_are_kept_and_what_hydra_takes(word: str, here: Path) -> None:
    assert checked([word], CONF) == [word]


def test_flags_words_and_values_are_told_at_once(here: Path) -> None:
    found = lines("--clip=3", "+epochs=1", "lr=1", "study.n_trials=3", "optimizer=adm", "clip=0", "clip_mode", "--cfg")
    starts = ["--clip=3: ", "--cfg: ", "+epochs: ", "clip_mode: ", "optimizer: ", "lr: ", "clip: "]
    assert len(found) == len(starts)
    assert all(any(line.startswith(start) for line in found) for start in starts)


def test_so_are_they_of_a_search(here: Path) -> None:
    found = lines("clip=1,-1", "-x", "-m", "+epochs=1", "clip_mode", "optimizer=adam,adm")
    assert [line.split(": ")[0] for line in found] == ["-x", "+epochs", "clip_mode", "clip", "optimizer"]
    assert [line.split(":")[0] for line in lines("-m", "clip_mode")] == ["clip_mode"]  # and not that nothing is swept


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("- a", "--config-name: {} holds a list; takes a file of KEY: VALUE"),
        ("a: [", "--config-name: {} cannot be read: "),
        ("defaults: [base, _self_]\noptimizer: 3", "In 'mine': ValidationError raised while composing config: "),
    ],
)
def test_a_file_that_is_no_config_gets_a_line(content: str, expected: str, here: Path) -> None:
    file = here / "mine.yaml"
    file.write_text(content)
    (line,) = lines("--config-dir", ".", "--config-name", "mine")
    assert line.startswith(expected.format(file))
    assert not line.endswith(":")


def test_a_launcher_whose_package_is_not_there_says_which(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "_chosen", compose._chosen.__wrapped__)  # what other tests composed had its launcher
    monkeypatch.setattr(hydra_node, "find_spec", lambda name: None)
    (line,) = lines("-m", "clip=1,2", "hydra/launcher=joblib")
    needs = "hydra/launcher: got {!r}, which needs {}: .venv/bin/python -m pip install {}"
    assert line == needs.format("joblib", *2 * ["hydra-joblib-launcher"])
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.delitem(launchers, "submitit_slurm.yaml")
    for more in (["-m", "clip=1,2"], []):
        (line,) = lines("cluster=slurm", *more)
        assert line == needs.format("submitit_slurm", *2 * ["hydra-submitit-launcher"])
