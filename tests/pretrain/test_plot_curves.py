"""Curves of runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import plot_curves
import pytest
from blindsr_pretrain.amnet import AMNetSettings
from blindsr_pretrain.curves import read_curves, smoothed
from blindsr_pretrain.trainer import Trainer
from PIL import Image


def test_curves_of_runs_are_drawn(settings: AMNetSettings, tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    trainer(replace(settings, log_every=1)).run()
    steps, values = read_curves(settings.out)["train/loss"]
    assert steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert (values > 0).all()
    wanted = [values[: k + 1].mean() if k < 3 else values[k - 2 : k + 1].mean() for k in range(6)]
    np.testing.assert_allclose(smoothed(values, 3), wanted)
    out = tmp_path / "deep" / "curves.png"
    plot_curves.main(plot_curves.Settings(runs=(settings.out,), out=out))
    with Image.open(out) as picture:
        assert np.asarray(picture).std() > 5
    with pytest.raises(ValueError, match=r"no curve 'train/lost' in these runs: choose from .*train/loss"):
        plot_curves.main(plot_curves.Settings(runs=(settings.out,), out=out, curves=("train/lost",)))
    with pytest.raises(FileNotFoundError, match="no curves in"):
        plot_curves.main(plot_curves.Settings(runs=(tmp_path,), out=out))
