"""What a picture's channels mean to the renderer: colour that nobody sees, and colour that is none."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor


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
