"""The held-out scores are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blindsr_pretrain.validation import ValidationSet

from sr_env.degradation import Degradation, load_basis
from sr_env.photos import crops, open_photos
from sr_env.utils.images import to_images


def test_held_out_score(random_photos: list[np.ndarray]) -> None:
    """PSNR-Y of a known error, by its formula; crops are central; LR and codes are those of the width."""
    degradation, basis = Degradation(4), load_basis("isotropic", 4)
    photos = open_photos(random_photos[:2])
    held = ValidationSet(photos, degradation, basis, torch.device("cpu"))
    tops = np.array([(h - 48) // 2 for h, _ in photos.shapes])
    lefts = np.array([(w - 48) // 2 for _, w in photos.shapes])
    torch.testing.assert_close(held.hr, to_images(crops(photos, np.arange(2), tops, lefts, 48), torch.device("cpu")))
    seen = []

    def render(lr: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        seen.append((lr, code))
        return (held.hr + 0.02).clamp(0, 1)  # all channels brighter: Y rises by 0.02 * 219 / 255

    figures, picture = held.score(render)
    error = (held.hr + 0.02).clamp(0, 1) - held.hr
    y = (error * torch.tensor([65.481, 128.553, 24.966])[:, None, None] / 255).sum(1)[:, 4:-4, 4:-4]
    wanted = float((-10 * y.square().mean((1, 2)).log10()).mean())
    assert list(figures) == ["psnr", "psnr_0.2", "psnr_1.3", "psnr_2.6"]
    assert all(value == pytest.approx(wanted, abs=0.01) for value in figures.values())
    assert picture.shape == (3, 48, 96)
    kernels = degradation.build(np.full(2, 1.3))
    assert torch.equal(seen[1][0], degradation(held.hr, kernels))
    assert torch.equal(seen[1][1], basis.encode(kernels.kernels))
