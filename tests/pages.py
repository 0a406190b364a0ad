"""What the report's tests read of a page, and a store of artifacts for it."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from studies import Away


class Page(HTMLParser):
    """What a browser makes of a page, without running it: text, elements, the cells of its tables."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.lines: list[str] = []
        self._table, self._open, self._in_cell = "", "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "table":
            self._table = dict(attrs).get("id") or "other"
            self.tables[self._table] = []
        if tag == "tr":
            self.tables[self._table].append([])
        if tag in ("td", "th"):
            self._in_cell = True
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            return
        self.lines.append(data)
        if self._in_cell:
            self.tables[self._table][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.lines).split())


def drawn_in(path: Path) -> Any:
    """What a page's scripts draw: figures, labels, curves."""
    (packed,) = re.findall(r'id="drawn">([^<]*)<', path.read_text(encoding="utf-8"))
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


class Artifacts:
    """A store of runs whose artifacts say whose they are."""

    uri, experiment, is_local = "sqlite:///mlruns/mlflow.db", "3", True
    client = Away()

    def __init__(self, folder: Path, runs: tuple[str, ...]):
        self.folder, self.runs = folder, runs

    def artifact_here(self, run_id: str, path: str) -> Path | None:
        return None

    def artifact(self, run_id: str, path: str, folder: Path | None = None) -> Path | None:
        if run_id not in self.runs:
            return None
        file = self.folder / "artifact"
        file.write_text(f"{path} of {run_id}")
        return file
