"""What a -m command means: the whole sweep grammar, every value through the schema, its budget, its name."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise, takewhile
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from conftest import CONF
from omegaconf import DictConfig, OmegaConf

from tbptt.config.compose import CommandError, ConfigSource, parsed
from tbptt.config.schema import register
from tbptt.options.option import GROUPS
from tbptt.options.values import Value
from tbptt.studies.plan import Plan, make_plan
from tbptt.studies.space import IntRange
from tbptt.studies.worker_spec import WorkerSpec
from tbptt.training.options import GeometricSchedule
from tbptt.training.schedule import ChunkSchedule, geometric_chunks

SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))
Planned = Callable[..., Plan]


class Remembering(ConfigSource):
    """Composes each point once for all tests: it takes 0.15 s, and they have many in common."""

    remembered: ClassVar[dict[tuple[str, ...], DictConfig]] = {}

    def compose(self, overrides: Iterable[str]) -> DictConfig:
        words = tuple(overrides)
        if words not in self.remembered:
            self.remembered[words] = super().compose(words)
        return self.remembered[words]


@pytest.fixture(scope="module")
def source() -> Iterator[ConfigSource]:
    register()
    opened = Remembering(CONF)
    with opened.opened():
        yield opened


@pytest.fixture
def plan(source: ConfigSource, here: Path) -> Iterator[Planned]:
    """Plans what would be typed after -m, and sees that nothing is written for it."""

    def planned(*words: str) -> Plan:
        overrides, lines = parsed(words)
        assert not lines
        return make_plan(source, overrides)

    yield planned
    assert list(here.iterdir()) == []


def values(plan: Plan, key: str) -> list[Value]:
    """A key's values, in the order in which they are run."""
    return list(dict.fromkeys(point[key] for point in plan.points()))


def lines_of(plan: Planned, *words: str) -> list[str]:
    with pytest.raises(CommandError) as error:
        plan(*words)
    return error.value.lines


# --- the grammar ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        (["clip=0.5,1,2"], "clip", [0.5, 1.0, 2.0]),
        (["clip=choice(2,0.5)"], "clip", [2.0, 0.5]),
        (["clip=1,1.0,1e0"], "clip", [1.0]),
        (["clip=null,1"], "clip", [None, 1.0]),
        (["clip=sort(3,1,2)"], "clip", [1.0, 2.0, 3.0]),
        (["epochs=range(1,4)"], "epochs", [1, 2, 3]),
        (["epochs=range(2,9,3)"], "epochs", [2, 5, 8]),
        (["epochs=range(9,2,-3)"], "epochs", [9, 6, 3]),
        (["clip=range(1,4)"], "clip", [1.0, 2.0, 3.0]),
        (["clip=range(1,3,0.5)"], "clip", [1.0, 1.5, 2.0, 2.5]),
        (["epochs=interval(2,5)"], "epochs", [2, 3, 4, 5]),
        (["task.horizon=auto,3"], "data.horizon", ["auto", 3]),
        (["clip_mode=norm,std"], "clip_mode", ["norm", "std"]),
        (["model.hidden=[8],[4,4]"], "model.hidden", ["[8]", "[4, 4]"]),
        (["schedule.chunks=choice([10,2],[1])"], "schedule.chunks", ["[10, 2]", "[1]"]),
        (["optimizer=rmsprop,adam"], "optimizer", ["rmsprop", "adam"]),
        (["optimizer=glob(*)"], "optimizer", sorted(GROUPS["optimizer"])),
        (["optimizer=glob(ada*,exclude=adam*)"], "optimizer", ["adadelta", "adagrad"]),
        (["optimizer=sgd,momentum", "optimizer.momentum=0,0.5"], "optimizer.momentum", [0.0, 0.5]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else value,
)
def test_every_form_of_sweep_means_its_values(plan: Planned, words: list[str], key: str, expected: list[Value]) -> None:
    planned = plan(*words)
    found = values(planned, key)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))
    assert planned.is_grid
    assert planned.n_trials == planned.size


@pytest.mark.parametrize(
    ("words", "described"),
    [
        ("clip=interval(0.1,10)", "interval(0.1, 10)"),
        ("clip=interval(1,10)", "interval(1, 10)"),
        ("clip=tag(log,interval(0.1,10))", "interval(0.1, 10), log"),
        ("epochs=tag(log,interval(2,400))", "whole numbers 2 to 400, log"),
        ("epochs=tag(log,range(2,401))", "whole numbers 2 to 400, log"),
    ],
)
def test_intervals_and_logarithms_are_searched_as_they_are(plan: Planned, words: str, described: str) -> None:
    planned = plan(words, "study.n_trials=5")
    assert list(planned.space.describe().values()) == [described]
    assert planned.n_trials == 5
    assert not planned.is_grid


def test_the_last_swept_key_varies_fastest(plan: Planned) -> None:
    planned = plan("optimizer=adam,rmsprop", "clip=0.5,1,2")
    assert [planned.space.overrides(point) for point in planned.points()] == [
        [f"optimizer={o}", f"clip={c}"] for o in ("adam", "rmsprop") for c in (0.5, 1.0, 2.0)
    ]


@pytest.mark.parametrize("words", ["epochs=shuffle(range(1,40))", "epochs=shuffle(1,2,3,4,5,6)"])
def test_a_shuffled_order_is_the_same_each_time(plan: Planned, words: str) -> None:
    orders = [values(plan(words, "clip=2.0"), "epochs") for _ in range(2)]
    assert orders[0] == orders[1]
    assert orders[0] != sorted(orders[0], key=str)
    assert sorted(orders[0]) == list(range(1, len(orders[0]) + 1))
    assert orders[0] != values(plan(words, "clip=3.0"), "epochs")  # another study, another order


def test_a_list_of_names_is_a_value(
    plan: Planned, tmp_path_factory: pytest.TempPathFactory, source: ConfigSource
) -> None:
    path = tmp_path_factory.mktemp("data") / "prices.csv"
    rows = [f"{100 + i % 7},{50 + i % 5},{20 + i % 3}" for i in range(300)]
    path.write_text("\n".join(["S&P 500,d'or,c", *rows]))
    data = ["data=prices", f"data.path={path}", "data.window=8", "task.gamma=0.5"]
    planned = plan(*data, "data.columns=['S&P 500',c],[\"d'or\"],null")
    read = [source.compose([*planned.fixed, *planned.space.overrides(p)]).data.columns for p in planned.points()]
    assert read == [["S&P 500", "c"], ["d'or"], None]


# --- what is refused --------------------------------------------------------------------------------------------

BILLION = ["epochs=range(1,1001)", "eval_every=range(1,1001)", "data.seed=range(1,1001)"]
NO_TRIALS = "study.n_trials: missing; takes a whole number from 1, as the space is not finite"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["clip=0.5,abc,-1"], ["clip: got 'abc'", "clip: got -1.0"]),
        (["clip=interval(0,1)"], ["clip: got 0.0; takes a number above 0"]),
        (["clip=interval(2,1)"], ["clip: got interval(2,1); takes two rising numbers"]),
        (["clip=tag(log,interval(-1,1))"], ["clip: got tag(log,interval(-1,1)); takes two rising numbers, above 0"]),
        (["clip=range(3,3)"], ["clip: got range(3,3), which is empty"]),
        (["epochs=range(0,9)"], ["epochs: got 0; takes a whole number from 1"]),
        (["epochs=interval(2.5,5)"], ["epochs: got 2.5; takes a whole number"]),
        (["schedule.chunks=[10],[20001]"], ["schedule.chunks: got [20001]; takes at most as many chunks"]),
        (["schedule.chunks=[a],[1]"], ["schedule.chunks: got ['a']; takes a list of whole numbers"]),
        (["optimizer=adam,rmsporp"], ["optimizer: got 'rmsporp'; takes one of"]),
        (["optimizer=glob(z*)"], ["optimizer: got no values"]),
        (["optimizer=adam,sgd", "optimizer.momentum=0,0.5"], ["optimizer.momentum: a key of optimizer="]),
        (["foo=1,2"], ["foo: unknown key"]),
        (["clip=1,2", "cilp=3"], ["cilp: unknown key; did you mean clip?"]),
        (["clip=tag(linear,choice(1,2))"], ["clip: got tag 'linear'; takes log"]),
        (["clip=tag(log,choice(1,2))"], ["clip: got tag log on a choice"]),
        (["epochs=tag(log,range(0,9))"], ["epochs: got tag(log,range(0,9)); takes with log a range above 0"]),
        (["epochs=tag(log,range(2,9,2))"], ["epochs: got tag(log,range(2,9,2)); takes with log a range above 0 in"]),
        (["clip=1,2", "clip=3,4"], ["clip: swept twice; takes one sweep"]),
        (["++clip=1,2"], ["++clip: cannot be searched; takes the key of the config without + or ~"]),
        (["seed=1,2"], ["seed: is never searched; takes study.seeds=[0,1,2], which trains each point once a seed"]),
        (["study.n_trials=2,3"], ["study.n_trials: is never searched"]),
        (["study/sampler=tpe,gp"], ["study/sampler: is never searched"]),
        (["tracking.experiment=a,b"], ["tracking.experiment: is never searched"]),
        (["objective=val/loss,train/loss"], ["objective: is never searched"]),
        (["sweep=clip,schedule"], ["sweep: is never searched"]),
        (["hydra.job.name=a,b"], ["hydra.job.name: is never searched"]),
        (["clip=1"], ["-m: nothing is swept"]),
        (["clip=interval(0.1,1)"], [NO_TRIALS]),
        (["clip=range(1,1000000000)"], ["clip: got range(1,1000000000); takes at most 1000000 values, or an interval"]),
        (["clip=range(1,999999)"], ["clip: got 999998 values; takes at most 1000, or an interval"]),
        ([f"clip={','.join(map(str, range(1, 1003)))}"], ["clip: got 1002 values; takes at most 1000"]),
        (BILLION, ["study.n_trials: missing; takes fewer than the 1000000000 points of the space"]),
        ([*BILLION, "study.n_trials=2000000000"], ["study.n_trials: got 2000000000; takes fewer than the 1000000000"]),
        (["clip=0.1,1", "study.n_trials=0"], ["study.n_trials: got 0"]),
        (["clip=0.1,1", "study.workers=0", "epochs=0"], ["epochs: got 0", "study.workers: got 0"]),
        (
            ["clip=0.1,1", "study/sampler=cmaes", "objective=[val/loss,time/train_seconds]"],
            ["study/sampler: got 'cmaes', which takes one objective"],
        ),
    ],
    ids=lambda value: " ".join(value) if "=" in value[0] else "",
)
def test_what_is_wrong_is_said_in_a_line_each(plan: Planned, words: list[str], expected: list[str]) -> None:
    found = lines_of(plan, *words)
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_of_a_billion_points_some_can_be_run(plan: Planned) -> None:
    planned = plan(*BILLION, "study.n_trials=1000000")
    assert (planned.size, planned.n_trials, planned.is_grid) == (10**9, 10**6, False)
    assert plan("epochs=range(1,20001)").is_grid


def test_an_infinite_space_can_do_with_a_time_limit(plan: Planned) -> None:
    assert plan("clip=interval(0.1,1)", "study.timeout=60").n_trials is None


# --- the budget -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "total", "is_grid"), [("null", 6, True), (4, 4, False), (6, 6, True), (99, 6, True)])
def test_a_finite_space_ends_with_its_points_at_most(plan: Planned, asked: object, total: int, is_grid: bool) -> None:
    planned = plan("optimizer=adam,sgd", "clip=1,2,3", f"study.n_trials={asked}")
    assert (planned.size, planned.n_trials, planned.is_grid) == (6, total, is_grid)


# --- identity ---------------------------------------------------------------------------------------------------

COMMAND = ["clip=0.5,1"]


def test_the_name_is_the_swept_keys_and_a_digest(plan: Planned) -> None:
    name = plan(*COMMAND, "schedule.chunks=[1],[2]").name
    assert re.fullmatch(r"clip\+chunks-[0-9a-f]{8}", name)
    assert plan(*COMMAND, "study.name='my study'").name == "my study"


@pytest.mark.parametrize(
    "also",
    [
        ["study.n_trials=3"],
        ["study.workers=2", "study.retries=0", "study.dry_run=true"],
        ["study/sampler=gp"],
        ["study/pruner=asha"],
        ["tracking.experiment=other", "device=cpu", "threads=2", "progress=plain"],
        ["clip=1.0,5e-1"],
        ["epochs=50"],
    ],
    ids=" ".join,
)
def test_what_makes_no_other_study_makes_no_other_name(plan: Planned, also: list[str]) -> None:
    assert plan(*([] if "clip" in also[0] else COMMAND), *also).digest == plan(*COMMAND).digest


@pytest.mark.parametrize(
    ("words", "digest"),
    [
        ("clip=1,2", "83130c4a294375eb7820b0f6ac2ea97e3ea726bf294ffc70a52ba7512078c171"),
        ("optimizer=adamw clip=1,2", "ab2e5b8faac9cbd8e74d721f767d7f2361a7b825a75cf95ff6852bc5bc55be7f"),
        ("optimizer=adam,adamw optimizer.lr=0.1", "a08a7880c6faaeb51556be7f422a1d776f6ef3297187b8ee8787561a3eefb7b5"),
    ],
)
def test_a_study_of_before_there_were_some_keys_is_still_the_same(plan: Planned, words: str, digest: str) -> None:
    then = ["model.noise_from=pool", "lr_schedule=constant", "seed=2", "data.test_series=0"]
    assert plan(*words.split(), *then).digest == digest


def test_a_new_key_is_part_of_a_study_where_it_says_something_else(plan: Planned) -> None:
    before = plan("optimizer=adamw", "clip=1,2")
    assert not {"callback.name", "optimizer.decay_biases"} & set(before.spec["config"])
    other = plan("optimizer=adamw", "clip=1,2", "optimizer.decay_biases=false")
    assert other.spec["config"] == {**before.spec["config"], "optimizer.decay_biases": False}
    assert plan("optimizer=adamw", "clip=1,2", "optimizer.decay_biases=true").digest == before.digest
    swept = plan("optimizer=adamw", "optimizer.decay_biases=true,false")
    assert list(swept.space.describe()) == ["optimizer.decay_biases"]


@pytest.mark.parametrize(
    "also", ["study.seeds=[0,1]", "epochs=4", "seed=7", "data.seed=1", "clip_mode=std", "objective=train/loss"]
)
def test_what_makes_another_study_makes_another_name(plan: Planned, also: str) -> None:
    assert plan(*COMMAND, also).name != plan(*COMMAND).name


def test_what_the_swept_group_brings_is_not_part_of_the_config_but_what_is_typed_is(plan: Planned) -> None:
    assert plan("optimizer=adam,rmsprop").digest == plan("optimizer=rmsprop,adam").digest
    assert plan("optimizer=adam,rmsprop", "optimizer.lr=0.1").digest != plan("optimizer=adam,rmsprop").digest
    schedules = (
        [],
        ["lr_schedule=constant"],
        ["lr_schedule=by_chunk"],
        ["lr_schedule=by_chunk", "lr_schedule.cap=0.2"],
    )
    assert len({plan("optimizer=adam,rmsprop", *words).digest for words in schedules}) == 4
    assert plan("optimizer=adam,rmsprop", "lr_schedule=cosine,warmup").digest not in {
        plan("optimizer=adam,rmsprop", *words).digest for words in schedules
    }


def test_a_deadline_is_that_of_all_processes_of_a_machine_and_begins_anew_on_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("tbptt.studies.worker_spec.time.monotonic", lambda: now[0])
    monkeypatch.setattr("tbptt.studies.worker_spec.boot_id", lambda: "here")
    spec = WorkerSpec("conf", "config", None, [], "parent").within(60)
    now[0] += 10
    assert spec.own_deadline() == spec.given().own_deadline() == 1060
    assert spec.given().seconds == 50
    monkeypatch.setattr("tbptt.studies.worker_spec.boot_id", lambda: "there")  # whose clock counts from elsewhere
    now[0] = 5.0
    assert replace(spec, seconds=50).own_deadline() == 55
    assert WorkerSpec("conf", "config", None, [], "parent").within(None).given().own_deadline() is None


def test_a_worker_plans_the_same_study(plan: Planned, source: ConfigSource) -> None:
    words = ["schedule.chunks=[10],[2,1]", "epochs=shuffle(range(1,9))", "study.n_trials=5", 'study.name="it\'s"']
    spec = WorkerSpec(str(source.folder), source.name, None, words, "parent")
    there, here = spec.plan(), plan(*words)
    assert (there.name, there.digest, there.n_trials) == (here.name, here.digest, 5)
    assert there.points() == here.points()


# --- spaces declared in conf/sweep ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWEEPS)
def test_a_shipped_sweep_plans_as_it_stands(plan: Planned, name: str) -> None:
    planned = plan(f"sweep={name}")
    declared = yaml.safe_load((CONF / "sweep" / f"{name}.yaml").read_text())
    assert planned.n_trials == declared.get("study", {}).get("n_trials", planned.size)
    assert planned.n_trials is not None


@pytest.mark.parametrize("name", SWEEPS)
def test_a_shipped_sweep_says_what_it_asks_what_it_costs_and_what_to_expect(plan: Planned, name: str) -> None:
    first, *text = (CONF / "sweep" / f"{name}.yaml").read_text().splitlines()
    assert first == "# @package _global_"
    comments = list(takewhile(lambda line: line.startswith("#"), text))
    starts = [comments.index(next(c for c in comments if c.startswith(f"# {word}"))) for word in ("Asks", "Cost:")]
    starts.append(comments.index(next(c for c in comments if c.startswith("# Expect:"))))
    assert starts[0] == 0
    assert all(a < b for a, b in pairwise(starts))
    planned = plan(f"sweep={name}")
    trials, epochs = re.findall(r"(\d+) trials × (\d+) epochs", comments[starts[1]])[0]
    assert (int(trials), int(epochs)) == (planned.n_trials, planned.cfg.epochs)


def schedules(planned: Plan) -> list[list[int]]:
    """Every list of chunks that a plan can come to, from both families; the config's own where it searches none."""
    found: list[list[int]] = []
    dimensions = {d.key: d for d in planned.space.dimensions}
    if "schedule.chunks" in dimensions:
        found += [yaml.safe_load(str(value)) for value in dimensions["schedule.chunks"].values() or ()]
    if "schedule.start" in dimensions or "schedule.stages" in dimensions:
        start, stages = dimensions["schedule.start"], dimensions["schedule.stages"]
        assert isinstance(start, IntRange)
        assert isinstance(stages, IntRange)
        lists = {
            tuple(geometric_chunks(a, b))
            for a in range(start.low, start.high + 1)
            for b in range(stages.low, stages.high + 1)
        }
        found += map(list, sorted(lists))
    return found or [list(planned.cfg.schedule.chunks)]


@pytest.mark.parametrize("losses", ["never better", "always better", "not a number"])
@pytest.mark.parametrize("name", SWEEPS)
def test_every_schedule_of_a_shipped_sweep_reaches_its_last_stage(plan: Planned, name: str, losses: str) -> None:
    planned = plan(f"sweep={name}")
    cfg = planned.cfg
    loss = {"never better": lambda i: 1.0, "always better": lambda i: -i, "not a number": lambda i: math.nan}[losses]
    for stages in schedules(planned):
        schedule = ChunkSchedule.plan(
            stages, epochs=cfg.epochs, patience=cfg.schedule.patience, stage_epochs=cfg.schedule.stage_epochs
        )
        trained = set()
        for epoch in range(cfg.epochs):
            trained.add(schedule.stage)
            schedule.end_epoch(loss(epoch))
            if schedule.done:
                break
        assert trained == set(range(len(schedule.stages))), stages


def test_the_geometric_family_reaches_what_its_ends_promise(plan: Planned) -> None:
    lists = schedules(plan("sweep=future_work"))
    assert [2, 1] in lists
    assert any(first == 400 for first, *_ in lists)
    assert {len(stages) for stages in lists} >= set(range(2, 7))
    assert isinstance(OmegaConf.to_object(plan("schedule=geometric", "clip=1,2").cfg.schedule), GeometricSchedule)


def test_a_condition_binds_keys_to_the_option_that_brings_them(plan: Planned) -> None:
    planned = plan("sweep=future_work")
    assert {d.key: dict(d.when) for d in planned.space.dimensions} == {
        "optimizer": {},
        "clip": {},
        "clip_mode": {},
        "schedule": {},
        "schedule.chunks": {"schedule": "article"},
        "schedule.start": {"schedule": "geometric"},
        "schedule.stages": {"schedule": "geometric"},
    }


def test_a_typed_key_takes_the_place_of_the_declared(plan: Planned) -> None:
    fixed = plan("sweep=clip_schedule", "clip=3")
    assert list(fixed.space.describe()) == ["schedule.chunks"]
    assert fixed.cfg.clip == 3
    swept = plan("sweep=clip_schedule", "clip=1,2")
    assert (swept.size, swept.n_trials) == (8, 8)


SPACES: dict[str, tuple[str, list[str]]] = {
    "two deep": (
        "{optimizer: {sgd: {optimizer.momentum: 'choice(0,0.5)', schedule: {geometric: {schedule.start: 'range(2,4)'},"
        " full: }}, adam: }, clip: [1, null]}",
        [
            f"optimizer={o} {m}clip={c}{s}"
            for o, m, c, s in [
                *(
                    ("sgd", f"optimizer.momentum={m} ", c, s)
                    for m in ("0.0", "0.5")
                    for c in ("1.0", "null")
                    for s in (
                        " schedule=geometric schedule.start=2",
                        " schedule=geometric schedule.start=3",
                        " schedule=full",
                    )
                ),
                ("adam", "", "1.0", ""),
                ("adam", "", "null", ""),
            ]
        ],
    ),
    "one key under each option": (
        "{schedule: {full: {schedule.patience: [5, 6]}, geometric: {schedule.patience: [7]}}}",
        [
            "schedule=full schedule.patience=5",
            "schedule=full schedule.patience=6",
            "schedule=geometric schedule.patience=7",
        ],
    ),
}


@pytest.fixture
def declared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Plan]:
    """Plans a space of a folder of the user's own."""

    def planned(space: str, *words: str) -> Plan:
        folder = tmp_path_factory.mktemp("conf")
        (folder / "sweep").mkdir()
        (folder / "sweep" / "mine.yaml").write_text(f"# @package _global_\nspace: {space}\n")
        also = ConfigSource(CONF, "config", folder)
        register()
        with also.opened():
            return make_plan(also, parsed(["sweep=mine", *words])[0])

    return planned


@pytest.mark.parametrize("name", SPACES)
def test_a_declared_space_has_exactly_the_points_that_exist(declared: Callable[..., Plan], name: str) -> None:
    space, expected = SPACES[name]
    planned = declared(space)
    found = [sorted(planned.space.overrides(point)) for point in planned.points()]
    assert sorted(found) == sorted(sorted(line.split()) for line in expected)
    assert planned.size == len(expected)


@pytest.mark.parametrize(
    ("space", "line"),
    [
        ("{clip: 'choice(1,-2)'}", "clip: got -2.0"),
        ("{schedule: {nope: }}", "schedule: got 'nope'"),
        ("{schedule: {article: {schedule.start: [2]}}}", "schedule.start: a key of schedule=geometric"),
        ("{schedule: {geometric: {schedule.start: [0]}}}", "schedule.start: got 0"),
        ("{seed: [1, 2]}", "seed: is never searched"),
        ("{study.n_trials: [1, 2]}", "space: is never searched"),
        ("{clip: 'interval(1'}", "space: "),
        ("{schedule: {full: {clip: [1, 2]}}, clip: [3, 4]}", "clip: swept twice"),
    ],
)
def test_a_declared_space_is_checked_as_a_typed_one(declared: Callable[..., Plan], space: str, line: str) -> None:
    with pytest.raises(CommandError) as error:
        declared(space)
    assert error.value.lines[0].startswith(line)
