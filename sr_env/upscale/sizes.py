"""Sizes that no renderer makes by itself: any factor, or a width in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sr_env.upscale.upscaler import Progress, Upscaled, Upscaler
from sr_env.utils.checks import UsageError

#: Largest factor: two passes of x4.
LARGEST = 16.0


@dataclass(frozen=True)
class Size:
    """How large results are, of pictures of any size.

    A renderer of a scale s makes pictures s times as large. Others take as few passes as reach them, and are then
    reduced by the mean of what each pixel covers.

    Attributes:
        scale: The renderer's.
        factor: By which sides are multiplied; None takes the scale.
        width: In pixels, in place of a factor.

    Raises:
        UsageError: Both are given, or one is out of range.
    """

    scale: int
    factor: float | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if self.factor is not None and self.width is not None:
            raise UsageError(f"factor {self.factor:g} and width {self.width} are both given: leave one out")
        if self.factor is not None and not 1 < self.factor <= LARGEST:
            raise UsageError(f"factor {self.factor:g}: give more than 1 and at most {LARGEST:g}")
        if self.width is not None and self.width < 1:
            raise UsageError(f"width {self.width}: give a positive number of pixels")

    @property
    def ending(self) -> str:
        """What the names of results say of it: "x4", "x2.5", "3000px"."""
        return f"{self.width}px" if self.width is not None else f"x{self.factor or self.scale:g}"

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result.

        Raises:
            UsageError: The picture is as wide already, or would be enlarged too much.
        """
        if self.width is not None:
            if not width < self.width <= LARGEST * width:
                raise UsageError(
                    f"the picture is {width} pixels wide: give more, and at most {LARGEST:g} times as much, for width "
                    f"{self.width}"
                )
            return max(1, round(height * self.width / width)), self.width
        factor = self.factor or self.scale
        return round(height * factor), round(width * factor)

    def passes(self, height: int, width: int) -> int:
        """How often the renderer enlarges."""
        result = self.of(height, width)
        least = max(side / own for side, own in zip(result, (height, width), strict=True))
        return max(1, math.ceil(math.log(least) / math.log(self.scale) - 1e-9))

    def make(
        self,
        upscaler: Upscaler,
        pixels: NDArray[Any],
        progress: Progress | None = None,
        max_memory: Callable[[NDArray[Any]], float] | None = None,
    ) -> Upscaled:
        """Enlarge pixels to this size.

        Args:
            upscaler: Its renderer has the scale.
            pixels: As :meth:`Upscaler.upscale` takes them, integers.
            progress: Called after every batch of tiles, anew for each pass.
            max_memory: What a pass's input leaves for tiles; None takes the upscaler's.

        Returns:
            The result; codes, widths and levels are those of the first pass, tiles those of all.

        Raises:
            UsageError: As :meth:`of` and :meth:`Upscaler.upscale`.
        """
        (height, width), passes = self.of(*pixels.shape[:2]), self.passes(*pixels.shape[:2])
        made: list[Upscaled] = []
        for _ in range(passes):
            memory = None if max_memory is None else max_memory(pixels)
            made.append(upscaler.upscale(pixels, progress=progress, max_memory=memory))
            pixels = made[-1].pixels
        if pixels.shape[:2] != (height, width):
            shape = (height, width, *pixels.shape[2:])
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).reshape(shape)
        return replace(made[0], pixels=np.asarray(pixels), tiles=sum(each.tiles for each in made))
