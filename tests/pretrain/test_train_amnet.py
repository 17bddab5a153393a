"""AMNet: it learns, its loss is the one it says, its script runs as typed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import train_amnet
from blindsr_pretrain.amnet import AMNetSettings
from blindsr_pretrain.trainer import Trainer

from sr_env.degradation import Degradation, load_basis
from sr_env.models import read_card


def test_amnet_learns_a_fixed_batch(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    settings = replace(settings, steps=60, warmup_steps=5, learning_rate=3e-3)
    run = trainer(settings)
    batch = next(run._batches())
    losses = []
    for _ in range(60):
        losses.append(float(run._update(*batch)["loss"]))
        run.step += 1
    assert losses[-1] < 0.93 * losses[0]
    assert np.mean(losses[-10:]) < np.mean(losses[25:35]) < np.mean(losses[:10])


def test_loss_is_l1_of_what_the_true_code_renders(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    task = trainer(settings).task
    hr, uniforms = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), np.full((2, 3), 0.25)
    degradation = Degradation(4)
    kernels = degradation.build(np.full(2, 0.2 + 0.25 * 3.8))
    with torch.no_grad():
        sr = task.network(degradation(hr, kernels), load_basis("isotropic", 4).encode(kernels.kernels))
        loss, _ = task.loss(task.network, hr, uniforms, 0)
        spectra = torch.fft.rfft2(sr, norm="ortho") - torch.fft.rfft2(hr, norm="ortho")
        frequency = 2**0.5 * (spectra.real.abs().mean() + spectra.imag.abs().mean()) / 2
        assert float(loss) == pytest.approx(float((sr - hr).abs().mean() + 0.05 * frequency), rel=1e-5)
        task.share = 0.86  # the last 15 % are on the squared error
        loss, _ = task.loss(task.network, hr, uniforms, 0)
        assert float(loss) == pytest.approx(10 * float((sr - hr).square().mean()), rel=1e-5)


def test_script_end_to_end(photo_folder: Path, tmp_path: Path) -> None:
    """As typed by a user, with a mistake first: one line, then a run."""
    script = str(Path(train_amnet.__file__))
    base = [sys.executable, script, "--data", str(photo_folder), "--out", str(tmp_path / "run"), "--no-compile"]
    base += ["--steps", "1", "--batch-size", "1", "--patch-size", "32", "--precision", "fp32", "--device", "cpu"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    bad = subprocess.run(base, capture_output=True, text=True, env=env)
    assert bad.returncode == 2
    assert bad.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "too few to hold 16 out" in bad.stderr
    good = subprocess.run([*base, "--validation-photos", "1"], capture_output=True, text=True, env=env)
    assert good.returncode == 0, good.stderr
    card = read_card(tmp_path / "run" / "amnet_l_x4.safetensors")
    assert card["command"].startswith(
        f"python pretrain/train_amnet.py --data {photo_folder.parent.name}/{photo_folder.name}"
    )
    assert card["parameters"] == 396_528
