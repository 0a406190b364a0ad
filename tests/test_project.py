"""The files about the project say the same thing: one licence, one ruff, one version."""

import re
import tomllib

import yaml
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_pre_commit_runs_the_ruff_that_is_locked() -> None:
    (locked,) = re.findall(r"^ruff==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["rev"] for repo in repos if "ruff" in repo["repo"]} == {f"v{locked}"}


def test_every_check_before_a_commit_is_one_of_ci() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["id"].replace("-", " ") if "ruff" in hook["id"] else hook["id"] for r in repos for hook in r["hooks"]]
    ci = (ROOT / ".ci" / "run").read_text()
    assert len(hooks) == 4
    for hook in hooks:
        assert f".venv/bin/{hook}" in ci, hook


def test_the_licence_that_is_named_is_the_one_that_is_there() -> None:
    (file,) = PROJECT["project"]["license-files"]
    assert (ROOT / file).read_text().startswith(f"{PROJECT['project']['license']} License\n")


def test_every_released_version_is_in_the_changelog_with_its_date() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", section) for section in sections[1:]]
    assert all(released)
    assert released[0] is not None
    assert released[0][1] == PROJECT["project"]["version"]
    dates = [match[2] for match in released if match]
    assert dates == sorted(dates, reverse=True)
