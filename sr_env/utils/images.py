"""Images between the two forms they take: 8-bit arrays at the edges, float tensors inside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_images(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1] on the device."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous().float().div_(255)


def to_uint8(images: Tensor) -> np.ndarray:
    """Images [B, 3, H, W] in [0, 1] -> uint8 [B, H, W, 3] on the host."""
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
