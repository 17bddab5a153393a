"""Tables of every comparison, for the console and as Markdown, and how a metric's values are shown in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from blindsr_agents.evaluation.scores import Scores
from sr_env.metrics import Metric, MetricInfo
from sr_env.utils.files import atomic_write, write_json

#: A header and rows whose first two cells are words.
Cells = list[list[str]]


def columns(names: Iterable[str], metrics: Mapping[str, Metric]) -> dict[str, MetricInfo]:
    """How the terms of a score are shown, by name; one that is no metric (consistency, in dB) too."""
    return {
        name: _column(metrics[name]) if name in metrics else MetricInfo(name, name, 2, "dB", True) for name in names
    }


def _column(metric: Metric) -> MetricInfo:
    return MetricInfo(metric.name, metric.title, metric.decimals, metric.unit, metric.higher_is_better)


def heading(column: MetricInfo) -> str:
    """A metric's title, and an arrow that says which way is better."""
    return f"{column.title} {column.arrow}"


def score_table(
    scores: Mapping[str, Scores],
    baseline: str,
    widths: Sequence[float],
    metrics: Mapping[str, Metric],
    title: str,
) -> Table:
    """Methods on fixed scenes: the mean over the kernel widths, then each width.

    Args:
        scores: By method.
        baseline: The method above whose mean score the reward is given.
        widths: Kernel widths in HR pixels; none for photographs as they are.
        metrics: Those that were measured.
        title: Of the table.
    """
    measured = [name for name in scores[baseline].values if name != "score"]
    shown = columns(measured, metrics)
    cells: Cells = [["kernel width" if widths else "", "", "reward ↑", *map(heading, shown.values())]]
    for index in (None, *range(len(widths))):
        for number, (method, each) in enumerate(scores.items()):
            gain = each.gain(scores[baseline])
            values = [each.per_width(name) for name in shown]
            gain, *values = (value.mean() if index is None else value[index] for value in (gain, *values))
            where = f"{widths[index]:g}" if index is not None else "mean"
            texts = (column.format(float(value)) for column, value in zip(shown.values(), values, strict=True))
            cells.append([where if number == 0 else "", method, f"{gain:+.3f}", *texts])
    return console_table(title, cells, group=len(scores))


def console_table(title: str, cells: Cells, group: int | None = None) -> Table:
    """A table for the console.

    Args:
        title: Above it.
        cells: Header and rows.
        group: Rows between rules; None draws no rules.
    """
    header, *rows = cells
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for number, column in enumerate(header):
        table.add_column(column, justify="left" if number < 2 else "right")
    for number, row in enumerate(rows, 1):
        table.add_row(*row, end_section=group is not None and number % group == 0)
    return table


def markdown_table(cells: Cells) -> list[str]:
    """Lines of a Markdown table."""
    header, *rows = cells
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)], *rows]
    return ["| " + " | ".join(cell.replace("*", "\\*") for cell in line) + " |" for line in lines]


def join_widths(widths: Sequence[float]) -> str:
    """Kernel widths in a sentence."""
    return ", ".join(f"{width:g}" for width in widths)


def about_line(about: Mapping[str, Any]) -> str:
    """Where a report's figures come from."""
    line = (
        f"`{about['command']}` at commit {about['commit']}, torch {about['torch']} on {about['hardware']} "
        f"(device {about['device']}, {about['threads']} threads, precision {about['precision']})."
    )
    earlier = (", ".join(f"{name} {value}" for name, value in each.items()) for each in about.get("earlier", ()))
    return " ".join([line, *(f"A part was measured before with {each}." for each in earlier)])


def write_results(folder: Path, stem: str, results: Any, markdown: str) -> None:
    """Write ``STEM.json``, a dataclass of results, and ``STEM.md``, each in one step."""
    write_json(folder / f"{stem}.json", asdict(results))
    with atomic_write(folder / f"{stem}.md") as temporary:
        temporary.write_text(markdown)


def progress_bar(console: Console) -> Progress:
    """A bar that goes when it is done."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)
