"""What is read from top to bottom fits in a head: no function of the source over 60 lines, no file over 400."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

LINES_OF_A_FUNCTION, LINES_OF_A_FILE = 60, 400
FILES = sorted((ROOT / "src").rglob("*.py"))


def functions(path: Path) -> list[tuple[str, int]]:
    """Each function of a file, inner ones and methods too, with its lines from ``def`` to its end."""
    return [
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_no_function_and_no_file_is_too_long(path: Path) -> None:
    assert {name: lines for name, lines in functions(path) if lines > LINES_OF_A_FUNCTION} == {}
    assert len(path.read_text().splitlines()) <= LINES_OF_A_FILE


def test_the_source_is_looked_at() -> None:
    assert {"fit.py", "sweep.py", "checks.py"} <= {path.name for path in FILES}
    assert "fit" in dict(functions(ROOT / "src" / "tbptt" / "runs" / "fit.py"))
