"""The benchmark sets and the metrics that are at hand, and a line for each that is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from sr_env.metrics import Metric, create_metric, describe
from sr_env.photos import PhotoFolder
from sr_env.simulator import CONSISTENCY
from sr_env.utils.checks import MIN_LR_SIZE, MissingFileError, UsageError, WeightsUnavailable
from sr_env.utils.provenance import public_path

#: What is reported of pictures that have no HR.
WITHOUT_HR = ("niqe", "brisque", CONSISTENCY)
#: Metrics that leave out a border of ``scale`` pixels, as papers report them; the others see the whole image.
_BORDERED = ("psnr", "psnr_rgb", "ssim")


def open_sets(
    folder: Path | None, names: Sequence[str], scale: int, limit: int | None = None
) -> tuple[dict[str, PhotoFolder], list[str]]:
    """The sets that are there, and a line for each that is not.

    Args:
        folder: Holds one folder of HR images per set.
        names: The sets.
        scale: Magnification; images under eight LR pixels are skipped.
        limit: Images per set; None takes all.

    Raises:
        MissingFileError: The folder, or every set in it, is missing.
        UsageError: No folder is given, a set holds no usable image, or the limit is under one.
    """
    if folder is None:
        raise UsageError("no folder of benchmark sets is given: add --bench-dir FOLDER, with one folder per set in it")
    if not folder.is_dir():
        raise MissingFileError(f"no folder {str(folder)!r}: --bench-dir names the one that holds the sets")
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} images per set leaves none: give 1 or more")
    present = [name for name in dict.fromkeys(names) if (folder / name).is_dir()]
    if not present:
        raise MissingFileError(f"none of {', '.join(names)} is in {str(folder)!r}")
    missing = [
        f"{name}: no such folder in {public_path(folder)}" for name in dict.fromkeys(names) if name not in present
    ]
    return {n: PhotoFolder(folder / n, min_size=MIN_LR_SIZE * scale, max_photos=limit) for n in present}, missing


def open_lr_photos(folder: Path, limit: int | None = None) -> dict[str, PhotoFolder]:
    """The photographs of a folder, to be enlarged as they are, as one set of the folder's name.

    Raises:
        MissingFileError: The folder is missing.
        UsageError: It holds no usable image, or the limit is under one.
    """
    return {folder.resolve().name: PhotoFolder(folder, min_size=MIN_LR_SIZE, max_photos=limit)}


def create_metrics(names: Sequence[str], scale: int, device: torch.device) -> tuple[dict[str, Metric], list[str]]:
    """The metrics whose weights can be had, and a line for each whose cannot.

    The consistency, which a simulator measures itself, is left out.

    Raises:
        UsageError: An unknown name.
    """
    names = [name for name in names if name != CONSISTENCY]
    for name in names:
        describe(name)  # refuses an unknown one before any is made
    metrics, unavailable = {}, []
    for name in dict.fromkeys(names):
        try:
            metrics[name] = create_metric(name, border=scale if name in _BORDERED else 0, device=device)
        except WeightsUnavailable as error:
            unavailable.append(f"{name}: {error}")
    return metrics, unavailable
