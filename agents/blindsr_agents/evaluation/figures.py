"""The figure of crops side by side: which scenes it shows, what is cut from them, and its drawing."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from blindsr_agents.evaluation.methods import PREDICTED, TRUE
from sr_env.metrics import MetricInfo
from sr_env.photos import PhotoFolder
from sr_env.utils.checks import UsageError, check_choice
from sr_env.utils.files import atomic_write
from sr_env.utils.images import to_uint8

#: Images that the figure shows unless others are named: with fine structure, and in many papers.
_SHOWN = {"Set5": "butterfly", "Set14": "comic", "BSD100": "253027"}
#: Metrics that the figure and the tables of each width give, where they were measured.
PER_WIDTH = ("psnr", "lpips")
_CROP = 128  # side of the crops in HR pixels


@dataclass(frozen=True)
class FigureScene:
    """A row of the figure: an image of a set in one condition."""

    set: str
    image: str
    index: int
    condition: str


@dataclass(frozen=True)
class SceneCrops:
    """What the figure shows of a scene, uint8 [h, w, 3]; the values are of the whole image."""

    scene: FigureScene
    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]
    sr: Mapping[str, NDArray[np.uint8]]
    values: Mapping[str, Mapping[str, float]]


def choose_scenes(
    asked: Sequence[str] | None, sets: Mapping[str, PhotoFolder], conditions: Sequence[str]
) -> list[FigureScene]:
    """The rows of the figure.

    Args:
        asked: ``SET/IMAGE`` or ``SET/IMAGE:CONDITION``, such as ``Set5/butterfly:1.3``, the condition being one that is
            measured (the middle one unless given); None takes an image of each set.
        sets: The sets that are measured.
        conditions: Those that are measured.

    Raises:
        UsageError: No such set, image or condition among those that are measured.
    """
    middle = conditions[len(conditions) // 2]
    names = {name: [Path(image).with_suffix("").as_posix() for image in photos.names] for name, photos in sets.items()}
    if asked is None:
        chosen = {group: image if (image := _SHOWN.get(group)) in names[group] else names[group][0] for group in sets}
        asked = [f"{group}/{image}" for group, image in chosen.items()]
    scenes = []
    for text in asked:
        place, _, condition = text.partition(":")
        group, _, image = place.partition("/")
        check_choice(f"set in figure scene {text!r}", group, names)
        if image not in names[group]:
            image = Path(image).with_suffix("").as_posix()
        if image not in names[group]:
            raise UsageError(f"figure scene {text!r}: {group} has no image {image!r} among those that are measured")
        at = condition or middle
        check_choice(f"condition in figure scene {text!r}", at, conditions)
        scenes.append(FigureScene(group, image, names[group].index(image), at))
    return scenes


def detailed_crop(hr: Tensor, scale: int, side: int = _CROP) -> tuple[int, int, int]:
    """Top, left and side, multiples of the scale, of the square with the strongest gradients in [1, 3, H, W]."""
    side = min(side, *hr.shape[-2:]) // scale * scale
    gray = hr.mean(1, keepdim=True)
    strength = gray.diff(dim=-1).abs()[..., :-1, :] + gray.diff(dim=-2).abs()[..., :-1]
    sums = F.avg_pool2d(strength, side - 1, stride=scale)
    row, column = divmod(int(sums.argmax()), sums.shape[-1])
    return row * scale, column * scale, side


def cut(image: Tensor, window: tuple[int, int, int], reduced: int = 1) -> NDArray[np.uint8]:
    """A window in HR pixels of an image [1, 3, h, w] that is ``reduced`` times smaller, as uint8 [side, side, 3]."""
    top, left, side = (length // reduced for length in window)
    return to_uint8(image[..., top : top + side, left : left + side])[0]


def packed(pixels: NDArray[np.uint8]) -> str:
    """Pixels [h, w, 3] as text that JSON holds: a PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return base64.b64encode(file.getvalue()).decode("ascii")


def unpacked(text: str) -> NDArray[np.uint8]:
    """What :func:`packed` was given."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        return np.asarray(image)


def draw_figure(path: Path, crops: Sequence[SceneCrops], columns: Mapping[str, MetricInfo]) -> None:
    """Write a PNG with one row per scene: LR, every method that is blind to the kernel, HR.

    A method that was only run with the true kernel is shown with it.
    """
    methods = list(crops[0].sr)
    shown = [
        name
        for name in methods
        if name.replace(TRUE, PREDICTED) == name or name.replace(TRUE, PREDICTED) not in methods
    ]
    count = len(shown) + 2
    figure = Figure(figsize=(1.9 * count, 2.6 * len(crops)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(crops), count, squeeze=False)
    for row, crop in zip(axes, crops, strict=True):
        pictures = [
            (f"LR\n{crop.scene.set}/{crop.scene.image}\n{crop.scene.condition}", crop.lr),
            *((_caption(name, crop, columns), crop.sr[name]) for name in shown),
            ("HR\n", crop.hr),
        ]
        for axis, (title, picture) in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(title, fontsize=7)
            axis.set_axis_off()
    measured = " / ".join(
        columns[metric].title for metric in PER_WIDTH if metric in next(iter(crops[0].values.values()))
    )
    if measured:
        figure.supxlabel(f"{measured} of the whole image", fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")


def _caption(name: str, crop: SceneCrops, columns: Mapping[str, MetricInfo]) -> str:
    values = crop.values[name]
    return name.replace(", ", "\n") + "\n" + " / ".join(columns[m].format(values[m]) for m in PER_WIDTH if m in values)
