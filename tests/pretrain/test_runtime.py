"""Where training runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from blindsr_pretrain.amnet import AMNetSettings
from blindsr_pretrain.runtime import compiles, training_device
from blindsr_pretrain.trainer import Trainer


def test_a_launcher_that_starts_one_process_of_several_is_told(
    settings: AMNetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert training_device(settings) == torch.device("cpu")  # --num_processes 1
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ValueError, match="add --multi_gpu before the script"):
        training_device(settings)


def test_training_goes_on_without_a_compiler(
    settings: AMNetSettings, monkeypatch: pytest.MonkeyPatch, trainer: Callable[..., Trainer]
) -> None:
    def broken(function: Any) -> Any:
        def call(*args: Any) -> None:
            raise RuntimeError("no compiler\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    compiles.cache_clear()
    with pytest.warns(UserWarning, match="uncompiled, torch.compile fails here: RuntimeError: no compiler$"):
        run = trainer(replace(settings, compile=True, steps=1))
    assert run.network is run.task.network
    run.run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert not compiles("cpu")
    compiles.cache_clear()
