"""The benchmark's results as tables, Markdown, JSON and a figure of crops side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.table import Table

from blindsr_agents.evaluation.sets import PREDICTED, TRUE, Results, SceneCrops
from sr_env.degradation import REPORTED_WIDTHS
from sr_env.utils.files import atomic_write

#: Mean of the reported widths at x4 in Table 1 of the paper's supplement: set -> method -> PSNR-Y, LPIPS.
PUBLISHED = {
    "Set5": {"AMGAN": (31.02, 0.0707), "AMGAN*": (29.29, 0.1078)},
    "Set14": {"AMGAN": (27.14, 0.1254), "AMGAN*": (26.38, 0.2048)},
    "BSD100": {"AMGAN": (26.36, 0.1698), "AMGAN*": (25.63, 0.2862)},
}
_TITLES = {
    "psnr": "PSNR-Y",
    "psnr_rgb": "PSNR-RGB",
    "ssim": "SSIM-Y",
    "lpips": "LPIPS",
    "dists": "DISTS",
    "niqe": "NIQE",
}
#: Metrics that the second table gives at every width, where they were measured.
_PER_WIDTH = ("psnr", "lpips")
Cells = list[list[str]]


def mean_cells(results: Results, name: str) -> Cells:
    """Header and rows of a set's first table: means over the widths, and costs."""
    metrics = results.about["metrics"]
    titles = [f"{metric_title(metric)} {_arrow(results, metric)}" for metric in metrics]
    header = ["method", "kernel", *titles, "parameters", "GMACs/MP", "s/MP"]
    rows = []
    for method, row in results.sets[name].rows.items():
        cost = results.costs[method]
        rows.append(
            [
                *_split(method),
                *(format_value(metric, row.mean(metric)) for metric in metrics),
                f"{cost.parameters / 1e6:.2f} M" if cost.parameters else "0",
                f"{cost.macs_per_megapixel / 1e9:.1f}",
                f"{row.seconds_per_megapixel:.3g}",
            ]
        )
    for method, values in published(results, name).items():
        rows.append([method, "", *(format_value(m, values[m]) if m in values else "-" for m in metrics), "-", "-", "-"])
    return [header, *rows]


def width_cells(results: Results, name: str) -> Cells:
    """Header and rows of a set's second table: PSNR and LPIPS at every width."""
    metrics = [metric for metric in _PER_WIDTH if metric in results.about["metrics"]]
    widths = results.about["widths"]
    header = [
        "method",
        "kernel",
        *(f"{metric_title(metric)} {_arrow(results, metric)}, {width:g}" for metric in metrics for width in widths),
    ]
    return [
        header,
        *(
            [
                *_split(method),
                *(format_value(metric, value) for metric in metrics for value in row.values[metric].values()),
            ]
            for method, row in results.sets[name].rows.items()
        ),
    ]


def published(results: Results, name: str) -> dict[str, dict[str, float]]:
    """The supplement's rows of a set, where the setting is the supplement's."""
    about = results.about
    if about["scale"] != 4 or tuple(about["widths"]) != REPORTED_WIDTHS[4] or about["settings"]["limit"] is not None:
        return {}
    rows = PUBLISHED.get(name, {})
    return {f"{method} (published)": {"psnr": psnr, "lpips": lpips} for method, (psnr, lpips) in rows.items()}


def make_tables(results: Results, name: str) -> list[Table]:
    """A set's two tables for the console."""
    widths = ", ".join(f"{width:g}" for width in results.about["widths"])
    tables = []
    for title, (header, *rows) in (
        (f"{name}: mean of kernel widths {widths}", mean_cells(results, name)),
        (f"{name}: each kernel width", width_cells(results, name)),
    ):
        if len(header) == 2:
            continue
        tables.append(console_table(title, [header, *rows]))
    return tables


def console_table(title: str, cells: Cells) -> Table:
    """A table for the console, of a header and rows whose first two cells are words."""
    header, *rows = cells
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for number, column in enumerate(header):
        table.add_column(column, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def to_markdown(results: Results) -> str:
    """All results as Markdown."""
    about = results.about
    widths = ", ".join(f"{width:g}" for width in about["widths"])
    lines = [
        f"# Benchmark, x{about['scale']}",
        "",
        f"`{about['command']}` at commit {about['commit']}, torch {about['torch']} on {about['hardware']} "
        f"(device {about['device']}, {about['threads']} threads, precision {about['precision']}).",
        "",
        f"21x21 isotropic Gaussian kernels of widths {widths} HR pixels, bicubic reduction, 8-bit LR images. PSNR and "
        f"SSIM on Y without a border of {about['scale']} pixels, the other metrics on the whole image. Parameters of a "
        "method with predicted kernel include the predictor's. GMACs/MP: 10^9 multiplications of convolutions and "
        "matrix products per 10^6 pixels of output. s/MP: seconds of the reconstruction alone, per 10^6 pixels of "
        "output. Published rows are the supplement's Table 1; they were not measured here.",
        "",
        *([f"Not at hand and left out: {', '.join(results.skipped)}."] if results.skipped else []),
    ]
    for name, measured in results.sets.items():
        lines += ["", f"## {name} ({measured.images} images)", "", f"Mean of the {len(about['widths'])} widths:", ""]
        lines += markdown_table(mean_cells(results, name))
        for metric, count in measured.left_out.items():
            rest = measured.images - count
            lines += ["", f"{metric_title(metric)} is the mean of {rest} images: {count} are too small for it."]
        cells = width_cells(results, name)
        if len(cells[0]) > 2:
            lines += ["", "Each width:", "", *markdown_table(cells)]
    return "\n".join(lines) + "\n"


def write_report(folder: Path, results: Results, crops: Sequence[SceneCrops]) -> None:
    """Write ``results.json``, ``results.md`` and, where there are crops, ``figure.png``; each in one step."""
    with atomic_write(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(asdict(results), indent=2) + "\n")
    with atomic_write(folder / "results.md") as temporary:
        temporary.write_text(to_markdown(results))
    if crops:
        draw_figure(folder / "figure.png", crops)


def draw_figure(path: Path, crops: Sequence[SceneCrops]) -> None:
    """Write a PNG with one row per scene: LR, every method that is blind to the kernel, HR.

    A method that was only run with the true kernel is shown with it.
    """
    methods = list(crops[0].sr)
    shown = [
        name
        for name in methods
        if name.replace(TRUE, PREDICTED) == name or name.replace(TRUE, PREDICTED) not in methods
    ]
    columns = len(shown) + 2
    figure = Figure(figsize=(1.9 * columns, 2.6 * len(crops)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(crops), columns, squeeze=False)
    for row, crop in zip(axes, crops, strict=True):
        pictures = [
            (f"LR\n{crop.scene.set}/{crop.scene.image}\nkernel width {crop.scene.width:g}", crop.lr),
            *((_caption(name, crop), crop.sr[name]) for name in shown),
            ("HR\n", crop.hr),
        ]
        for axis, (title, picture) in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(title, fontsize=7)
            axis.set_axis_off()
    measured = " / ".join(
        metric_title(metric) for metric in _PER_WIDTH if metric in next(iter(crops[0].values.values()))
    )
    if measured:
        figure.supxlabel(f"{measured} of the whole image", fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")


def _caption(name: str, crop: SceneCrops) -> str:
    values = crop.values[name]
    return name.replace(", ", "\n") + "\n" + " / ".join(format_value(m, values[m]) for m in _PER_WIDTH if m in values)


def _split(method: str) -> tuple[str, str]:
    """Name of the method, and the kernel it was given: "true", "predicted" or none."""
    name, _, kernel = method.rpartition(", ")
    return (name, kernel.removesuffix(" kernel")) if kernel in (TRUE, PREDICTED) else (method, "")


def markdown_table(cells: Cells) -> list[str]:
    """Lines of a Markdown table, of a header and rows whose first two cells are words."""
    header, *rows = cells
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)], *rows]
    return ["| " + " | ".join(cell.replace("*", "\\*") for cell in line) + " |" for line in lines]


def metric_title(metric: str) -> str:
    """A metric's name as papers write it."""
    return _TITLES.get(metric, metric)


def _arrow(results: Results, metric: str) -> str:
    return "↑" if results.about["metrics"][metric]["higher_is_better"] else "↓"


def format_value(metric: str, value: float | None) -> str:
    """A metric's value with as many digits as it deserves; a dash for none."""
    if value is None:
        return "-"
    return f"{value:.{2 if metric.startswith(('psnr', 'niqe', 'brisque')) else 4}f}"
