"""Images between 8-bit arrays and float tensors."""

from __future__ import annotations

import numpy as np
import torch

from sr_env.utils.images import to_images, to_uint8


def test_every_level_survives_the_way_there_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    levels[..., 1] = 255 - levels[..., 1]
    images = to_images(levels)
    assert (images.shape, images.dtype) == ((1, 3, 16, 16), torch.float32)
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    assert images.is_contiguous()
    back = to_uint8(images)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, levels)


def test_values_between_levels_are_rounded() -> None:
    images = torch.tensor([0.4, 0.6, 254.4, 254.6]).div(255).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert to_uint8(images)[0, :, :, 0].tolist() == [[0, 1], [254, 255]]
