"""The first day on a GPU: what was decided without one, measured part by part, what hurts most first.

    python benchmarks/gpu.py --first-day [--minutes M] [--only PART ...] [--device cpu --small] [--json FILE]

Each part is a process of its own with a time limit (first_day_parts.py), so that one that fails, hangs or loses the
GPU leaves the next one as it was. Each finding, with every repetition, is in FILE (results/gpu_first_day.json) as soon
as it is there. ``--device cpu --small`` tries the command itself on a machine without a GPU; its numbers mean nothing.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from machine import machine

RESULTS = Path(__file__).parent / "results" / "gpu_first_day.json"
PARTS = Path(__file__).parent / "first_day_parts.py"
LIMITS = {  # seconds; together more than all may take, as few parts need theirs
    "layouts": 40,
    "dtypes": 30,
    "waits": 60,
    "graphs": 60,
    "steps": 60,
    "updates": 100,
    "packed": 80,
    "packs": 80,
    "processes": 110,
    "streams": 60,
    "leaks": 40,
}
LAST = 1500  # characters of what a part that failed said


def run_part(command: Sequence[str], limit: float, found: Callable[[dict[str, Any]], None]) -> tuple[str, str]:
    """Run a part's command, and hand on each line of JSON that it prints.

    Returns ``done``, ``failed`` or ``out of time``, and the end of what it wrote to stderr.
    """
    late = threading.Event()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True) as process,
    ):

        def end() -> None:
            late.set()
            kill()

        def kill() -> None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and all that it has started

        timer = threading.Timer(limit, end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                try:
                    found(json.loads(line))
                except ValueError:
                    print(line, end="", flush=True)  # a library's
            status = process.wait()
        finally:
            timer.cancel()
            kill()  # what it may have left would disturb the next part
        said.seek(0)
        why = said.read()[-LAST:]
    return ("out of time" if late.is_set() else "failed" if status else "done"), why


class Record:
    """All findings, in a file that is whole at any time."""

    def __init__(self, path: Path, facts: dict[str, Any]):
        self._path, self.content = path, {**facts, "parts": {}}

    def begin(self, part: str) -> dict[str, Any]:
        """The entry of a part; :meth:`write` keeps what is put into it."""
        entry: dict[str, Any] = {"status": "under way", "findings": []}
        self.content["parts"][part] = entry
        self.write()
        return entry

    def write(self) -> None:
        beside = self._path.with_suffix(".part")
        beside.write_text(json.dumps(self.content, indent=1) + "\n")
        beside.replace(self._path)


def first_day(options: Any) -> int:
    """Run all parts; the exit status: 0 if all were done."""
    began = time.monotonic()
    path = options.json or RESULTS
    path.parent.mkdir(exist_ok=True)
    how = {"device": options.device, "small": options.small, "command": " ".join(sys.argv[1:])}
    record = Record(path, {"machine": machine(), **how})
    print(f"{machine()}; findings go to {path}", flush=True)
    for part in options.only or LIMITS:
        limit = min(LIMITS[part], 60 * options.minutes - (time.monotonic() - began))
        entry = record.begin(part)
        if limit < 5:
            entry["status"] = "left out: no time"
        else:
            started = time.monotonic()

            def found(finding: dict[str, Any], entry: dict[str, Any] = entry) -> None:
                entry["findings"].append(finding)
                record.write()
                print("  " + "  ".join(f"{key} {shown(value)}" for key, value in finding.items()), flush=True)

            print(f"\n{part}, up to {limit:.0f} s", flush=True)
            words = [part, "--device", options.device, *(["--small"] if options.small else [])]
            entry["status"], why = run_part([sys.executable, str(PARTS), *words], limit, found)
            entry["seconds"] = round(time.monotonic() - started, 1)
            if entry["status"] != "done":
                entry["said"] = why
        record.write()
        last = (entry.get("said", "").strip().splitlines() or [""])[-1]
        print(f"{part}: {entry['status']}" + (f" ({last})" if last else ""), flush=True)
    return 0 if all(entry["status"] == "done" for entry in record.content["parts"].values()) else 1


def shown(value: Any) -> str:
    """Of the repetitions the median; numbers with four digits."""
    if isinstance(value, list) and value and all(isinstance(each, float) for each in value):
        value = sorted(value)[len(value) // 2]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
