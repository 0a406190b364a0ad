"""docs/api.md names what is public, all of it, and each name does what its line says it is."""

import inspect
import re

import pytest
from conftest import ROOT

import tbptt
from tbptt import extend

PAGE = (ROOT / "docs" / "api.md").read_text()


def named(section: str) -> dict[str, str]:
    """The names in a section's table, and what stands behind each."""
    part = PAGE.split(f"## `{section}`\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w]+)(?:\([^`]*\))?` \| (.+) \|$", part, re.MULTILINE))


def test_the_page_has_every_public_name_and_no_other() -> None:
    assert sorted(named("tbptt")) == sorted(tbptt.__all__)
    public = [name for name in vars(extend) if not name.startswith("_")]
    assert sorted(named("tbptt.extend")) == sorted(public)


@pytest.mark.parametrize("name", tbptt.__all__)
def test_each_public_function_says_its_arguments_and_errors(name: str) -> None:
    function = getattr(tbptt, name)
    said = inspect.getdoc(function) or ""
    assert said, "has no docstring"
    assert {"Args:", "Returns:", "Raises:"} <= set(said.split()), said
    for argument in inspect.signature(function).parameters:
        assert re.search(rf"\b{argument}\b", said), f"does not say what {argument} is"


def test_dir_lists_the_public_names_before_they_are_imported() -> None:
    assert set(tbptt.__all__) <= set(dir(tbptt))
