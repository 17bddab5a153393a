"""The training loop: schedule, average, steps that are not finite, export, several processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import train_amnet
from blindsr_pretrain.amnet import AMNetSettings, AMNetTask
from blindsr_pretrain.data import split_photos
from blindsr_pretrain.trainer import MAX_BAD_STEPS, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sr_env.models import load_renderer


def curve(out: Path, name: str) -> list[float]:
    events = EventAccumulator(str(out / "tb"))
    events.Reload()
    return [point.value for point in events.Scalars(f"train/{name}")]


def arguments(settings: AMNetSettings, **changed: Any) -> list[str]:
    """Command line of a run with these settings."""
    given = {k: v for k, v in vars(settings).items() if k not in ("compile", "resume", "start", "smooth")} | changed
    return ["--no-compile", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]


class Sick(AMNetTask):
    """Its loss is not finite at some steps."""

    def __init__(self, settings: AMNetSettings, steps: set[int], value: float = float("nan")) -> None:
        super().__init__(settings, split_photos(settings)[2])
        self.steps, self.value = steps, value

    def loss(self, network: nn.Module, hr: torch.Tensor, uniforms: np.ndarray, step: int) -> Any:
        loss, logs = super().loss(network, hr, uniforms, step)
        return loss * (self.value if step in self.steps else 1.0), logs


def test_learning_rate_rises_then_falls_along_a_cosine(
    settings: AMNetSettings, trainer: Callable[..., Trainer]
) -> None:
    run = trainer(replace(settings, steps=110, warmup_steps=10, learning_rate=1e-3, final_lr_ratio=0.1))
    rates = [run._rate(step) for step in range(111)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx(0.55e-3)
    assert rates[110] == pytest.approx(1e-4)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_with_minutes_the_learning_rate_and_the_end_follow_the_clock(
    settings: AMNetSettings, trainer: Callable[..., Trainer]
) -> None:
    run = trainer(replace(settings, steps=10**6, minutes=2.0, warmup_steps=0, learning_rate=1e-3, final_lr_ratio=0.1))
    run.seconds = 60.0
    assert run._rate(5) == pytest.approx(0.55e-3)
    run.seconds = 119.9
    assert run._rate(6) == pytest.approx(1e-4, rel=1e-3)
    run.run()
    assert run.seconds >= 120
    assert 1 <= run.step < 10**6
    assert (settings.out / "checkpoint.json").is_file()


def test_average_is_the_exponential_moving_average(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    run = trainer(settings)
    wanted = None
    for count, batch in enumerate(run._batches()):
        run._update(*batch)
        run.step += 1
        now = run.task.network.head.weight.detach().clone()
        decay = min(0.9, (1 + count) / (10 + count))  # the first averages forget their start
        wanted = now if wanted is None else decay * wanted + (1 - decay) * now
    assert wanted is not None
    torch.testing.assert_close(run.average.head.weight, wanted, atol=1e-7, rtol=1e-5)
    assert not torch.equal(run.average.head.weight, now)


def test_gradients_are_clipped(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    run = trainer(replace(settings, clip=1e-3))
    run._update(*next(run._batches()))
    norm = torch.sqrt(sum(p.grad.square().sum() for p in run.task.network.parameters()))  # type: ignore[arg-type, union-attr, misc]
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(
    settings: AMNetSettings,
    value: float,
    trainer: Callable[..., Trainer],
    state: Callable[..., dict[str, torch.Tensor]],
    assert_same: Callable[..., None],
) -> None:
    run = trainer(settings, Sick(settings, {2, 3}, value))
    for number, batch in enumerate(run._batches()):
        before = state(run)
        run._update(*batch)
        run.step += 1
        if number in (2, 3):
            assert_same(state(run), before)
            assert run.bad_steps == number - 1
        else:
            assert not torch.equal(state(run)["network.head.weight"], before["network.head.weight"])
            assert run.bad_steps == 0


def test_too_many_bad_steps_end_the_run(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    settings = replace(settings, steps=MAX_BAD_STEPS + 9, validate_every=1000, log_every=1)
    run = trainer(settings, Sick(settings, set(range(2, 10**3))))
    with pytest.raises(FloatingPointError, match=r"lower --learning-rate$"):  # nothing saved, nothing to resume from
        run.run()
    assert run.step == 2 + MAX_BAD_STEPS
    run._save()
    resumed = trainer(replace(settings, resume=True), Sick(settings, set(range(10**3))))
    resumed.step = 0
    with pytest.raises(FloatingPointError, match=r"and --resume from .*run$"):
        resumed.run()


def test_run_exports_weights_and_a_full_card(
    settings: AMNetSettings, trainer: Callable[..., Trainer], shown: Callable[[Trainer], str]
) -> None:
    run = trainer(settings)
    figures = run.run()
    assert set(figures) == {"psnr", "psnr_0.2", "psnr_1.3", "psnr_2.6"}
    loaded = load_renderer(run.weights, scale=4)
    card = loaded.card
    assert run.weights.name == "amnet_l_x4.safetensors"
    assert json.loads(run.weights.with_suffix(".json").read_text()) == card
    assert card["steps"] in (3, 6)
    assert card["seed"] == 0
    assert card["torch"] == torch.__version__
    assert card["photos"] == 3
    assert card["losses"] == {"l1": 1.0, "frequency": 0.05, "squared, in the last 15%": 10.0}
    assert card["validation"].keys() == figures.keys()
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", card["commit"])
    for key in ("seconds", "hardware", "command", "licence", "kernels", "widths", "parameters"):
        assert key in card, key
    assert card["settings"]["batch_size"] == 2
    # A card goes out into the world: of absolute paths it keeps the end alone.
    assert card["settings"]["out"] == f"{settings.out.parent.name}/run"
    assert str(settings.out.parent.parent) not in json.dumps(card)
    assert sorted(p.name for p in settings.out.iterdir()) == [
        "amnet_l_x4.json",
        "amnet_l_x4.safetensors",
        "checkpoint.json",
        "optimizer-6.pt",
        "tb",
        "weights-6.pt",
    ]
    assert any(p.name.startswith("events") for p in (settings.out / "tb").iterdir())
    assert "3 photos, steps 0 to 6, cpu fp32" in shown(run)


def test_the_best_weights_are_exported(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    run = trainer(replace(settings, validate_every=1))
    scores = iter([3.0, 9.0, 5.0, float("nan"), 9.0, 8.0])
    averages = []

    def validate(network: nn.Module) -> tuple[dict[str, float], torch.Tensor]:
        assert not network.training
        averages.append({k: v.clone() for k, v in network.state_dict().items()})
        # The moving average, and not the weights of the last step, which are noisier.
        assert all(torch.equal(v, run.average.state_dict()[k]) for k, v in averages[-1].items())
        if run.step > 1:
            assert not torch.equal(averages[-1]["head.weight"], run.task.network.state_dict()["head.weight"])
        return {"psnr": next(scores)}, torch.zeros(3, 4, 4)

    run.task.validate = validate  # type: ignore[method-assign]
    assert run.run() == {"psnr": 8.0}
    loaded = load_renderer(run.weights)
    assert loaded.card["steps"] == 2
    assert loaded.card["validation"] == {"psnr": 9.0}
    assert all(torch.equal(v, averages[1][k]) for k, v in loaded.network.state_dict().items())


def test_unwritable_out(settings: AMNetSettings, tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        trainer(replace(settings, out=tmp_path / "file" / "run"))


def test_a_full_disk_shows_before_training(
    settings: AMNetSettings, monkeypatch: pytest.MonkeyPatch, trainer: Callable[..., Trainer]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
    with pytest.raises(OSError, match=r"run' has 0\.0 MB free and 0\.\d MB are needed"):
        trainer(settings)
    assert not list(settings.out.iterdir())


@pytest.mark.parametrize("patch", [62, 28])
def test_patch_that_does_not_suit_the_scale(
    settings: AMNetSettings, patch: int, trainer: Callable[..., Trainer]
) -> None:
    with pytest.raises(ValueError, match=f"patch_size {patch} does not suit scale 4: give a multiple of 4 from 32"):
        trainer(replace(settings, patch_size=patch))
    assert not settings.out.exists()


def test_training_in_a_thread(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    """Signals belong to the main thread; elsewhere training goes without them."""
    run, figures = trainer(replace(settings, steps=1)), []
    thread = threading.Thread(target=lambda: figures.append(run.run()))
    thread.start()
    thread.join()
    assert "psnr" in figures[0]


def test_two_processes_make_the_steps_of_one_with_the_double_batch(settings: AMNetSettings) -> None:
    settings = replace(settings, log_every=1, size="amnet_l")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={port}"]
    script = str(Path(train_amnet.__file__))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = subprocess.run(
        [*launch, script, *arguments(settings, out=settings.out / "two")], capture_output=True, text=True, env=env
    )
    assert two.returncode == 0, two.stderr
    assert "cpu fp32 in 2 processes" in " ".join(two.stdout.split())
    one = subprocess.run(
        [sys.executable, script, *arguments(settings, out=settings.out / "one", batch_size=4)],
        capture_output=True,
        text=True,
        env=env,
    )
    assert one.returncode == 0, one.stderr
    losses = curve(settings.out / "two", "loss")
    assert len(losses) == 6
    assert len(set(losses)) == 6
    # Sums in another order; Adam's first steps, of one length whatever the gradient, enlarge it.
    np.testing.assert_allclose(losses, curve(settings.out / "one", "loss"), rtol=1e-3)
    np.testing.assert_allclose(losses[:2], curve(settings.out / "one", "loss")[:2], rtol=1e-5)


class Waiting(TorchDispatchMode):
    """Counts what makes the host wait for the device: numbers read from a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_device(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    run = trainer(replace(settings, softness=1.0, unblurred=0.1))
    with Waiting() as waiting:
        for batch in run._batches():
            run._update(*batch)
            run.step += 1
        assert waiting.count == 0
        run._check_steps()
        assert waiting.count == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_cuda_never_waits(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    run = trainer(replace(settings, device="cuda", softness=1.0, unblurred=0.1))
    batches = run._batches()
    run._update(*next(batches))
    torch.cuda.set_sync_debug_mode("error")
    try:
        run._update(*next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_drawings_are_measured_apart(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    figures = trainer(replace(settings, steps=1, drawings=0.5)).run()
    assert list(figures) == ["psnr", "psnr_0.2", "psnr_1.3", "psnr_2.6", "psnr_drawings"]
    assert load_renderer(settings.out / "amnet_l_x4.safetensors").card["settings"]["drawings"] == 0.5
