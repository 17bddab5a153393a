"""What the page of ``blindsr demo`` shows: an opened photograph, its kernel, and what the renderer makes of both.

Nothing here knows of the page; :mod:`sr_env.cli.demo` builds that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from sr_env.degradation import Degradation, bicubic_resize, isotropic_kernels, level_values
from sr_env.metrics import Metric, create_metric
from sr_env.models import available_checkpoints, check_texture
from sr_env.photos import BundledPhotos, read_image, read_picture, read_shape, suited, write_picture
from sr_env.upscale import Progress, Upscaler, equivalent_widths, level_shares
from sr_env.utils.checks import MIN_LR_SIZE, UsageError
from sr_env.utils.devices import Precision
from sr_env.utils.files import atomic_write
from sr_env.utils.images import to_images, to_uint8

#: LR pixels a side of the part that is rendered anew whenever the kernel moves.
DETAIL = 160
#: Code components that the page has sliders for; the later ones hardly change the picture.
SHIFTED = 3
#: The models that the page's slider of texture moves, and whether they are for clean photographs.
BLEND, CLEAN_BLEND = "AMNet to AMGAN", "AMNet to AMGAN, for clean photographs"
BLENDS: Mapping[str, bool] = {BLEND: False, CLEAN_BLEND: True}
#: Narrowest kernel that the page offers, in HR pixels, and the widest as a share of the kernels' side.
_NARROWEST, _WIDEST = 0.2, 4 / 21
#: Metrics against the ground truth, and how their bars are titled.
METRICS: Mapping[str, str] = {
    "psnr": "PSNR (Y) of what is shown, dB",
    "ssim": "SSIM (Y)",
    "lpips": "LPIPS, lower is better",
}
#: Blur of the examples, in HR pixels.
_EXAMPLE_WIDTHS = (1.0, 2.0, 3.0)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """An opened photograph and where its user stands.

    Attributes:
        path: The photograph's file.
        model: Renderer.
        lr: The photograph, uint8 ``[h, w, 3]``.
        truth: What SR should be, uint8 ``[s*h, s*w, 3]``; None where it is not known.
        predicted: The predictor's code, float32 ``[L]``.
        base: The code that the sliders of components add to: the predicted one, or a Gaussian's.
        shifts: What they add to the first components, in standard deviations.
        centre: LR row and column of the middle of the detail.
        texture: From 0, faithful, to 1, textured; None where the model has no such range.
        denoise: Share of noise and of traces of JPEG that is taken away, 0 to 1; None where the model knows of none.
        shares: What that multiplies the code by, float32 ``[L]``.
        widths: Narrowest and widest kernel on offer, in HR pixels.
    """

    path: Path
    model: str
    lr: Pixels
    truth: Pixels | None
    predicted: NDArray[np.float32]
    base: NDArray[np.float32]
    shifts: tuple[float, ...]
    centre: tuple[int, int]
    texture: float | None
    denoise: float | None
    shares: NDArray[np.float32]
    widths: tuple[float, float]

    @property
    def code(self) -> NDArray[np.float32]:
        """The code to render with, float32 ``[L]``."""
        code = self.base * self.shares
        code[: len(self.shifts)] += np.asarray(self.shifts, np.float32)
        return code

    @property
    def detail(self) -> tuple[slice, slice]:
        """Rows and columns of the LR picture that are shown: all of it, or ``DETAIL`` a side around the centre."""
        parts = []
        for middle, length in zip(self.centre, self.lr.shape[:2], strict=True):
            first = min(max(0, middle - DETAIL // 2), max(0, length - DETAIL))
            parts.append(slice(first, min(length, first + DETAIL)))
        return parts[0], parts[1]


@dataclass(frozen=True)
class Shown:
    """What is drawn of a view.

    Attributes:
        before: The detail enlarged bicubically, uint8 ``[s*h, s*w, 3]``.
        after: The detail rendered, likewise.
        kernel: Drawing of the predicted kernel and the one in use, uint8 RGB.
        bars: Drawing of the metrics, uint8 RGB; None without ground truth.
        values: Metric -> its value for the bicubic picture and for the rendered one.
        width: Width of the isotropic Gaussian nearest to the code in use, in HR pixels.
        text: The same in words.
    """

    before: Pixels
    after: Pixels
    kernel: Pixels
    bars: Pixels | None
    values: Mapping[str, tuple[float, float]]
    width: float
    text: str


class Studio:
    """Opens photographs and renders them with any code. May be shared by threads: renderings take turns.

    Args:
        model: Renderer that is chosen first, by name or path; :data:`BLENDS`, which lie between two by their texture,
            and the other released ones are offered beside it.
        device: Where to compute.
        precision: ``"auto"`` takes bf16 where the device computes in it.
        max_pixels: LR pixels of the largest photograph that is opened.

    Raises:
        MissingFileError: No such model.
        UsageError: The model is damaged, a setting is wrong, or the limit is under 64 pixels.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = BLEND,
        *,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        max_pixels: int = 1_000_000,
    ) -> None:
        if max_pixels < MIN_LR_SIZE**2:
            raise UsageError(f"at most {max_pixels} pixels leave no photograph: give {MIN_LR_SIZE**2} or more")
        self.model, self.max_pixels = str(model), max_pixels
        self.models = tuple(dict.fromkeys((self.model, *BLENDS, *available_checkpoints("renderer"))))
        self._options = {"device": device, "precision": precision}
        self._upscalers: dict[str, Upscaler] = {}
        self._lock = threading.Lock()
        self.upscaler(self.model)

    def upscaler(self, model: str) -> Upscaler:
        """The upscaler of a model that is offered, loaded when first asked for.

        Raises:
            UsageError: It is not offered (a name from outside must not open files), or is damaged.
        """
        if model not in self.models:
            raise UsageError(f"unknown model {model!r}: choose one of {', '.join(self.models)}")
        if model not in self._upscalers:
            chosen = {"texture": 1.0, "clean": BLENDS[model]} if model in BLENDS else {"model": model}
            self._upscalers[model] = Upscaler(**chosen, **self._options)  # type: ignore[arg-type]
        return self._upscalers[model]

    def open(
        self,
        path: str | os.PathLike[str],
        truth: str | os.PathLike[str] | None,
        model: str,
        texture: float = 1.0,
        denoise: float = 1.0,
    ) -> View:
        """Open a photograph and predict its kernel.

        Args:
            path: Its file.
            truth: File of what SR should be; None where it is not known.
            model: Renderer.
            texture: From 0, faithful, to 1, textured; of no effect where the model has no such range.
            denoise: Share of noise and of traces of JPEG that is taken away; of no effect where it knows of none.

        Raises:
            UsageError: A file is no picture, is too large or too small, the two do not fit each other, the model is
                unknown, or the texture or the share outside [0, 1].
        """
        check_texture(texture)
        upscaler, path = self.upscaler(model), Path(path)
        lr = self._read(path, self.max_pixels)
        if min(lr.shape[:2]) < MIN_LR_SIZE:
            raise UsageError(
                f"{path.name!r} has {lr.shape[1]}x{lr.shape[0]} pixels: give {MIN_LR_SIZE} or more on each side"
            )
        target = None
        if truth is not None:
            target = self._read(Path(truth), self.max_pixels * upscaler.scale**2)
            expected = (upscaler.scale * lr.shape[0], upscaler.scale * lr.shape[1])
            if target.shape[:2] != expected:
                raise UsageError(
                    f"the ground truth has {target.shape[1]}x{target.shape[0]} pixels, the result {expected[1]}x"
                    f"{expected[0]}: give the {upscaler.scale} times larger original, or none"
                )
        with self._lock:
            code = upscaler.predict(lr)
        centre = (lr.shape[0] // 2, lr.shape[1] // 2)
        own, basis = None if upscaler.texture is None else texture, upscaler.basis
        widths = (_NARROWEST, float(round(_WIDEST * basis.kernel_size)))
        shifts, ones = (0.0,) * SHIFTED, np.ones_like(code)
        view = View(path, model, lr, target, code, code, shifts, centre, own, None, ones, widths)
        return self.with_denoise(view, denoise) if basis.levels else view

    def _read(self, path: Path, limit: int) -> Pixels:
        """A file as uint8 RGB, with messages that name the file as its user does."""
        try:
            height, width = read_shape(path)  # from the header: a bomb is not decoded
            if height * width > limit:
                needed = -(-height * width * self.max_pixels // limit)
                raise UsageError(
                    f"{path.name!r} has {width}x{height} pixels, over the limit of {limit / 1e6:g} megapixels: crop "
                    f"it, start blindsr demo with --max-pixels {needed}, or enlarge the file with blindsr upscale"
                )
            return read_image(path)
        except (UsageError, OSError) as error:
            raise UsageError(str(error).replace(str(path), path.name)) from error

    def with_width(self, view: View, width: float) -> View:
        """Take the isotropic Gaussian of a width, in HR pixels, in the place of the predicted kernel.

        Raises:
            UsageError: The width is outside the view's ``widths``.
        """
        if not view.widths[0] <= width <= view.widths[1]:
            raise UsageError(f"kernel width {width}: give {view.widths[0]} to {view.widths[1]} pixels of the result")
        basis = self.upscaler(view.model).basis
        kernel = isotropic_kernels(torch.tensor([float(width)], device=basis.mean.device), basis.kernel_size)
        coefficients = basis.encode(kernel)[0, : basis.coefficients].cpu().numpy()
        return replace(view, base=np.concatenate((coefficients, view.predicted[basis.coefficients :])))

    def with_texture(self, view: View, texture: float) -> View:
        """Move between the faithful and the textured renderer.

        Raises:
            UsageError: The texture is outside [0, 1], or the model has no such range.
        """
        check_texture(texture)
        if view.texture is None:
            raise UsageError(f"texture {texture}: {view.model} is one renderer, choose {' or '.join(BLENDS)}")
        return replace(view, texture=texture)

    def with_denoise(self, view: View, denoise: float) -> View:
        """Take away another share of the noise and of the traces of JPEG.

        Raises:
            UsageError: The share is outside [0, 1], or the model knows of no noise.
        """
        basis = self.upscaler(view.model).basis
        if not (basis.levels and 0 <= denoise <= 1):
            known = "" if basis.levels else f"; {view.model} knows of no noise, choose {BLEND}"
            raise UsageError(f"denoise {denoise}: give a share from 0 to 1{known}")
        return replace(view, denoise=denoise, shares=level_shares(basis, denoise).cpu().numpy())

    def _render(self, view: View, pixels: NDArray[Any], progress: Progress | None = None) -> NDArray[Any]:
        """Enlarge pixels as a view asks; the lock must be held, since the texture is the upscaler's."""
        upscaler = self.upscaler(view.model)
        if view.texture is not None:
            upscaler.texture = view.texture
        return upscaler.upscale(pixels, code=view.code, progress=progress).pixels

    @torch.inference_mode()
    def show(self, view: View) -> Shown:
        """Render the detail of a view and draw what belongs to it.

        The renderer sees as much around the detail as it can reach, so that the detail is what the whole picture
        would show there.
        """
        upscaler = self.upscaler(view.model)
        s, rows, columns = upscaler.scale, *view.detail
        radius = upscaler.renderer.receptive_radius
        top, left = max(0, rows.start - radius), max(0, columns.start - radius)
        around = view.lr[top : rows.stop + radius, left : columns.stop + radius]
        inner = tuple(slice(s * (part.start - o), s * (part.stop - o)) for part, o in ((rows, top), (columns, left)))
        with self._lock:
            after = self._render(view, np.ascontiguousarray(around))[inner]
            size = (s * around.shape[0], s * around.shape[1])
            before = to_uint8(bicubic_resize(to_images(np.ascontiguousarray(around)[None]), size).clamp(0, 1))[0][inner]
            values: dict[str, tuple[float, float]] = {}
            if view.truth is not None:
                target = view.truth[s * rows.start : s * rows.stop, s * columns.start : s * columns.stop]
                values = _measure(np.stack([before, after]), target, s)
        basis = upscaler.basis
        codes = torch.from_numpy(np.stack([view.predicted, view.code])).to(basis.mean.device)
        widths = equivalent_widths(codes, basis).tolist()
        predicted, used = basis.decode(codes).cpu().numpy()
        text = f"Predicted kernel: as wide as a Gaussian of {widths[0]:.2f} pixels of the result."
        if not np.array_equal(view.predicted, view.code):
            text += f" In use: {widths[1]:.2f}."
        if basis.levels:
            seen = {name: float(value[0]) for name, value in level_values(codes[:1, basis.coefficients :]).items()}
            text += f" Seen: noise of {seen['noise']:.1f} grey levels, JPEG of quality {seen['quality']:.0f}."
        if view.lr.shape[0] > DETAIL or view.lr.shape[1] > DETAIL:
            text += " A part is shown: click into the photograph to choose another."
        return Shown(before, after, _draw_kernels(predicted, used, widths), _draw_bars(values), values, widths[1], text)

    def write_whole(self, view: View, path: Path, progress: Progress | None = None) -> None:
        """Enlarge all of the photograph with the code in use, in its own depth, channels and profile, as PNG.

        Args:
            view: What to enlarge.
            path: ``.png`` file to write (atomically).
            progress: Called after every batch of tiles.

        Raises:
            UsageError: The file has changed into something that cannot be read.
            OSError: The result cannot be written.
        """
        picture = read_picture(view.path)
        with self._lock:
            pixels = self._render(view, picture.pixels, progress)
        with atomic_write(path) as temporary:
            write_picture(temporary, suited(replace(picture, pixels=pixels), ".png"))


def write_examples(folder: Path, scale: int) -> list[tuple[Path, Path]]:
    """Degrade the bundled photographs that nothing was trained on, and write them with their originals.

    Args:
        folder: Where the PNG files go.
        scale: Reduction.

    Returns:
        Per photograph the files of LR and HR.
    """
    degradation = Degradation(scale=scale)
    written = []
    photos = BundledPhotos("test")
    for photo, name, width in zip(photos, photos.names, _EXAMPLE_WIDTHS, strict=True):
        height, wide = (side // scale * scale for side in photo.shape[:2])
        hr = photo[:height, :wide].copy()  # sources hand out read-only arrays
        lr = to_uint8(degradation(to_images(hr[None]), degradation.build(np.array([width]))))[0]
        files = folder / f"{Path(name).stem}_width_{width:g}.png", folder / f"{Path(name).stem}_original.png"
        for file, pixels in zip(files, (lr, hr), strict=True):
            with atomic_write(file) as temporary:
                Image.fromarray(pixels).save(temporary)
        written.append(files)
    return written


@lru_cache(maxsize=16)
def _metric(name: str, border: int) -> Metric:
    with torch.inference_mode(False):  # metrics share their backbones with others, which may need gradients
        return create_metric(name, border=border)


def _measure(results: Pixels, truth: Pixels, border: int) -> dict[str, tuple[float, float]]:
    """Metric -> values of both results; those that need more pixels than are shown are left out."""
    images = to_images(results)
    target = to_images(np.ascontiguousarray(truth)[None]).expand_as(images)
    values = {}
    for name in METRICS:
        metric = _metric(name, border)
        if min(truth.shape[:2]) - 2 * border >= metric.min_size:
            before, after = metric(images, target).tolist()
            values[name] = (before, after)
    return values


def _pixels(figure: Figure) -> Pixels:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def _draw_kernels(predicted: NDArray[np.float32], used: NDArray[np.float32], widths: Sequence[float]) -> Pixels:
    figure = Figure(figsize=(7.2, 2.6), dpi=100, layout="constrained")
    axes = figure.subplots(1, 3)
    peak = float(max(predicted.max(), used.max()))
    for axis, kernel, name, width in zip(axes, (predicted, used), ("predicted", "in use"), widths, strict=False):
        axis.imshow(np.sqrt(kernel.clip(0, peak)), cmap="inferno", vmin=0, vmax=np.sqrt(peak))
        axis.set(title=f"{name}: width {width:.2f}", xticks=[], yticks=[])
    reach = len(used) // 2
    offsets = np.arange(-reach, reach + 1)
    axes[2].plot(offsets, predicted[reach], "--", color="tab:gray", label="predicted")
    axes[2].plot(offsets, used[reach], color="tab:orange", label="in use")
    axes[2].set(title="middle row", xlabel="pixels of the result")
    axes[2].legend(fontsize=8)
    return _pixels(figure)


def _draw_bars(values: Mapping[str, tuple[float, float]]) -> Pixels | None:
    if not values:
        return None
    figure = Figure(figsize=(7.2, 2.4), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(values), squeeze=False)[0]
    for axis, (name, pair) in zip(axes, values.items(), strict=True):
        finite = [value if np.isfinite(value) else 100.0 for value in pair]  # equal pictures have infinite PSNR
        bars = axis.bar(("bicubic", "SR"), finite, color=("tab:gray", "tab:orange"))
        axis.bar_label(bars, [f"{value:.4g}" for value in pair])
        axis.set_title(METRICS[name], fontsize=10)
        axis.margins(y=0.15)
    return _pixels(figure)
