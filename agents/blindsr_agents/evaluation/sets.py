"""Measure methods on benchmark sets: quality at each kernel width, parameters, multiplications and seconds.

Every HR image is blurred with each width, reduced, rounded to 8 bit, reconstructed whole, rounded and compared with HR.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from blindsr_agents.peers import load_dan, load_realesrgan, load_srmdnf, load_usrgan
from sr_env.degradation import KERNEL_SIZE, Degradation, bicubic_resize, quantize
from sr_env.metrics import Metric, available_metrics, create_metric
from sr_env.models import AMNet
from sr_env.models.amnet import parameter_count
from sr_env.models.checkpoint import Checkpoint, available_checkpoints, load_predictor, load_renderer, read_card
from sr_env.models.predictor import KernelPredictor
from sr_env.photos import PhotoFolder
from sr_env.utils.checks import MIN_LR_SIZE, SCALES, WeightsUnavailable, check_choice
from sr_env.utils.devices import Precision, autocast, channels_last
from sr_env.utils.images import to_images, to_uint8
from sr_env.utils.provenance import public_path

PEERS: tuple[str, ...] = ("srmdnf", "realesrgan", "dan", "usrgan")
TRUE, PREDICTED = "true kernel", "predicted kernel"
#: Metrics that leave out a border of ``scale`` pixels, as papers report them; the others see the whole image.
_BORDERED = ("psnr", "psnr_rgb", "ssim")
#: Images that the figure shows unless told otherwise: with fine structure, and in many papers.
_SHOWN = {"Set5": "butterfly", "Set14": "comic", "BSD100": "253027"}
_CROP = 128  # side of the figure's crops in HR pixels


@dataclass(frozen=True)
class Method:
    """One row of the benchmark.

    Attributes:
        name: Name of the row.
        reconstruct: (LR [B, 3, h, w], true kernels [B, K, K]) -> SR [B, 3, s*h, s*w], not rounded.
        networks: Everything whose parameters it needs.
    """

    name: str
    reconstruct: Callable[[Tensor, Tensor], Tensor]
    networks: tuple[nn.Module, ...] = ()


@dataclass(frozen=True)
class Setup:
    """What every set is measured with.

    Attributes:
        methods: The rows.
        metrics: The columns, by name.
        degradation: How HR becomes LR.
        widths: Kernel widths in HR pixels.
        device: Where everything runs.
        precision: Precision of the networks.
    """

    methods: Sequence[Method]
    metrics: Mapping[str, Metric]
    degradation: Degradation
    widths: Sequence[float]
    device: torch.device
    precision: Precision


@dataclass(frozen=True)
class Scene:
    """A row of the figure: an image of a set at one kernel width."""

    set: str
    image: str
    index: int
    width: float


@dataclass(frozen=True)
class SceneCrops:
    """What the figure shows of a scene, uint8 [h, w, 3]; the values are of the whole image."""

    scene: Scene
    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]
    sr: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a method needs whatever the image: parameters, and multiplications per 10^6 pixels of output."""

    parameters: int
    macs_per_megapixel: float


@dataclass
class Row:
    """What a method reached on a set.

    Attributes:
        values: Metric -> kernel width -> mean over the images; None where no image could be measured.
        seconds_per_megapixel: Reconstruction alone, per 10^6 pixels of output, over all images and widths.
    """

    values: dict[str, dict[str, float | None]]
    seconds_per_megapixel: float

    def mean(self, metric: str) -> float | None:
        """Mean over the kernel widths."""
        each = [value for value in self.values[metric].values() if value is not None]
        return float(np.mean(each)) if len(each) == len(self.values[metric]) else None


@dataclass
class SetResults:
    """One set: its images, how many of them each metric had to leave out, and its rows by method."""

    images: int
    left_out: dict[str, int]
    rows: dict[str, Row]


@dataclass
class Results:
    """Everything that was measured.

    Attributes:
        about: Settings, command, commit, hardware.
        skipped: Names of sets, metrics and peers that are not at hand.
        costs: Cost by method.
        sets: Results by set, in the order measured.
    """

    about: dict[str, Any]
    skipped: list[str]
    costs: dict[str, Cost]
    sets: dict[str, SetResults] = field(default_factory=dict)


# --------------------------------------------------------------------------------------------- what is to be measured


def open_sets(
    folder: Path, names: Sequence[str], scale: int, limit: int | None = None
) -> tuple[dict[str, PhotoFolder], list[str]]:
    """The sets that are there, and a line for each that is not.

    Args:
        folder: Holds one folder of HR images per set.
        names: The sets.
        scale: Magnification; images under eight LR pixels are skipped.
        limit: Images per set; None takes all.

    Raises:
        FileNotFoundError: The folder, or every set in it, is missing.
        ValueError: A set holds no usable image, or the limit is under one.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}: --bench-dir names the one that holds the sets")
    if limit is not None and limit < 1:
        raise ValueError(f"a limit of {limit} images per set leaves none: give 1 or more")
    present = [name for name in dict.fromkeys(names) if (folder / name).is_dir()]
    if not present:
        raise FileNotFoundError(f"none of {', '.join(names)} is in {str(folder)!r}")
    missing = [
        f"{name}: no such folder in {public_path(folder)}" for name in dict.fromkeys(names) if name not in present
    ]
    return {n: PhotoFolder(folder / n, min_size=MIN_LR_SIZE * scale, max_photos=limit) for n in present}, missing


def create_metrics(names: Sequence[str], scale: int, device: torch.device) -> tuple[dict[str, Metric], list[str]]:
    """The metrics whose weights can be had, and a line for each whose cannot.

    Raises:
        ValueError: An unknown name.
    """
    for name in names:
        check_choice("metric", name, available_metrics())
    metrics, unavailable = {}, []
    for name in dict.fromkeys(names):
        try:
            metrics[name] = create_metric(name, border=scale if name in _BORDERED else 0, device=device)
        except WeightsUnavailable as error:
            unavailable.append(f"{name}: {error}")
    return metrics, unavailable


def create_methods(
    scale: int,
    renderers: Sequence[str] | None = None,
    predictor: str | None = None,
    peers: Sequence[str] | None = None,
    peers_dir: Path | None = None,
    dan: Path | None = None,
    usrgan: Path | None = None,
    device: torch.device | str = "cpu",
) -> tuple[list[Method], list[str]]:
    """The rows: bicubic, the renderers and the peers; and a line for each peer that cannot be had.

    Args:
        scale: Magnification.
        renderers: Names or paths; None takes all of the scale that ship.
        predictor: Name or path; None takes ``predictor_x{scale}``, and no predicted kernel where that does not ship.
        peers: Out of ``PEERS``; None takes those at hand. One for which a checkpoint is given is always taken.
        peers_dir: Folder with the weights of SRMDNF and Real-ESRGAN.
        dan: Checkpoint of DAN.
        usrgan: Checkpoint of USRGAN.
        device: Where the networks go.

    Raises:
        FileNotFoundError: A checkpoint or folder does not exist.
        ValueError: A checkpoint is damaged, for another scale or basis, or a peer unknown.
        WeightsUnavailable: A peer that was asked for by name cannot be had.
    """
    check_choice("scale", scale, SCALES)
    for name in peers or ():
        check_choice("peer", name, PEERS)
    if peers_dir is not None and not peers_dir.is_dir():
        raise FileNotFoundError(f"no folder {str(peers_dir)!r}: --peers-dir names the one with the peers' weights")
    skipped = []
    if renderers is None:
        renderers = [name for name in available_checkpoints("renderer") if read_card(name)["scale"] == scale]
        if not renderers:
            skipped.append(f"renderers: none for scale {scale} ships, name one with --renderers")
    estimator = None
    if predictor is None and (default := f"predictor_x{scale}") not in available_checkpoints("predictor"):
        skipped.append(f"predicted kernels: no {default} ships, name one with --predictor")
    else:
        predictor = predictor or f"predictor_x{scale}"
        estimator = load_predictor(predictor, scale=scale, device=device)

    methods = [Method("bicubic", lambda lr, _: bicubic_resize(lr, (lr.shape[-2] * scale, lr.shape[-1] * scale)))]
    stems = [Path(name).stem for name in renderers]
    for name, stem in zip(renderers, stems, strict=True):
        renderer = load_renderer(name, scale=scale, device=device)
        label = stem if stems.count(stem) == 1 else public_path(name)
        methods.append(Method(f"{label}, {TRUE}", partial(_render_true, renderer), (renderer.network,)))
        if estimator is not None and predictor is not None:
            load_predictor(predictor, scale=scale, basis=renderer.basis)  # refuses codes of another basis
            methods.append(
                Method(
                    f"{label}, {PREDICTED}",
                    partial(_render_predicted, renderer, estimator),
                    (renderer.network, estimator.network),
                )
            )

    given = {"dan": dan, "usrgan": usrgan}
    for peer in PEERS:
        asked = peer in peers if peers is not None else None
        if asked is False and given.get(peer) is None:
            continue
        try:
            methods += _peer_methods(peer, scale, peers_dir, given.get(peer), estimator, device)
        except WeightsUnavailable as error:
            if asked:
                raise
            skipped.append(f"{peer}: {error}")
    for method in methods:
        for network in method.networks:
            channels_last(network)  # the layout in which convolutions run fastest, for all alike
    return methods, skipped


def _render_true(renderer: Checkpoint[AMNet], lr: Tensor, kernels: Tensor) -> Tensor:
    return renderer.network(lr, renderer.basis.encode(kernels))


def _render_predicted(
    renderer: Checkpoint[AMNet], estimator: Checkpoint[KernelPredictor], lr: Tensor, kernels: Tensor
) -> Tensor:
    return renderer.network(lr, estimator.basis.to_code(estimator.network(lr)))


def _blind(network: nn.Module, lr: Tensor, kernels: Tensor) -> Tensor:
    """A peer that is not told the kernel."""
    return network(lr)


def _predicted_kernels(
    estimator: Checkpoint[KernelPredictor], network: nn.Module, lr: Tensor, kernels: Tensor
) -> Tensor:
    """A peer that takes a kernel, given the one that our predictor's code stands for."""
    return network(lr, estimator.basis.decode(estimator.basis.to_code(estimator.network(lr))))


def _peer_methods(
    peer: str,
    scale: int,
    folder: Path | None,
    checkpoint: Path | None,
    estimator: Checkpoint[KernelPredictor] | None,
    device: torch.device | str,
) -> list[Method]:
    """The rows of one peer: one where it is blind, else with the true kernel and with our predictor's."""
    if peer == "realesrgan":
        if scale != 4:
            raise WeightsUnavailable(f"Real-ESRGAN x4plus is for scale 4, not {scale}")
        network: nn.Module = load_realesrgan(folder).to(device)
        return [Method("Real-ESRGAN x4plus", partial(_blind, network), (network,))]
    if peer == "srmdnf":
        name, network = "SRMDNF", load_srmdnf(folder, scale).to(device)
    elif checkpoint is None:
        raise WeightsUnavailable(f"no package carries its weights, name the authors' checkpoint with --{peer}")
    elif peer == "dan":
        network = load_dan(checkpoint, scale).to(device)
        return [Method("DAN", partial(_blind, network), (network,))]
    else:
        name, network = "USRGAN", load_usrgan(checkpoint, scale).to(device)
    rows = [Method(f"{name}, {TRUE}", network, (network,))]
    if estimator is not None:
        predicted = partial(_predicted_kernels, estimator, network)
        rows.append(Method(f"{name}, {PREDICTED}", predicted, (network, estimator.network)))
    return rows


def choose_scenes(
    wanted: Sequence[str] | None, sets: Mapping[str, PhotoFolder], widths: Sequence[float]
) -> list[Scene]:
    """The rows of the figure.

    Args:
        wanted: ``SET/IMAGE`` or ``SET/IMAGE:WIDTH``, the width being one that is measured (the middle one unless
            given); None takes an image of each set.
        sets: The sets that are measured.
        widths: The widths that are measured.

    Raises:
        ValueError: No such set, image or width among those that are measured.
    """
    middle = sorted(widths)[len(widths) // 2]
    names = {name: [Path(image).with_suffix("").as_posix() for image in photos.names] for name, photos in sets.items()}
    if wanted is None:
        chosen = {group: image if (image := _SHOWN.get(group)) in names[group] else names[group][0] for group in sets}
        wanted = [f"{group}/{image}" for group, image in chosen.items()]
    scenes = []
    for text in wanted:
        place, _, width = text.partition(":")
        group, _, image = place.partition("/")
        check_choice(f"set in figure scene {text!r}", group, names)
        if image not in names[group]:
            image = Path(image).with_suffix("").as_posix()
        if image not in names[group]:
            raise ValueError(f"figure scene {text!r}: {group} has no image {image!r} among those that are measured")
        try:
            at = float(width) if width else middle
        except ValueError:
            raise ValueError(
                f"figure scene {text!r}: {width!r} is no width, write such as {place}:{middle:g}"
            ) from None
        check_choice(f"kernel width in figure scene {text!r}", at, widths)
        scenes.append(Scene(group, image, names[group].index(image), at))
    return scenes


# ----------------------------------------------------------------------------------------------------------- measuring


def measure_cost(method: Method, scale: int, device: torch.device) -> Cost:
    """Parameters, and the multiplications of one reconstruction of 1000x1000 pixels (no number is computed).

    Convolutions and matrix products count; interpolation, activations and Fourier transforms do not.
    """
    side = 1000 // scale
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        lr, kernel = torch.rand(1, 3, side, side, device=device), torch.rand(1, KERNEL_SIZE, KERNEL_SIZE, device=device)
        method.reconstruct(lr, kernel)
    macs = counter.get_total_flops() / 2 / ((side * scale) ** 2 / 1e6)
    return Cost(sum(parameter_count(network) for network in method.networks), macs)


@torch.no_grad()
def measure_set(
    setup: Setup, name: str, photos: PhotoFolder, scenes: Iterable[Scene], console: Console
) -> tuple[SetResults, list[SceneCrops]]:
    """Run every method over a set, at every width.

    Args:
        setup: What it is measured with.
        name: The set's name.
        photos: Its images.
        scenes: What the figure is to show, of this set and of others.
        console: Where progress is shown.

    Returns:
        The results, and the crops for the figure.
    """
    methods, metrics, widths = setup.methods, setup.metrics, setup.widths
    degradation, device, scale = setup.degradation, setup.device, setup.degradation.scale
    values: dict[tuple[str, str, float], list[float]] = {}
    seconds = dict.fromkeys((method.name for method in methods), 0.0)
    left_out = dict.fromkeys(metrics, 0)
    crops: list[SceneCrops] = []
    shown = {(scene.index, scene.width): scene for scene in scenes if scene.set == name}
    pixels = 0
    for method in methods:  # the first call builds plans and allocates, which is not the method's doing
        lr, kernels = torch.rand(1, 3, 16, 16, device=device), degradation.build(np.ones(1), device=device)
        _timed(method, lr, kernels.kernels, setup.precision)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=len(photos) * len(widths) * len(methods))
        for index, image in enumerate(photos):
            height, breadth = (side // scale * scale for side in image.shape[:2])
            hr = to_images(image[None, :height, :breadth].copy(), device)
            fitting = {n: m for n, m in metrics.items() if min(height, breadth) >= m.min_size + 2 * m.border}
            for metric in set(metrics) - set(fitting):
                left_out[metric] += 1
            reference = {n: m.prepare(hr) for n, m in fitting.items() if m.needs_reference}
            window = _detailed_crop(hr, scale)
            for width in widths:
                kernels = degradation.build(np.array([width]), device=device)
                lr = degradation(hr, kernels)
                pixels += height * breadth
                scene = shown.get((index, width))
                if scene is not None:
                    crops.append(SceneCrops(scene, _cut(lr, window, scale), _cut(hr, window)))
                for method in methods:
                    sr, taken = _timed(method, lr, kernels.kernels, setup.precision)
                    seconds[method.name] += taken
                    measured = {n: float(m(sr, reference.get(n))) for n, m in fitting.items()}
                    for metric, value in measured.items():
                        values.setdefault((method.name, metric, width), []).append(value)
                    if scene is not None:
                        crops[-1].sr[method.name] = _cut(sr, window)
                        crops[-1].values[method.name] = measured
                    progress.advance(task)

    def mean(method: str, metric: str, width: float) -> float | None:
        found = values.get((method, metric, width))
        return float(np.mean(found)) if found else None

    rows = {
        method.name: Row(
            {metric: {str(width): mean(method.name, metric, width) for width in widths} for metric in metrics},
            seconds[method.name] / (pixels / 1e6),
        )
        for method in methods
    }
    return SetResults(len(photos), {metric: count for metric, count in left_out.items() if count}, rows), crops


def _timed(method: Method, lr: Tensor, kernels: Tensor, precision: Precision) -> tuple[Tensor, float]:
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


def _detailed_crop(hr: Tensor, scale: int) -> tuple[int, int, int]:
    """Top, left and side, multiples of the scale, of the square with the strongest gradients in [1, 3, H, W]."""
    side = min(_CROP, *hr.shape[-2:]) // scale * scale
    gray = hr.mean(1, keepdim=True)
    strength = gray.diff(dim=-1).abs()[..., :-1, :] + gray.diff(dim=-2).abs()[..., :-1]
    sums = F.avg_pool2d(strength, side - 1, stride=scale)
    row, column = divmod(int(sums.argmax()), sums.shape[-1])
    return row * scale, column * scale, side


def _cut(image: Tensor, window: tuple[int, int, int], reduced: int = 1) -> NDArray[np.uint8]:
    """A window in HR pixels of an image [1, 3, h, w] that is ``reduced`` times smaller, as uint8 [side, side, 3]."""
    top, left, side = (length // reduced for length in window)
    return to_uint8(image[..., top : top + side, left : left + side])[0]
