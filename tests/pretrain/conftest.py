"""Small networks and photos for the tests of training."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from blindsr_pretrain import validation
from blindsr_pretrain.amnet import AMNetSettings, AMNetTask
from blindsr_pretrain.data import split_photos
from blindsr_pretrain.settings import TrainingSettings
from blindsr_pretrain.trainer import Trainer
from rich.console import Console

from sr_env.models import amnet


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of 8 channels by the name of amnet_l, and small validation crops."""
    monkeypatch.setattr(amnet, "SIZES", {**amnet.SIZES, "amnet_l": {"channels": 8, "blocks": 1}})
    monkeypatch.setattr(validation, "_VALIDATION_CROP", 48)


@pytest.fixture
def settings(photo_folder: Path, tmp_path: Path) -> AMNetSettings:
    return AMNetSettings(
        out=tmp_path / "run",
        data=str(photo_folder),
        steps=6,
        batch_size=2,
        patch_size=64,
        warmup_steps=2,
        ema=0.9,
        device="cpu",
        precision="fp32",
        compile=False,
        checkpoint_minutes=1e9,
        validate_every=3,
        validation_photos=2,
    )


@pytest.fixture
def trainer() -> Callable[..., Trainer]:
    """(settings, task) -> a trainer of AMNet, or of the task, that shows nothing."""

    def make(settings: Any, task: Any = None) -> Trainer:
        photos, indices, held_out = split_photos(settings)
        console = Console(file=io.StringIO(), width=200)
        return Trainer(task or AMNetTask(settings, held_out), settings, photos, indices, console)

    return make


@pytest.fixture
def shown() -> Callable[[Trainer], str]:
    """A trainer -> what it printed."""

    def read(run: Trainer) -> str:
        assert isinstance(run.console.file, io.StringIO)
        return run.console.file.getvalue()

    return read


@pytest.fixture
def common() -> Callable[..., dict[str, Any]]:
    """Settings -> those of them that every script has."""
    return lambda settings: {field.name: getattr(settings, field.name) for field in fields(TrainingSettings)}


@pytest.fixture
def state() -> Callable[[Trainer], dict[str, torch.Tensor]]:
    """A trainer -> copies of everything that a step changes: weights, average, moments."""

    def read(run: Trainer) -> dict[str, torch.Tensor]:
        tensors = {f"network.{k}": v for k, v in run.task.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in run.average.state_dict().items()}
        for number, moments in run.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in moments.items()}
        return {name: value.clone() for name, value in tensors.items()}

    return read


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Two sets of tensors are equal bit for bit."""

    def check(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name

    return check
