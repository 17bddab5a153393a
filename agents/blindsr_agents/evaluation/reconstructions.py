"""Measure methods on benchmark sets: quality in each condition, parameters, multiplications and seconds.

Every HR image is degraded in each condition, rounded to 8 bit, reconstructed whole, rounded and compared with HR.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from blindsr_agents.evaluation.conditions import Condition
from blindsr_agents.evaluation.figures import (
    PER_WIDTH,
    FigureScene,
    SceneCrops,
    cut,
    detailed_crop,
    draw_figure,
    packed,
    unpacked,
)
from blindsr_agents.evaluation.methods import PREDICTED, TRUE, ReconstructionMethod
from blindsr_agents.evaluation.tables import (
    Cells,
    about_line,
    console_table,
    heading,
    markdown_table,
    progress_bar,
    write_results,
)
from sr_env.degradation import KERNEL_SIZE, REPORTED_WIDTHS, Degradation, Kernels, quantize
from sr_env.metrics import Metric, MetricInfo
from sr_env.models.amnet import parameter_count
from sr_env.photos import PhotoFolder
from sr_env.utils.devices import Precision, autocast
from sr_env.utils.finished import Take, anew
from sr_env.utils.images import to_images

#: Up to so many conditions PSNR and LPIPS stand side by side.
_BESIDE = 4
#: Mean of the reported widths at x4 in Table 1 of the paper's supplement: set -> method -> PSNR-Y, LPIPS.
PUBLISHED = {
    "Set5": {"AMGAN": (31.02, 0.0707), "AMGAN*": (29.29, 0.1078)},
    "Set14": {"AMGAN": (27.14, 0.1254), "AMGAN*": (26.38, 0.2048)},
    "BSD100": {"AMGAN": (26.36, 0.1698), "AMGAN*": (25.63, 0.2862)},
}


@dataclass(frozen=True)
class Conditions:
    """What every set is measured with.

    Attributes:
        methods: The rows.
        metrics: The columns, by name.
        degradation: How HR becomes LR.
        conditions: What happens to the images, each in a column of its own.
        device: Where everything runs.
        precision: Precision of the networks.
    """

    methods: Sequence[ReconstructionMethod]
    metrics: Mapping[str, Metric]
    degradation: Degradation
    conditions: Sequence[Condition]
    device: torch.device
    precision: Precision


@dataclass(frozen=True)
class Cost:
    """What a method needs whatever the image: parameters, and multiplications per 10^6 pixels of output."""

    parameters: int
    macs_per_megapixel: float


@dataclass
class MethodRow:
    """What a method reached on a set.

    Attributes:
        values: Metric -> condition (a kernel width) -> mean over the images; None where none could be measured.
        seconds_per_megapixel: Reconstruction alone, per 10^6 pixels of output, over all images and conditions.
    """

    values: dict[str, dict[str, float | None]]
    seconds_per_megapixel: float

    def mean(self, metric: str) -> float | None:
        """Mean over the conditions."""
        each = [value for value in self.values[metric].values() if value is not None]
        return float(np.mean(each)) if len(each) == len(self.values[metric]) else None


@dataclass
class SetResults:
    """One set: its images, how many of them each metric had to leave out, and its rows by method."""

    images: int
    left_out: dict[str, int]
    rows: dict[str, MethodRow]


@dataclass
class Results:
    """Everything that was measured.

    Attributes:
        about: Settings, command, commit, hardware.
        skipped: Names of sets, metrics and peers that are not at hand.
        costs: Cost by method.
        columns: How each metric is shown.
        sets: Results by set, in the order measured.
    """

    about: dict[str, Any]
    skipped: list[str]
    costs: dict[str, Cost]
    columns: dict[str, MetricInfo]
    sets: dict[str, SetResults] = field(default_factory=dict)


def measure_cost(method: ReconstructionMethod, scale: int, device: torch.device) -> Cost:
    """Parameters, and the multiplications of one reconstruction of 1000x1000 pixels (no number is computed).

    Convolutions and matrix products count; interpolation, activations and Fourier transforms do not.
    """
    side = 1000 // scale
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        lr, nothing = torch.rand(1, 3, side, side, device=device), torch.zeros(1, 2, device=device)
        kernel = torch.rand(1, KERNEL_SIZE, KERNEL_SIZE, device=device)
        method.reconstruct(lr, Kernels(kernel, nothing, nothing[:, 0], None))
    macs = counter.get_total_flops() / 2 / ((side * scale) ** 2 / 1e6)
    return Cost(sum(parameter_count(network) for network in method.networks), macs)


def measure_set(
    conditions: Conditions,
    name: str,
    photos: PhotoFolder,
    scenes: Iterable[FigureScene],
    console: Console,
    take: Take = anew,
) -> tuple[SetResults, list[SceneCrops]]:
    """Run every method over a set, in every condition.

    Args:
        conditions: What it is measured with.
        name: The set's name.
        photos: Its images.
        scenes: What the figure is to show, of this set and of others.
        console: Where progress is shown.
        take: Measures an image, by its name, or gives what was measured before.

    Returns:
        The results, and the crops for the figure.
    """
    methods, metrics = conditions.methods, conditions.metrics
    shown = {(scene.index, scene.condition): scene for scene in scenes if scene.set == name}
    images: list[dict[str, Any]] = []
    each = len(methods) * len(conditions.conditions)
    _warm_up(conditions)
    with progress_bar(console) as progress:
        task = progress.add_task(name, total=len(photos) * each)
        done = partial(progress.advance, task)
        for index, image in enumerate(photos.names):
            wanted = {condition for at, condition in shown if at == index}
            images.append(take(image, partial(measure_image, conditions, photos, index, wanted, done)))
            progress.update(task, completed=len(images) * each)
    rows = {
        method.name: MethodRow(
            {
                metric: {each.name: _mean(images, each.name, method.name, metric) for each in conditions.conditions}
                for metric in metrics
            },
            sum(image["seconds"][method.name] for image in images) / (sum(image["pixels"] for image in images) / 1e6),
        )
        for method in methods
    }
    left_out = {metric: sum(metric not in image["metrics"] for image in images) for metric in metrics}
    crops = [
        SceneCrops(
            shown[index, condition],
            unpacked(cuts["lr"]),
            unpacked(cuts["hr"]),
            {method: unpacked(cut) for method, cut in cuts["sr"].items()},
            image["values"][condition],
        )
        for index, image in enumerate(images)
        for condition, cuts in image["crops"].items()
    ]
    return SetResults(len(images), {metric: count for metric, count in left_out.items() if count}, rows), crops


@torch.no_grad()
def measure_image(
    conditions: Conditions, photos: PhotoFolder, index: int, shown: Container[str], done: Callable[[], object]
) -> dict[str, Any]:
    """Run every method over an image, in every condition.

    Args:
        conditions: What it is measured with.
        photos: The images of its set.
        index: Its number among them.
        shown: Names of the conditions in which the figure shows it.
        done: Called after every method in every condition.

    Returns:
        JSON values. ``metrics``: those that it is large enough for. ``values``: condition -> method -> metric -> value.
        ``pixels`` of HR, of all conditions, and ``seconds`` of the reconstructions of them by method. ``crops``:
        condition -> ``lr``, ``hr`` and, by method, ``sr``, as text.
    """
    degradation, device, scale = conditions.degradation, conditions.device, conditions.degradation.scale
    image = photos[index]
    height, breadth = (side // scale * scale for side in image.shape[:2])
    hr = to_images(image[None, :height, :breadth].copy(), device)
    fitting = {n: m for n, m in conditions.metrics.items() if min(height, breadth) >= m.min_size + 2 * m.border}
    reference = {n: m.prepare(hr) for n, m in fitting.items() if m.needs_reference}
    window = detailed_crop(hr, scale)
    seconds = dict.fromkeys((method.name for method in conditions.methods), 0.0)
    values: dict[str, dict[str, dict[str, float]]] = {}
    crops: dict[str, dict[str, Any]] = {}
    for condition in conditions.conditions:
        kernels = condition.kernels(np.array([index]), device)
        lr = degradation(hr, kernels)
        here = values[condition.name] = {}
        cuts: dict[str, str] = {}
        for method in conditions.methods:
            sr, taken = _timed(method, lr, kernels, conditions.precision)
            seconds[method.name] += taken
            here[method.name] = {n: float(m(sr, reference.get(n))) for n, m in fitting.items()}
            if condition.name in shown:
                cuts[method.name] = packed(cut(sr, window))
            done()
        if condition.name in shown:
            crops[condition.name] = {
                "lr": packed(cut(lr, window, scale)),
                "hr": packed(cut(hr, window)),
                "sr": cuts,
            }
    pixels = height * breadth * len(values)
    return {"metrics": list(fitting), "values": values, "pixels": pixels, "seconds": seconds, "crops": crops}


def _mean(images: Sequence[Mapping[str, Any]], condition: str, method: str, metric: str) -> float | None:
    """Over the images that are large enough for the metric; None where none is."""
    found = [image["values"][condition][method][metric] for image in images if metric in image["metrics"]]
    return float(np.mean(found)) if found else None


@torch.no_grad()
def _warm_up(conditions: Conditions) -> None:
    """Run every method once: the first call builds plans and allocates, which is not the method's doing."""
    lr = torch.rand(1, 3, 16, 16, device=conditions.device)
    kernels = conditions.degradation.build(np.ones(1), device=conditions.device)
    for method in conditions.methods:
        _timed(method, lr, kernels, conditions.precision)


def _timed(method: ReconstructionMethod, lr: Tensor, kernels: Kernels, precision: Precision) -> tuple[Tensor, float]:
    """SR rounded to 8 bit, and the seconds of the reconstruction."""
    begun = _clock(lr.device)
    with autocast(precision, lr.device):
        sr = method.reconstruct(lr, kernels)
    taken = _clock(lr.device) - begun
    return quantize(sr.float()), taken


def _clock(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def mean_cells(results: Results, name: str) -> Cells:
    """Header and rows of a set's first table: means over the conditions, and costs."""
    columns = results.columns
    headings = [heading(column) for column in columns.values()]
    header = ["method", "kernel", *headings, "parameters", "GMACs/MP", "s/MP"]
    rows = []
    for method, row in results.sets[name].rows.items():
        cost = results.costs[method]
        rows.append(
            [
                *_split(method),
                *(column.format(row.mean(metric)) for metric, column in columns.items()),
                f"{cost.parameters / 1e6:.2f} M" if cost.parameters else "0",
                f"{cost.macs_per_megapixel / 1e9:.1f}",
                f"{row.seconds_per_megapixel:.3g}",
            ]
        )
    for method, values in published(results, name).items():
        rows.append(
            [method, "", *(column.format(values.get(metric)) for metric, column in columns.items()), "-", "-", "-"]
        )
    return [header, *rows]


def condition_cells(results: Results, name: str) -> list[Cells]:
    """Header and rows of a set's further tables: PSNR and LPIPS in every condition, in one or in a table each."""
    columns = {metric: results.columns[metric] for metric in PER_WIDTH if metric in results.columns}
    conditions = results.about["conditions"]
    groups = [columns] if len(conditions) <= _BESIDE else [{metric: column} for metric, column in columns.items()]
    tables = []
    for shown in filter(None, groups):
        rows = [
            [
                *_split(method),
                *(column.format(value) for metric, column in shown.items() for value in row.values[metric].values()),
            ]
            for method, row in results.sets[name].rows.items()
        ]
        headings = [f"{heading(column)}, {condition}" for column in shown.values() for condition in conditions]
        tables.append([["method", "kernel", *headings], *rows])
    return tables


def published(results: Results, name: str) -> dict[str, dict[str, float]]:
    """The supplement's rows of a set, where the setting is the supplement's."""
    about = results.about
    usual = [f"{width:g}" for width in REPORTED_WIDTHS[4]]
    if about["scale"] != 4 or about["conditions"] != usual or about["settings"]["limit"] is not None:
        return {}
    rows = PUBLISHED.get(name, {})
    return {f"{method} (published)": {"psnr": psnr, "lpips": lpips} for method, (psnr, lpips) in rows.items()}


def make_tables(results: Results, name: str) -> list[Table]:
    """A set's two tables for the console."""
    what = "kernel width" if results.about["settings"]["degradation"] == "blur" else "condition"
    title = f"{name}: mean of {what}s {', '.join(results.about['conditions'])}"
    tables = [console_table(title, mean_cells(results, name))]
    return tables + [console_table(f"{name}: each {what}", cells) for cells in condition_cells(results, name)]


def to_markdown(results: Results) -> str:
    """All results as Markdown."""
    about = results.about
    conditions = ", ".join(about["conditions"])
    if about["settings"]["degradation"] == "blur":
        made = f"21x21 isotropic Gaussian kernels of widths {conditions} HR pixels, bicubic reduction, 8-bit LR images."
    else:
        made = (
            f"Conditions: {conditions}. Widths are in LR pixels, noise is a standard deviation of 255 levels; what is "
            "not said does not happen, but for a blur of 0.325 LR pixels beside noise, JPEG and sharpening. In the "
            "condition drawn, kernel, reduction, sharpening, noise and compression are drawn once for each image."
        )
    lines = [
        f"# Benchmark, x{about['scale']}",
        "",
        about_line(about),
        "",
        f"{made} PSNR and SSIM on Y without a border of {about['scale']} pixels, the other metrics on the whole image. "
        "Parameters of a method with predicted kernel include the predictor's. GMACs/MP: 10^9 multiplications of "
        "convolutions and matrix products per 10^6 pixels of output. s/MP: seconds of the reconstruction alone, per "
        "10^6 pixels of output. Published rows are the supplement's Table 1; they were not measured here.",
        "",
        *([f"Not at hand and left out: {', '.join(results.skipped)}."] if results.skipped else []),
    ]
    for name, measured in results.sets.items():
        lines += [
            "",
            f"## {name} ({measured.images} images)",
            "",
            f"Mean of the {len(about['conditions'])} columns below:",
            "",
        ]
        lines += markdown_table(mean_cells(results, name))
        for metric, count in measured.left_out.items():
            rest = measured.images - count
            lines += [
                "",
                f"{results.columns[metric].title} is the mean of {rest} images: {count} are too small for it.",
            ]
        for cells in condition_cells(results, name):
            lines += ["", "Each of them:", "", *markdown_table(cells)]
    return "\n".join(lines) + "\n"


def write_report(folder: Path, results: Results, crops: Sequence[SceneCrops]) -> None:
    """Write ``results.json``, ``results.md`` and, where there are crops, ``figure.png``; each in one step."""
    write_results(folder, "results", results, to_markdown(results))
    if crops:
        draw_figure(folder / "figure.png", crops, results.columns)


def _split(method: str) -> tuple[str, str]:
    """Name of the method, and the kernel it was given: "true", "predicted" or none."""
    name, _, kernel = method.rpartition(", ")
    return (name, kernel.removesuffix(" kernel")) if kernel in (TRUE, PREDICTED) else (method, "")
