"""The comparison of actors as tables, sentences, Markdown and JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from blindsr_agents.evaluation.actor_rows import ActorRow, Comparison, Comparisons
from blindsr_agents.evaluation.actors import ORACLE, RANDOM_SEARCH
from blindsr_agents.evaluation.scores import verdict
from blindsr_agents.evaluation.tables import (
    Cells,
    about_line,
    console_table,
    join_widths,
    markdown_table,
    write_results,
)


def mean_cells(table: Comparison) -> Cells:
    """Header and rows of the means over the kernel widths, or over photographs as they are."""
    of_made_scenes = ["of the oracle's", "lowest at a width"] if table.widths else []
    header = ["method", "seeds", "reward gain", *of_made_scenes, *_titles(table)]
    rows = []
    for method, row in table.rows.items():
        lowest = int(np.argmin(row.gain))
        rows.append(
            [
                method,
                str(row.seeds) if row.seeds else "",
                _signed(float(np.mean(row.gain)), row.standard_error, row.spread),
                *(
                    [
                        "-" if row.share is None else f"{row.share:.0%}{_plus_minus(row.share_error, '.0%')}",
                        f"{row.gain[lowest]:+.4f} at {table.widths[lowest]:g}",
                    ]
                    if table.widths
                    else []
                ),
                *(
                    column.format(float(np.mean(row.values[name])))
                    + (f" (sd {column.format(row.spreads[name])})" if row.spreads else "")
                    for name, column in table.columns.items()
                ),
            ]
        )
    return [header, *rows]


def width_cells(table: Comparison) -> Cells:
    """Header and rows of every method at every kernel width."""
    return [
        ["method", "kernel width", "reward gain", *_titles(table)],
        *(
            [
                method,
                f"{width:g}",
                _signed(row.gain[i]),
                *(c.format(row.values[n][i]) for n, c in table.columns.items()),
            ]
            for i, width in enumerate(table.widths)
            for method, row in table.rows.items()
        ),
    ]


def verdicts(table: Comparison) -> list[str]:
    """One sentence per trained actor: whether it beats the pretrained one and the best constant, where it is worse."""
    lines = []
    for label, row in table.rows.items():
        if not row.seeds:
            continue
        gain, error = float(np.mean(row.gain)), row.standard_error
        told = f"{label} is {verdict(gain, error, 'the pretrained actor')} ({_signed(gain, error)})"
        told += _over_constant(row)
        if table.widths:
            falls = [f"{w:g} ({g:+.4f})" for w, g in zip(table.widths, row.gain, strict=True) if g < 0]
            told += f"; it falls at kernel width {', '.join(falls)}" if falls else "; it falls at no kernel width"
        lines.append(f"{told}.")
    return lines


def _over_constant(row: ActorRow) -> str:
    if row.over_constant is None:
        return ""
    label, gain, error = row.over_constant
    return f", and {verdict(gain, error, label)} ({_signed(gain, error)})"


def print_table(table: Comparison, console: Console) -> None:
    """Print the means, every width where there are any, and a sentence per actor."""
    console.print(console_table(f"{table.title}: {_mean_title(table)}", mean_cells(table)))
    if table.widths:
        console.print(console_table(f"{table.title}: each kernel width", width_cells(table)))
    for line in verdicts(table):
        console.print(line, markup=False)


def to_markdown(results: Comparisons) -> str:
    """All tables as Markdown."""
    about = results.about
    evaluations, guards = (about["settings"][key] for key in ("oracle_evaluations", "oracle_guards"))
    kept = ", ".join(f"{name} by more than {allowed:g}" for name, allowed in guards.items())
    lines = [
        f"# Agents, x{about['scale']}",
        "",
        about_line(about),
        "",
        "Whole images, every metric without a border of the scale's width, as the environment pays. Reward gain: mean "
        "score above the pretrained actor's, ± standard error over the images (an image, seen at every kernel width, "
        "is one sample); sd: standard deviation over the seeds of the training, as behind the metrics.",
        "",
        *(
            [
                f"{ORACLE.capitalize()}: the best code found for each scene with HR known, from the best of the "
                f"pretrained actor's, the true and the mean code, in {evaluations} renderings (Adam where the reward "
                f"has a gradient and there are no guards, else CMA-ES); {RANDOM_SEARCH}: the best of as many Gaussian "
                "codes around that start."
                + (f" No code counts that makes worse than the pretrained actor's: {kept}." if kept else ""),
                "",
            ]
            if evaluations
            else []
        ),
        *(f"Left out: {line}" for line in results.skipped),
    ]
    for table in results.tables:
        lines += ["", f"## {table.title}", "", f"{_mean_title(table).capitalize()}:", ""]
        lines += markdown_table(mean_cells(table))
        lines += ["", *(f"- {line}" for line in verdicts(table))]
        if table.widths:
            lines += ["", "Each width:", "", *markdown_table(width_cells(table))]
    return "\n".join(lines) + "\n"


def write_report(folder: Path, results: Comparisons) -> None:
    """Write ``agents.json`` and ``agents.md``, each in one step."""
    write_results(folder, "agents", results, to_markdown(results))


def _mean_title(table: Comparison) -> str:
    return f"mean of kernel widths {join_widths(table.widths)}" if table.widths else "photographs as they are"


def _titles(table: Comparison) -> list[str]:
    return [column.title for column in table.columns.values()]


def _signed(value: float, error: float | None = None, spread: float | None = None) -> str:
    return f"{value:+.4f}{_plus_minus(error, '.4f')}" + (f" (sd {spread:.4f})" if spread is not None else "")


def _plus_minus(error: float | None, form: str) -> str:
    return "" if error is None else f" ± {error:{form}}"
