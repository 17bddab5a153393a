"""Enlarge blurry photographs: ``SR = G(LR, mu(LR))`` for files, folders and patterns.

    blindsr upscale holiday/ portrait.jpg 'scans/*.tif' -o enlarged

Every file keeps its format, depth, colour profile, metadata and pages. The predictor sees the whole picture, or nine
squares of it where it is large (:class:`sr_env.upscale.Upscaler`). A file that cannot be read is named at the end, and
the others are done.
"""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sr_env.cli.upscale_jobs import Job, Plan, check_outputs, plan_jobs, prepare_folders
from sr_env.cli.upscale_report import Record, write_report
from sr_env.metrics import Metric, create_metric
from sr_env.photos import (
    FORMATS,
    Picture,
    check_size,
    encoding_memory,
    list_pages,
    read_picture,
    stamped,
    suited,
    to_8_bit,
    write_pages,
    write_picture,
)
from sr_env.upscale import Size, Upscaled, Upscaler, list_models
from sr_env.utils.checks import MissingFileError, UsageError
from sr_env.utils.devices import Precision
from sr_env.utils.files import atomic_write, check_writable
from sr_env.utils.images import to_images
from sr_env.utils.signals import orderly_termination

#: Bytes the process takes without any picture: Python, torch and two networks (measured: 330 MB), and some to spare.
_PROCESS = 450_000_000
#: NIQE is measured on the middle of a picture, of at most so many LR pixels a side.
_NIQE_SIDE = 384
#: Settings that say what is enlarged, where and how fast, and change no result (the model is named apart).
_UNCHANGING = frozenset(
    (
        "inputs",
        "out",
        "model",
        "clean",
        "scale",
        "format",
        "quality",
        "max_memory",
        "device",
        "precision",
        "resume",
        "force",
        "json",
    )
)


@dataclass
class Settings:
    """Enlarge photographs.

    Attributes:
        inputs: Pictures, folders (searched with their subfolders) and patterns such as 'scans/**/*.tif'.
        out: Folder for the results, which keep their names and subfolders; or, for a single picture, a file name. None
            puts photo_x4.jpg (photo_x2.5.jpg, photo_3000px.jpg) beside photo.jpg.
        scale: Magnification of the model; None takes the model's, or 4.
        factor: By how much pictures are enlarged, over 1 to 16; None takes the scale. Over it they are enlarged twice,
            and otherwise reduced afterwards.
        width: Width of the results in pixels, in place of a factor.
        model: Renderer: a name such as amnet_x4 or a file, .safetensors or .onnx; None takes amgan_real_x4 at x4, else
            amnet_l_xN; list lists the released ones.
        clean: Where no model is named, take amgan_x4, which knows of blur alone: for photographs without noise and
            traces of JPEG.
        texture: In the place of a model, x4 alone: 0 is faithful (AMNet), 1 textured (AMGAN), and what lies between
            takes the time of both.
        predictor: Kernel predictor: a name or a file; None takes the released one of the renderer's kernels.
        kernel_width: Blur given instead of predicted: width of a Gaussian in HR pixels.
        kernel_file: Blur given instead of predicted: .npy file with a kernel [21, 21] at HR resolution.
        denoise: Share of noise and of traces of JPEG that is taken away, 0 to 1, by a model that knows of them.
        spatially_varying: Predict the blur of each region of 128x128 pixels instead of one for the picture.
        format: Format of the results; keep takes the input's (PNG for what is not written, such as HEIC).
        quality: Of JPEG and WebP, 1 to 100; WebP at 100 is lossless.
        max_memory: GB that may be taken at most; tiles are sized by it. On a GPU: for its tiles.
        device: Where to compute: auto, cpu, cuda, cuda:N or mps.
        precision: auto takes bf16 where the device computes in it.
        resume: Skip pictures whose result is there.
        force: Overwrite results that are there.
        json: File for a report: per picture the kernel code and equivalent width, seconds, NIQE before and after.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    scale: Literal[2, 3, 4] | None = None
    factor: float | None = None
    width: int | None = None
    model: str | None = None
    clean: bool = False
    texture: float | None = None
    predictor: str | None = None
    kernel_width: float | None = None
    kernel_file: Path | None = None
    denoise: float | None = None
    spatially_varying: bool = False
    format: Literal["keep", "png", "jpg", "webp", "tif"] = "keep"
    quality: int = 95
    max_memory: float = 2.0
    device: str = "auto"
    precision: Precision = "auto"
    resume: bool = False
    force: bool = False
    json: Path | None = None


# ------------------------------------------------------------------------------------------------------- one picture


class Worker:
    """Enlarges one file after the other.

    Args:
        upscaler: The models.
        max_memory: Bytes that the process may take, or on a GPU its tiles.
        quality: Of JPEG and WebP.
        niqe: Whether NIQE is measured.
        maker: What results say, in their EXIF block, of how they were made.
        size: How large results are; None takes the renderer's scale.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        max_memory: float,
        quality: int = 95,
        niqe: bool = False,
        maker: str = "blindsr",
        size: Size | None = None,
    ) -> None:
        self.size = size or Size(upscaler.scale)
        self.upscaler, self.max_memory, self.quality, self.maker = upscaler, max_memory, quality, maker
        self.niqe: Metric | None = create_metric("niqe") if niqe else None

    def run(self, job: Job, progress: Any = None) -> Record:
        """Enlarge a file.

        Args:
            job: The file.
            progress: Called after every batch of tiles with the number done and the number of all.

        Raises:
            UsageError: The picture cannot be read, or is too large for the memory or the format.
            OSError: The result cannot be written.
        """
        begun = time.perf_counter()
        record = Record(str(job.source), str(job.target))
        numbers = list_pages(job.source)
        kept: list[Upscaled] = []
        if len(numbers) > 1 and FORMATS[job.target.suffix.lower()] == "TIFF":
            record.pages = len(numbers)
            pages = (self._page(job, page, record, kept, progress) for page in numbers)
            with atomic_write(job.target) as temporary:
                write_pages(temporary, pages)
        else:
            picture = self._page(job, None, record, kept, progress)
            with atomic_write(job.target) as temporary:
                write_picture(temporary, picture, quality=self.quality)
        record.seconds = round(time.perf_counter() - begun, 3)
        record.tiles = sum(result.tiles for result in kept)
        record.kernel_code = [round(float(x), 4) for x in np.concatenate([result.codes for result in kept]).mean(0)]
        widths = np.concatenate([result.widths for result in kept])
        record.kernel_width = round(float(widths.mean()), 3)
        if kept[0].levels:
            noise, quality = (np.concatenate([x.levels[name] for x in kept]).mean() for name in ("noise", "quality"))
            record.noise, record.jpeg_quality = round(float(noise), 2), round(float(quality), 1)
        if self.upscaler.spatially_varying or record.pages:
            record.kernel_widths = [round(float(x), 3) for x in widths]
        return record

    def _page(self, job: Job, page: int | None, record: Record, kept: list[Upscaled], progress: Any) -> Picture:
        """Enlarge a page (None: the picture), and keep of it what the record says of all, without its pixels."""
        suffix = job.target.suffix.lower()
        picture = suited(read_picture(job.source, page), suffix)
        height, width = self.size.of(*picture.pixels.shape[:2])
        check_size(suffix, height, width, picture.pixels[0, 0].nbytes)
        self._tile_memory(suffix, picture.pixels, self.size.passes(*picture.pixels.shape[:2]))
        result = self.size.make(
            self.upscaler, picture.pixels, progress, lambda pixels: self._tile_memory(suffix, pixels)
        )
        if not kept:
            record.size = (width, height)
            if self.niqe is not None:
                record.niqe_before, record.niqe_after = self._niqe(picture, result.pixels)
        kept.append(replace(result, pixels=np.empty(0)))
        record.notes = tuple(dict.fromkeys((*record.notes, *picture.notes)))
        return replace(picture, pixels=result.pixels, exif=stamped(picture.exif, self.maker))

    def _tile_memory(self, suffix: str, pixels: NDArray[Any], passes: int = 1) -> float:
        """Bytes left for tiles once the process and both pictures have theirs.

        Raises:
            UsageError: They take more than there is.
        """
        larger = self.upscaler.scale ** (2 * passes)
        result = pixels.nbytes * larger
        count = pixels.shape[0] * pixels.shape[1]
        channels = pixels[0, 0].size
        encoding = encoding_memory(suffix, count * larger, channels, pixels.itemsize)
        hidden = pixels.nbytes + 8 * count if channels in (2, 4) else 0  # a copy, and where the nearest colour is
        fixed = _PROCESS + pixels.nbytes + result + hidden
        if fixed + encoding > self.max_memory:
            raise UsageError(
                f"enlarging {pixels.shape[1]}x{pixels.shape[0]} by {self.upscaler.scale**passes} takes "
                f"{(fixed + encoding) / 1e9:.1f} GB, over the limit of {self.max_memory / 1e9:.1f} GB: "
                "raise --max-memory"
            )
        return self.max_memory - fixed if self.upscaler.device.type == "cpu" else self.max_memory

    @torch.inference_mode()
    def _niqe(self, picture: Picture, result: NDArray[Any]) -> tuple[float | None, float | None]:
        """NIQE of the middle of the picture, and of the same part of the result."""
        assert self.niqe is not None
        height, width = picture.pixels.shape[:2]
        if min(height, width) < self.niqe.min_size:
            return None, None
        tall, wide = min(height, _NIQE_SIDE), min(width, _NIQE_SIDE)
        top, left = (height - tall) // 2, (width - wide) // 2
        values = []
        for pixels in (picture.pixels, result):
            y, x = (after / before for after, before in zip(pixels.shape[:2], (height, width), strict=True))
            part = pixels[round(y * top) : round(y * (top + tall)), round(x * left) : round(x * (left + wide))]
            part = to_8_bit(part) if part.dtype == np.uint16 else part
            part = part[:, :, None] if part.ndim == 2 else part
            rgb = np.repeat(part[:, :, :1], 3, axis=2) if part.shape[2] < 3 else part[:, :, :3]
            values.append(round(float(self.niqe(to_images(np.ascontiguousarray(rgb)[None]))), 3))
        return values[0], values[1]


# -------------------------------------------------------------------------------------------------------- all of them


def create_upscaler(settings: Settings) -> Upscaler:
    """The models and the kernel that the settings name.

    Raises:
        MissingFileError: No such model or kernel file.
        UsageError: A setting is wrong or does not fit the others.
    """
    kernel = None
    if settings.kernel_file is not None:
        if not settings.kernel_file.exists():
            raise MissingFileError(f"no kernel file {str(settings.kernel_file)!r}: write it with np.save")
        try:
            kernel = np.load(settings.kernel_file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UsageError(
                f"{str(settings.kernel_file)!r} is no .npy file ({error}): write it with np.save"
            ) from error
    return Upscaler(
        settings.model,
        texture=settings.texture,
        clean=settings.clean,
        scale=settings.scale,
        predictor=settings.predictor,
        device=settings.device,
        precision=settings.precision,
        spatially_varying=settings.spatially_varying,
        kernel_width=settings.kernel_width,
        kernel=kernel,
        denoise=settings.denoise,
    )


def upscale(settings: Settings, console: Console) -> list[Record]:
    """Enlarge everything; failures are recorded, and the rest goes on.

    Raises:
        MissingFileError: An input or a model is not there. As all of these: before any work.
        UsageError: A setting is wrong, no input can be done, or results are there.
        OSError: A folder cannot be written.
    """
    if not 1 <= settings.quality <= 100:
        raise UsageError(f"--quality {settings.quality}: give 1 to 100")
    if not settings.max_memory > 0:
        raise UsageError(f"--max-memory {settings.max_memory}: give a positive number of GB")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        upscaler = create_upscaler(settings)
    for warning in caught:
        _print(console, f"warning: {warning.message}")
    size = Size(upscaler.scale, settings.factor, settings.width)
    plan = plan_jobs(settings.inputs, settings.out, settings.format, size.ending)
    maker = describe(settings, upscaler)
    finished = check_outputs(plan.jobs, size, maker, resume=settings.resume, force=settings.force)
    prepare_folders(plan, settings.out)
    if settings.json is not None:
        check_writable(settings.json.parent)
    niqe = settings.json is not None
    worker = Worker(upscaler, settings.max_memory * 1e9, settings.quality, niqe=niqe, maker=maker, size=size)
    records: list[Record] = []
    if plan.left_out:
        first, rest = plan.left_out[:3], len(plan.left_out[3:])
        more = f" and {rest} more" if rest else ""
        _print(console, f"left out, of kinds that are not read: {', '.join(first)}{more}")
    try:
        with orderly_termination():
            for record in _work(worker, plan, finished, console):
                records.append(record)
                if record.status != "skipped":
                    _print(console, record.line)
    finally:  # an interrupted run reports what it did
        if settings.json is not None:
            write_report(settings.json, upscaler, records, plan.left_out)
    return records


def _work(worker: Worker, plan: Plan, finished: set[Path], console: Console) -> Iterator[Record]:
    """Do one picture after the other, under two bars where a terminal shows them."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    with bars if console.is_terminal else nullcontext():
        whole, one = bars.add_task("pictures", total=len(plan.jobs)), bars.add_task("tiles", total=None)
        for job in plan.jobs:
            bars.update(one, description=job.source.name, completed=0, total=None)
            if job.source in finished:
                yield Record(str(job.source), str(job.target), "skipped")
            else:
                yield _attempt(worker, job, lambda done, total: bars.update(one, completed=done, total=total))
            bars.advance(whole)
    for source, target, reason in plan.failures:
        yield Record(source, target, "failed", reason)


def describe(settings: Settings, upscaler: Upscaler) -> str:
    """How this run makes its results: the model, and every setting that changes them, files with a digest.

    Such as ``"blindsr: amgan_x4"`` or ``"blindsr: amnet_x4, kernel_width 1.4"``; without folders, which are nobody's
    business where a picture goes.
    """

    def named(value: Any) -> str:
        path = Path(str(value))
        if isinstance(value, str | Path) and path.is_file():
            return f"{path.name} ({hashlib.sha256(path.read_bytes()).hexdigest()[:8]})"
        return str(value)

    changed = [
        f"{field.name} {named(value)}"
        for field in fields(settings)
        if field.name not in _UNCHANGING and (value := getattr(settings, field.name)) != field.default
    ]
    # As ASCII, which is what the tag holds.
    return ", ".join((f"blindsr: {named(upscaler.model)}", *changed)).encode("ascii", "replace").decode()


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _attempt(worker: Worker, job: Job, progress: Any) -> Record:
    try:
        return worker.run(job, progress)
    except (UsageError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        return Record(str(job.source), str(job.target), "failed", str(error) or type(error).__name__)


def main(settings: Settings) -> None:
    """Enlarge, say what became of every picture, and exit with status 1 where one failed."""
    if settings.model == "list":
        print("\n".join(list_models()))
        return
    console = Console(stderr=True)
    records = upscale(settings, console)
    count = {status: sum(record.status == status for record in records) for status in ("done", "skipped", "failed")}
    console.print(", ".join(f"{number} {status}" for status, number in count.items() if number), highlight=False)
    failed = [record for record in records if record.status == "failed"]
    if failed:
        for record in failed if len(records) > 1 else ():
            _print(console, record.line)
        sys.exit(1)
