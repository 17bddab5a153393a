"""Conditions of an evaluation: the same for every method and every run, and each what its name says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation.conditions import DRAWN, blur_conditions, real_conditions
from blindsr_agents.evaluation.methods import create_methods
from evaluate import Settings, measure
from rich.console import Console

from sr_env.degradation import Degradation, load_basis
from sr_env.models import AMNet, save_checkpoint
from sr_env.utils.checks import UsageError

CPU = torch.device("cpu")


def test_conditions_are_what_their_names_say() -> None:
    conditions = {condition.name: condition for condition in real_conditions(4)}
    made = {name: condition.kernels(np.arange(3), CPU) for name, condition in conditions.items()}
    for name, kernels in made.items():
        assert kernels.kernels.shape == (3, 49, 49)
        assert kernels.corruption is not None
        torch.testing.assert_close(kernels.kernels.sum((1, 2)), torch.ones(3))
        alone = conditions[name].kernels(np.array([2]), CPU)
        torch.testing.assert_close(alone.kernels[0], kernels.kernels[2])
        assert alone.corruption is not None
        assert torch.equal(alone.corruption.levels[0], kernels.corruption.levels[2])
        if name != DRAWN:
            assert (kernels.corruption.levels > 0).sum() == 3 * (name.split()[0] in ("noise", "JPEG", "sharpened"))
    assert made["noise 15"].corruption.noise.tolist() == [15, 15, 15]  # type: ignore[union-attr]
    assert made["JPEG 50"].corruption.quality.tolist() == [50, 50, 50]  # type: ignore[union-attr]
    assert made["blur 1.5"].widths.tolist() == [[6, 6]] * 3
    assert len(made[DRAWN].widths.unique()) > 3
    assert float(made["clean"].kernels[:, 24, 24].min()) > 0.99


def test_widths_are_checked() -> None:
    assert [condition.name for condition in blur_conditions(Degradation(4), (0.2, 1.3))] == ["0.2", "1.3"]
    with pytest.raises(UsageError, match="each given once"):
        blur_conditions(Degradation(4), (1.0, 1.0))


def test_renderers_of_other_kernels_have_no_true_one(tiny_renderer: Path, tmp_path: Path) -> None:
    real = save_checkpoint(
        tmp_path / "real.safetensors", AMNet(channels=8, blocks=1, code_length=18), load_basis("real", 4), 4, {}
    )
    names = [m.name for m in create_methods(4, [str(tiny_renderer), str(real)], peers=(), family="real")[0]]
    assert names[:2] == ["bicubic", "tiny_renderer, predicted kernel"]
    assert names[2] == "real, true kernel"
    names = [m.name for m in create_methods(4, [str(real)], peers=())[0]]  # isotropic kernels every basis can write
    assert "real, true kernel" in names


def test_a_set_is_measured_in_every_condition(settings: Settings, console: Console, tmp_path: Path) -> None:
    real = save_checkpoint(
        tmp_path / "real.safetensors", AMNet(channels=8, blocks=1, code_length=18), load_basis("real", 4), 4, {}
    )
    own = replace(
        settings, sets=("Own",), metrics=("psnr",), degradation="real", renderers=(str(real),), predictor=None
    )
    results = measure(own, console)
    assert results.about["conditions"][0] == "clean"
    values = results.sets["Own"].rows["bicubic"].values["psnr"]
    assert list(values) == results.about["conditions"]
    clean, noisy = values["clean"], values["noise 15"]
    assert clean is not None
    assert noisy is not None
    assert noisy < clean
    assert measure(own, console).sets["Own"].rows["bicubic"].values == results.sets["Own"].rows["bicubic"].values
