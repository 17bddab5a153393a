"""Pictures as arrays, and what their channels mean: colour that nobody sees, and colour that is none."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sr_env.utils.checks import UsageError


def check_pixels(pixels: NDArray[Any]) -> None:
    """Raise :class:`UsageError` unless an array is a picture: uint8, uint16 or float in [0, 1], ``[H, W(, C)]``."""
    if pixels.ndim not in (2, 3) or 0 in pixels.shape or (pixels.ndim == 3 and pixels.shape[2] not in (1, 2, 3, 4)):
        raise UsageError(f"the image has shape {list(pixels.shape)}: give [H, W] or [H, W, C] with 1 to 4 channels")
    if pixels.dtype not in (np.uint8, np.uint16) and pixels.dtype.kind != "f":
        raise UsageError(f"the image is {pixels.dtype}: give uint8, uint16, or float in [0, 1]")
    if pixels.dtype.kind == "f" and not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise UsageError(f"the image's floats span {pixels.min()} to {pixels.max()}: scale them to [0, 1]")


def pil_pixels(image: Image.Image) -> NDArray[Any]:
    """A PIL image as an array; a palette and CMYK become RGB, bilevel becomes gray.

    Raises:
        UsageError: Its samples have no known range.
    """
    if image.mode in ("I", "F"):
        raise UsageError(f"a PIL image of mode {image.mode} has no known range: give an array of floats in [0, 1]")
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    gray = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return np.asarray(image.convert("LA" if gray else "RGBA"))
    return np.asarray(image.convert("L" if gray else "RGB"))


def rgb(images: Tensor) -> Tensor:
    """[B, 1 to 4, h, w] -> [B, 3, h, w]: gray three times, without alpha."""
    return images[:, :1].expand(-1, 3, -1, -1) if images.shape[1] < 3 else images[:, :3]


def fill_hidden(stack: NDArray[Any]) -> NDArray[Any]:
    """Give pixels of alpha 0 the colour of the nearest visible one, so that what lies there changes nothing.

    Programs leave anything beneath full transparency, often black or white. A renderer would draw it into the edge of
    what is seen.

    Args:
        stack: Pictures [B, H, W, C]; those of one or three channels have no alpha.

    Returns:
        The same array where nothing is hidden, else a copy. A picture without a visible pixel becomes black.
    """
    if stack.shape[3] not in (2, 4):
        return stack
    hidden = stack[..., -1] == 0
    if not hidden.any():
        return stack
    stack = stack.copy()
    for picture, mask in zip(stack, hidden, strict=True):
        if mask.all():
            picture[..., :-1] = 0
        elif mask.any():
            # A label per visible pixel, and of each hidden one that of the visible pixel nearest to it.
            _, labels = cv2.distanceTransformWithLabels(
                mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
            )
            colours = np.zeros((int(labels.max()) + 1, picture.shape[2] - 1), picture.dtype)
            colours[labels[~mask]] = picture[..., :-1][~mask]
            picture[..., :-1][mask] = colours[labels[mask]]
    return stack


def is_gray(stack: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the pictures [B, H, W, C] have R = G = B (or one channel) everywhere: booleans [B]."""
    if stack.shape[3] < 3:
        return np.ones(len(stack), np.bool_)
    return np.array([bool((picture[..., :2] == picture[..., 1:3]).all()) for picture in stack], np.bool_)
