"""A study's name fits where it goes: a folder, its lock, the stores; and no two studies share one."""

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import CONF
from test_command_line import refused

from tbptt.cli.command_line import checked
from tbptt.config.names import STUDY_NAME, derived, numbered


@pytest.mark.parametrize(
    "name", ["a", "clip+chunks-0a1b2c3d", "my study", "é" * 100, "研" * 80, "🙂" * 60, "a.b", "x" * 100]
)
def test_a_right_name_makes_a_folder_and_a_lock_also_with_a_number(name: str, here: Path) -> None:
    assert STUDY_NAME.test(name)
    for each in (name, numbered(name, {name, *(f"{name[:90]}-{i}" for i in range(2, 1000))})):
        assert STUDY_NAME.test(each)
        (here / each).mkdir()
        (here / f".{each}.lock").touch()


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a/b",
        ".alive",
        ".slurm",
        "..",
        "a ",
        " a",
        "a.",
        "a\n",
        "a\tb",
        "研" * 90,
        "🙂" * 100,
        "x" * 101,
        "\udcff",
    ],
    ids=ascii,
)
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    assert not STUDY_NAME.test(name)


@pytest.mark.parametrize("name", ["研" * 90, "🙂" * 100, "a.", "'a '"], ids=ascii)
def test_it_is_refused_in_one_line_before_anything_is_made(name: str, here: Path) -> None:
    (line,) = refused(["-m", "clip=1,2", f"study.name={name}"])
    assert line.startswith("study.name: got '")
    assert "240 bytes" in line


@pytest.mark.parametrize("name", ["optuna.db", "optuna.db-journal", "optuna.db-wal", "Optuna.DB"])
def test_the_stores_own_files_are_no_names(name: str, here: Path) -> None:
    (line,) = refused(["-m", "clip=1,2", f"study.name={name}"])
    assert (
        line == f"study.name: got {name!r}, the name of a file or folder of the stores in sweeps/; takes another name"
    )


@pytest.mark.parametrize("name", ["mlflow.db-shm", "artifacts", "pending", "of-optuna"])
def test_nor_are_those_of_stores_that_were_put_there(name: str, here: Path) -> None:
    stores = ["tracking.uri=sqlite:///sweeps/mlflow.db", "study.storage=sqlite:///sweeps/of-optuna/x.db"]
    (line,) = refused(["-m", "clip=1,2", f"study.name={name}", *stores])
    assert line.startswith(f"study.name: got {name!r}, the name of a file or folder of the stores")
    assert checked(["-m", "clip=1,2", f"study.name={name}"], CONF)


def test_a_file_that_is_there_is_no_name_and_a_folder_is(here: Path) -> None:
    (here / "sweeps" / "before").mkdir(parents=True)
    (here / "sweeps" / "README.md").touch()
    (line,) = refused(["-m", "clip=1,2", "study.name=README.md"])
    assert line == "study.name: got 'README.md', and sweeps/README.md is a file; takes another name"
    assert checked(["-m", "clip=1,2", "study.name=before"], CONF)


def test_where_a_disk_ignores_case_another_studys_folder_is_not_taken(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "sweeps" / "Before").mkdir(parents=True)
    assert checked(["-m", "clip=1,2", "study.name=before"], CONF)  # here they are two
    stat = os.stat

    def ignoring_case(path: Any, **also: Any) -> os.stat_result:
        return stat(str(path).replace("sweeps/before", "sweeps/Before"), **also)

    monkeypatch.setattr(os, "stat", ignoring_case)
    (line,) = refused(["-m", "clip=1,2", "study.name=before"])
    assert line.startswith(
        "study.name: got 'before', which this disk does not tell from 'Before', the folder of another"
    )
    assert checked(["-m", "clip=1,2", "study.name=Before"], CONF)


def test_a_fresh_study_has_the_next_free_number() -> None:
    assert numbered("a", {"b"}) == "a"
    assert numbered("a", {"a", "a-2", "a-4"}) == "a-3"
    assert numbered("a", {"A", "a-2"}) == "a-3"  # to some disks these are one
    assert numbered("x" * 100, {"x" * 100}) == "x" * 98 + "-2"


def test_a_derived_name_is_the_keys_and_the_digest_and_fits_whatever_the_keys_are() -> None:
    assert derived(["clip", "chunks"], "0a1b2c3d4e") == "clip+chunks-0a1b2c3d"
    assert derived(["k" * 200], "0a1b2c3d4e") == "k" * 60 + "-0a1b2c3d"
    own = derived(["研" * 200], "0a1b2c3d4e")
    assert STUDY_NAME.test(own)
    assert own.endswith("-0a1b2c3d")
