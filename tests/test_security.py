"""Nothing hostile gets in, no secret gets out."""

import ast
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import CONF, ROOT, SMALL
from forked import python
from omegaconf import DictConfig
from test_command_line import listing, refused

from tbptt.cli.command_line import checked
from tbptt.config.compose import CommandError, ConfigSource, composed
from tbptt.config.plain import rerunnable
from tbptt.config.schema import register
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.system.endings import failure_line
from tbptt.system.secrets import hide

SOURCES = [ROOT / "train.py", ROOT / "report.py", *sorted((ROOT / "src").rglob("*.py"))]

# --- the code -----------------------------------------------------------------------------------------------------

NEVER_IMPORTED = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "code"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "read_pickle", "to_pickle", "system", "popen", "instantiate"}


def is_harmless(call: ast.Call) -> bool:
    """``re.compile``, and ``network.eval()``, which is a mode."""
    text = ast.unparse(call)
    return text.startswith("re.compile(") or text.endswith(".eval()")


def names_called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id, node
            elif isinstance(node.func, ast.Attribute) and not is_harmless(node):
                yield node.func.attr, node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_code_unpickles_or_evaluates_what_it_reads(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & NEVER_IMPORTED
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in NEVER_IMPORTED
    for name, call in names_called(tree):
        assert name not in NEVER_CALLED, f"{path.name}:{call.lineno}"
        arguments = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert "shell" not in arguments, f"{path.name}:{call.lineno}"
        if ast.unparse(call.func) == "torch.load":
            assert arguments.get("weights_only") == "True", f"{path.name}:{call.lineno}"
        if ast.unparse(call.func) in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            raise AssertionError(f"{path.name}:{call.lineno}")


def test_the_look_at_the_code_would_find_it() -> None:
    tree = ast.parse("import torch\ntorch.load('x')\npd.read_pickle('y')\neval('1')\nre.compile('z')")
    assert [name for name, _ in names_called(tree)] == ["load", "read_pickle", "eval"]


# --- configs ------------------------------------------------------------------------------------------------------

WITNESS = "was_run"
EVIL = [
    "torch.load",
    "pandas.read_pickle",
    "joblib.load",
    "builtins.exec",
    "torch.utils.cpp_extension.load",
    "os.system",
]
PLACES = {  # where in a shared file something might be started by name
    "a callback": "hydra: {callbacks: {x: {_target_: TARGET}}}",
    "a launcher": "hydra: {launcher: {_target_: TARGET}}",
    "a sweeper": "hydra: {sweeper: {_target_: TARGET}}",
    "a log handler's class": "hydra: {job_logging: {handlers: {file: {class: TARGET}}}}",
    "a log handler's factory": "hydra: {hydra_logging: {handlers: {console: {(): TARGET}}}}",
    "a log stream": "hydra: {job_logging: {handlers: {console: {stream: ext://TARGET}}}}",
    "the model": "model: {_target_: TARGET}",
    "the optimizer": "optimizer: {_target_: TARGET, name: adam}",
    "a key of its own": "thing: {_target_: TARGET, _args_: [was_run]}",
    "a list": "model: {hidden: [{_target_: TARGET}]}",
}


def shared(folder: Path, content: str, name: str = "shared") -> list[str]:
    """A config that somebody sent, as it is used."""
    (folder / f"{name}.yaml").write_text(
        "defaults: [base, {sweep: null}, {override hydra/sweeper: study}, _self_]\n" + content
    )
    return ["--config-dir", str(folder), "--config-name", name]


@pytest.mark.parametrize(
    ("place", "target"),
    [*((place, EVIL[i % len(EVIL)]) for i, place in enumerate(PLACES)), *(("a key of its own", t) for t in EVIL)],
)
def test_no_class_but_our_own_is_started_from_a_file(place: str, target: str, here: Path) -> None:
    (here / "from").mkdir()
    words = shared(here / "from", PLACES[place].replace("TARGET", target))
    for more in ([], ["-m", "clip=1,2"]):
        assert refused([*words, *more])


@pytest.mark.parametrize("target", EVIL)
@pytest.mark.parametrize(
    "word", ["+hydra.callbacks.x._target_=T", "hydra.launcher._target_=T", "+model._target_=T", "+x._target_=T"]
)
def test_nor_from_the_command_line(word: str, target: str, here: Path) -> None:
    (line,) = refused([word.replace("=T", f"={target}")])
    assert line.split(":")[0] == word.lstrip("+").split("=")[0]


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("hydra: {run: {dir: /tmp/elsewhere}}", "hydra.run.dir"),
        ("hydra: {job: {chdir: true}}", "hydra.job.chdir"),
        ("hydra: {job: {env_set: {LD_PRELOAD: /tmp/evil.so}}}", "hydra.job.env_set.LD_PRELOAD"),
        ("hydra: {output_subdir: x}", "hydra.output_subdir"),
        ("hydra: {job_logging: {handlers: {file: {filename: /tmp/x}}}}", "hydra.job_logging.handlers.file.filename"),
        ("hydra: {searchpath: ['file:///tmp']}", "hydra.searchpath"),
    ],
    ids=lambda text: text,
)
def test_a_file_cannot_say_what_hydra_does(content: str, key: str, here: Path) -> None:
    (here / "from").mkdir()
    lines = refused(shared(here / "from", content))
    assert key in [line.split(":")[0] for line in lines]


def test_nor_can_a_group_in_that_folder(here: Path) -> None:
    (here / "from" / "sweep").mkdir(parents=True)
    evil = "# @package _global_\nhydra: {job: {env_set: {LD_PRELOAD: /tmp/evil.so}}}\nspace: {clip: [1, 2]}\n"
    (here / "from" / "sweep" / "evil.yaml").write_text(evil)
    for way in (["--config-dir", "from"], [f"hydra.searchpath=[file://{here}/from]"]):
        (line,) = refused(["-m", "sweep=evil", *way])
        assert line.startswith("hydra.job.env_set")


def test_the_person_at_the_command_line_says_what_hydra_does(here: Path) -> None:
    (here / "from").mkdir()
    words = [*shared(here / "from", "clip: 2.0"), "hydra.verbose=true", "+hydra.job.env_set.A=b"]
    assert checked(words, CONF)[-2:] == words[-2:]


@pytest.mark.parametrize("flag", [["--config-path", "/tmp"], ["-cp", "/tmp"], ["--experimental-rerun", "job.pickle"]])
def test_flags_that_would_load_other_code_or_configs_are_refused(flag: list[str], here: Path) -> None:
    (line,) = refused(flag)
    assert line.startswith(("--config-path: ", "--experimental-rerun: "))
    assert line.endswith("takes --config-dir FOLDER, whose files are data")


@pytest.mark.parametrize("uri", ["http://evil.example", "https://evil.example/${oc.env:HOME}"])
def test_a_file_cannot_send_credentials_to_a_server_of_its_own(uri: str, here: Path) -> None:
    (here / "from").mkdir()
    words = shared(here / "from", f"tracking: {{uri: '{uri}'}}")
    (line,) = refused(words)
    assert line.startswith("tracking.uri: a file in --config-dir names the server ")
    assert os.environ["HOME"] not in line
    assert checked([*words, "tracking.uri=http://mine.example"], CONF)


def test_the_server_of_the_shipped_config_is_yours_also_in_a_file(here: Path) -> None:
    shutil.copytree(CONF, here / "conf")
    base = here / "conf" / "base.yaml"
    base.write_text(base.read_text().replace("sqlite:///mlruns/mlflow.db", "http://mine.example"))
    (here / "from").mkdir()
    assert checked(shared(here / "from", "tracking: {uri: http://mine.example}"), here / "conf")
    with pytest.raises(CommandError):
        checked(shared(here / "from", "tracking: {uri: http://evil.example}"), here / "conf")


def test_evil_config_does_nothing_when_it_is_given_to_the_real_command(here: Path) -> None:
    (here / "from").mkdir()
    content = f"hydra: {{callbacks: {{x: {{_target_: subprocess.Popen, args: [touch, {here}/{WITNESS}]}}}}}}"
    words = shared(here / "from", content)
    before = listing(here)
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "hydra.callbacks" in done.stderr
    assert listing(here) == before


# --- secrets ------------------------------------------------------------------------------------------------------

CANARY = "c4n4ry-5ecr3t"


@pytest.mark.parametrize(
    "word",
    ["tracking.experiment=${oc.env:CANARY}", "study.name=${oc.env:CANARY}", "+note=${oc.env:CANARY}",
     "data.columns=['${oc.env:CANARY}']", "tracking.experiment=${tracking.uri}", "clip=${oc.env:CANARY}"],
)  # fmt: skip
def test_what_would_be_kept_does_not_come_from_the_environment(
    word: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", CANARY)
    data = ["data=prices", "data.path=x.csv"] if "columns" in word else []
    lines = refused([word, "tracking.uri=${oc.env:CANARY}", *data])
    key = word.lstrip("+").split("=")[0]
    assert any(line.startswith(f"{key}: ") for line in lines)
    assert CANARY not in "\n".join(lines)


@pytest.mark.parametrize(
    "content",
    [
        "study: {name: env}\ntracking: {experiment: 'x-${oc.${study.name}:CANARY}'}",
        "study: {name: 'oc.env'}\ntracking: {experiment: '${${study.name}:CANARY}'}",
        "study: {best_of: CANARY}\ntracking: {experiment: '${oc.env:${study.best_of}}'}",
        "study: {name: '${oc.decode:${oc.env:CANARY}}'}",
        "data: {name: article, frequencies: ['${oc.env:CANARY}', 1]}",
        "space: {clip: ['${oc.env:CANARY}']}",
        "clip: ${oc.env:CANARY}",
        "tracking: {experiment: '${oc.env:MLFLOW_EXPERIMENT_NAME,a}${oc.env:CANARY}'}",
    ],
)
def test_how_a_variable_is_asked_for_makes_no_difference(
    content: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", CANARY)
    (here / "from").mkdir()
    for more in ([], ["-m", "optimizer=adam,sgd"]):
        said = "\n".join(refused([*shared(here / "from", content), *more]))
        assert "from the environment, which would be kept with the run" in said
        assert CANARY not in said


@pytest.mark.parametrize(
    "uri",
    [f"http://me:{CANARY}@127.0.0.1:1", f"https://{CANARY}@127.0.0.1:1", f"http://127.0.0.1:1/?token={CANARY}",
     f"postgresql://me:{CANARY}@127.0.0.1:1/x", f"postgresql://127.0.0.1:1/x?sslpassword={CANARY}"],
)  # fmt: skip
@pytest.mark.parametrize("key", ["tracking.uri", "study.storage"])
def test_a_secret_in_a_uri_is_refused_and_not_shown(
    uri: str, key: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URI", uri)
    for word in (f"{key}='{uri}'", f"{key}=${{oc.env:URI}}"):
        lines = refused([word])
        assert any(line.startswith(f"{key}: ") for line in lines)
        assert CANARY not in "\n".join(lines)


OF_A_URL = "got a URL with a password or token in it, which would be kept; takes one without"
URLS = [
    f"https://me:{CANARY}@host/x.csv",
    f"https:/me:{CANARY}@host/x.csv",  # as a path is shown
    f"https://me:p@{CANARY}/@host/x.csv",
    f"https://{CANARY}@host/x.csv",
    f"s3://me:{CANARY}@host/x.csv",
    f"https://host/x.csv?X-Amz-Signature={CANARY}",
    f"https://host/x.csv?a=b&access_token={CANARY}",
    f"https://host/x.csv#access-key={CANARY}",
]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tracking.experiment='URL'"], f"tracking.experiment: {OF_A_URL}"),
        (["resume='URL'"], f"resume: {OF_A_URL}"),
        (["data=prices", "data.path='URL'"], "data.path: "),
        (["data=prices", "data.path=x.csv", "data.columns=['URL']"], f"data.columns: {OF_A_URL}"),
        (["hydra.job.name='URL'"], "hydra.job.name: is filled in by Hydra"),
        (["+hydra.job.env_set.A='URL'"], f"hydra.job.env_set.A: {OF_A_URL}"),
        (["clip='URL'"], "clip: "),
        (["nothing='URL'"], "nothing: "),
        (["URL"], ""),
        (["--config-dir", "URL"], "--config-dir: "),
        (["--config-name=URL"], ""),
        (["optimizer='URL'"], "optimizer: "),
        (["+optimizer.x='URL'"], "optimizer.x: "),
        (["-m", "clip=1,2", "study.best_of='URL'"], "study.best_of: "),
        (["-m", "data=prices", "data.path='URL',x.csv"], "data.path: "),
        (["-m", "clip='URL',1"], "clip: "),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_url_with_a_password_is_refused_wherever_it_is_typed_and_not_shown(
    words: list[str], line: str, here: Path
) -> None:
    lines = refused([word.replace("URL", URLS[len(line) % len(URLS)]) for word in words])
    assert any(said.startswith(line) for said in lines)
    assert CANARY not in "\n".join(lines)


def test_a_secret_by_its_name_is_not_typed_for_hydra_to_keep(here: Path) -> None:
    (line,) = refused([f"+hydra.job.env_set.MY_API_KEY={CANARY}"])
    said = "got a secret (its name says so), which would be kept; takes none: export it"
    assert line == f"hydra.job.env_set.MY_API_KEY: {said}"


def test_errors_that_show_a_url_are_shown_without_its_password() -> None:
    """As those of pandas, SQLAlchemy and requests do."""
    for url in URLS:
        assert CANARY not in failure_line(RuntimeError(f"cannot read <{url}>: (403) for url: {url}"))
    plain = "http://host:5000/api failed at 12:30, sqlite:////a:b/c@d.db was there, as was x@y.z?"
    assert hide(plain) == plain


def everything(folder: Path) -> dict[str, bytes]:
    """All that is left in a folder: names and contents, archives and databases as text too."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".db":
                with closing(sqlite3.connect(path)) as database:
                    content += "\n".join(database.iterdump()).encode()
            found[str(path.relative_to(folder))] = content
    return found


CALLS_ARE_NOTED = """
import pathlib, socket
ask = socket.getaddrinfo
def noted(host, *more, **also):
    if str(host) not in ("127.0.0.1", "localhost"):
        pathlib.Path(__file__).with_name(f"called {host}").touch()
        raise OSError("no network here")
    return ask(host, *more, **also)
socket.getaddrinfo = noted
"""


def test_a_run_and_a_study_leave_no_secret_and_call_nobody(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp(CANARY)
    quiet = tmp_path_factory.mktemp("home")
    (quiet / "sitecustomize.py").write_text(CALLS_ARE_NOTED)
    prices = elsewhere / "prices.csv"
    prices.write_text("a\n" + "\n".join(str(100 + i % 7 + i % 5) for i in range(300)))
    environment = {"CANARY": CANARY, "FOLDER": str(elsewhere), "MLFLOW_TRACKING_PASSWORD": CANARY, "PGPASSWORD": CANARY}
    few = [word for word in SMALL if word.split("=")[0] not in ("data.n_series", "data.val_series", "data.length")]
    words = [*few, "data=prices", "data.path=${oc.env:FOLDER}/prices.csv", "progress=plain", "epochs=4"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        env = dict(os.environ)
        env |= {"HOME": str(quiet), "PYTHONPATH": os.pathsep.join([str(quiet), os.environ.get("PYTHONPATH", "")])}
        for name in (
            "PYTEST_CURRENT_TEST",
            "PYTEST_VERSION",
            "CI",
            *(n for n in env if n.startswith(("GITHUB", "XDG"))),
        ):
            env.pop(name, None)  # where libraries know that they are tested, they call nobody
        train = [sys.executable, str(ROOT / "train.py")]
        done = subprocess.run([*train, *words], capture_output=True, text=True, cwd=here, env=env)
        assert done.returncode == 0, done.stderr
        # Within a study the file goes away: its trials fail, with the path in their errors and tracebacks.
        study = [*train, "-m", *words, "clip=1,2", "study.name=leaky"]
        done_study = subprocess.run(study, capture_output=True, text=True, cwd=here, env=env)
        assert done_study.returncode == 0, done_study.stderr
        prices.unlink()
        gone = subprocess.run([*train, *words], capture_output=True, text=True, cwd=here, env=env)
        assert gone.returncode == 2
        assert gone.stderr.startswith("data.path: $FOLDER/prices.csv does not exist")
        away = ["tracking.uri=http://127.0.0.1:1/${oc.env:CANARY}"]
        wrong = subprocess.run([*train, *SMALL, *away], capture_output=True, text=True, cwd=here, env=env)
        assert wrong.returncode == 1
        assert "$CANARY" in wrong.stderr
    for each in (done, done_study, gone, wrong):
        assert CANARY not in each.stdout + each.stderr
    assert [path.name for path in quiet.glob("called *")] == []
    assert not list(quiet.rglob("*mlflow*"))  # an installation's number
    left = everything(here)
    assert len(left) > 20
    assert any(b"${oc.env:FOLDER}" in content for content in left.values())  # as it was typed
    of_models = {name: content for name, content in left.items() if "/artifacts/models/" in f"/{name}"}
    written = {"MLmodel", "conda.yaml", "input_example.json", "model.ckpt", "requirements.txt"}
    assert written <= {Path(name).name for name in of_models}
    assert len([name for name in of_models if name.endswith("/MLmodel")]) == 3  # of the run and of two trials
    for folder in (here, elsewhere, quiet, ROOT, Path(sys.prefix)):
        assert [name for name, content in of_models.items() if str(folder).encode() in content] == []
    assert [name for name, content in left.items() if CANARY.encode() in content or CANARY in name] == []


def test_a_failure_that_shows_a_secret_is_kept_without_it(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = f"{CANARY}-of-another-kind"
    monkeypatch.setenv("SOME_TOKEN", secret)

    def fails(epoch: Epoch) -> bool:
        raise RuntimeError(f"401 for {secret}")

    with pytest.raises(RuntimeError) as caught:
        fit(small(), RunContext(after_epoch=fails))
    assert failure_line(caught.value).startswith("RuntimeError: 401 for $SOME_TOKEN")
    (kept,) = here.rglob("traceback.txt")
    assert "401 for $SOME_TOKEN" in kept.read_text()
    assert [name for name, content in everything(here).items() if CANARY.encode() in content] == []


def test_servers_in_the_docs_and_scripts_listen_on_loopback_only() -> None:
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "Makefile", *(ROOT / "src").rglob("*.py")]
    for path in texts:
        for line in path.read_text().splitlines():
            assert "0.0.0.0" not in line, f"{path.name}: {line}"


# --- clusters -------------------------------------------------------------------------------------------------


@pytest.fixture
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TBPTT_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def composed_with(*words: str) -> tuple[Any, list[str]]:
    register()
    source = ConfigSource(CONF)
    with source.opened():
        return composed(source, list(words))


def test_where_the_servers_are_is_shown_unless_the_environment_says_it(
    no_servers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, wrong = composed_with("cluster=server")
    assert wrong == []
    assert hide(cfg.tracking.uri) == "http://127.0.0.1:5001"
    assert cfg.study.storage == "postgresql+psycopg://tbptt@127.0.0.1:5439/optuna"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking.example.org/of-ours")
    cfg, wrong = composed_with("cluster=server")
    assert wrong == []
    assert cfg.tracking.uri == "https://tracking.example.org/of-ours"
    assert hide(cfg.tracking.uri) == "$MLFLOW_TRACKING_URI"


def test_a_cluster_may_be_typed_beside_a_config_from_elsewhere(here: Path, no_servers: None) -> None:
    """Its launcher is the command line's doing, not the file's."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    Path("best.yaml").write_text(rerunnable(composed_with("clip=0.25")[0]))
    words = ["--config-dir", ".", "--config-name", "best", "-m", "clip=1,2", "tracking.uri=http://127.0.0.1:5001"]
    assert checked([*words, "cluster=slurm", "hydra.launcher.partition=gpu"], CONF)


@pytest.mark.parametrize("cluster", ["local", "server", "slurm"])
def test_every_shipped_cluster_passes_the_checks(no_servers: None, here: Path, cluster: str) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    assert composed_with(f"cluster={cluster}")[1] == []
    assert checked(["-m", f"cluster={cluster}", "clip=1,2"], CONF)


def test_what_a_file_is_called_cannot_speak_to_the_terminal(here: Path) -> None:
    """Names from a file from elsewhere may hold escape codes; a line that shows one shows a question mark there."""
    Path("a.csv").write_bytes(b"date,clo\x1b[31mse\n2024-01-02,1.5\n2024-01-03,abc\n2024-01-04,2.5\n")
    done = python(str(ROOT / "train.py"), "data=prices", "data.path=a.csv", cwd=here)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "clo?[31mse" in done.stderr
