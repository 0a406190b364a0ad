"""The table of benchmarks/chunk_step.py, from what it measured or from the file that this was written to."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from floor import SETS, floor_ms, update_flops

Record = Mapping[str, Any]


def medians(contender: Record, key: str) -> list[float]:
    """Of each round, over the passes of all its processes."""
    return [statistics.median(one[key] for process in turn for one in process) for turn in contender["rounds"]]


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def times_floor(record: Record, contender: Record) -> list[float]:
    """Core time as a multiple of the floor, in each round; none where its numbers are not float32.

    The floor is by the best peak of the core, or by that of the instruction set that the contender is held to.
    """
    if not contender["float32"]:
        return []
    floors = [floor_ms(record["sizes"], contender["cell"], peaks, contender["set"]) for peaks in record["peaks"]]
    return [core / floor for core, floor in zip(medians(contender, "core_ms"), floors, strict=True)]


def row(record: Record, contender: Record, ours: Record) -> str:
    """A line of the table; ``ours``: what the ratios are to."""
    name = f"{contender['name']:<31}"
    if contender["missing"]:
        return name + contender["missing"]
    passes = [one for turn in contender["rounds"] for process in turn for one in process]
    walls, cores = ([one[key] for one in passes] for key in ("wall_ms", "core_ms"))
    ratios = [
        statistics.median(a / b for a, b in zip(medians(contender, key), medians(ours, key), strict=True))
        for key in ("wall_ms", "core_ms")
    ]
    columns = [statistics.median(walls), min(walls), max(walls), statistics.median(cores), *ratios]
    numbers = "".join(f"{value:9.2f}" for value in columns)
    if record["peaks"]:
        times = times_floor(record, contender)
        numbers += f"{statistics.median(times):9.2f}" if times else f"{'':>9}"
    facts = contender["facts"]
    losses = f"{facts['parameters']:12,}{facts['loss']:9.3f}{passes[-1]['loss']:9.3f}"
    return f"{name}{numbers}{losses}  {facts['versions'].get('layers', '')}".rstrip()


def for_a_page(record: Record) -> list[str]:
    """The table in Markdown, as docs/performance.md has it."""
    measured = [contender for contender in record["contenders"] if not contender["missing"]]
    lines = ["| | ms, median (smallest to largest) | times ours | times the floor |", "|---|---|--:|--:|"]
    above = ""
    for contender in measured:
        name = contender["name"]
        if name.startswith(" "):
            name = f"{above}, {name.strip()}"
        else:
            above = name.removesuffix(", no logger")
        walls = [one["wall_ms"] for turn in contender["rounds"] for process in turn for one in process]
        pairs = zip(medians(contender, "wall_ms"), medians(measured[0], "wall_ms"), strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        times = times_floor(record, contender) if record["peaks"] else []
        floor = f"{statistics.median(times):.2f}" if times else ""
        lines.append(f"| {name} | {spread(walls)} | {ratio:.2f} | {floor} |")
    return lines


def floor_lines(record: Record) -> list[str]:
    """The core's peak and the floor of an update; or why they are not known."""
    if not record["peaks"]:
        return [f"no floor: {record['no_peak']}"]
    peaks, sizes = record["peaks"], record["sizes"]
    each = [
        f"{words} {spread([peak[name] for cores in peaks for peak in cores])}"
        for name, words in SETS.items()
        if name in peaks[0][0]
    ]
    floor = spread([floor_ms(sizes, "lstm", cores, None) for cores in peaks])
    return [
        f"peak of a core, GFLOP/s in float32: {', '.join(each)}",
        f"floor: {update_flops(**sizes) / 1e9:.3f} GFLOP of matrix products at the best peak, {floor} ms",
    ]


def table(record: Record) -> list[str]:
    """All that is printed of a run. The first contender that was measured is what the ratios are to."""
    measured = [contender for contender in record["contenders"] if not contender["missing"]]
    versions = {f"{k} {v}" for one in measured for k, v in one["facts"]["versions"].items() if k != "layers"}
    where = "two at once, one a core" if record["both"] else "one core"
    done = f"{record['rounds']} rounds of {record['passes']} passes of {record['updates']} updates"
    titles = ["wall ms", "min", "max", "core ms", "ratio", "of core", *(["x floor"] if record["peaks"] else [])]
    columns = "".join(f"{title:>9}" for title in titles)
    return [
        record["machine"],
        ", ".join(sorted(versions)),
        f"an update, {where}; {done}",
        *floor_lines(record),
        f"{'':<31}{columns}{'parameters':>12}{'loss':>9}{'at end':>9}",
        *(row(record, contender, measured[0]) for contender in record["contenders"]),
    ]
