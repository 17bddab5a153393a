"""The training loop: it learns, exports, resumes exactly, and stops cleanly on everything that can go wrong."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blindsr_pretrain.trainer as loop
import interpolate
import numpy as np
import plot_curves
import pytest
import torch
import train_amnet
import train_predictor
from blindsr_pretrain.trainer import MAX_BAD_STEPS, Trainer, split_photos
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from sr_env.degradation import Degradation, KernelBasis, load_basis
from sr_env.models import AMNet, amnet
from sr_env.models.checkpoint import load_predictor, load_renderer, read_card, save_checkpoint
from sr_env.models.predictor import KernelPredictor
from sr_env.photos import crops, open_photos
from sr_env.utils.images import to_images


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of 8 channels by the name of amnet_l, and small validation crops."""
    monkeypatch.setattr(amnet, "SIZES", {**amnet.SIZES, "amnet_l": {"channels": 8, "blocks": 1}})
    monkeypatch.setattr(loop, "_VALIDATION_CROP", 48)


@pytest.fixture
def settings(photo_folder: Path, tmp_path: Path) -> train_amnet.Settings:
    return train_amnet.Settings(
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


def trainer(settings: train_amnet.Settings, task: Any = None) -> Trainer:
    photos, indices, held_out = split_photos(settings)
    return Trainer(task or train_amnet.AMNetTask(settings, held_out), settings, photos, indices, quiet())


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def common(settings: train_amnet.Settings) -> dict[str, Any]:
    """What other scripts have too."""
    return {field.name: getattr(settings, field.name) for field in fields(loop.TrainingSettings)}


def told(run: Trainer) -> str:
    assert isinstance(run.console.file, io.StringIO)
    return run.console.file.getvalue()


def state(run: Trainer) -> dict[str, torch.Tensor]:
    """Everything that a step changes: weights, average, moments."""
    tensors = {f"network.{k}": v for k, v in run.task.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in run.average.state_dict().items()}
    for number, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{k}": v for k, v in moments.items()}
    return {name: value.clone() for name, value in tensors.items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Interrupted(train_amnet.AMNetTask):
    """Does something in the midst of a step's loss."""

    def __init__(self, settings: train_amnet.Settings, at: int, what: Any) -> None:
        super().__init__(settings, split_photos(settings)[2])
        self.at, self.what = at, what

    def loss(self, network: nn.Module, hr: torch.Tensor, uniforms: np.ndarray, step: int) -> Any:
        if step == self.at:
            self.what()
        return super().loss(network, hr, uniforms, step)


# --------------------------------------------------------------------------------------------------------- learning


def test_amnet_learns_a_fixed_batch(settings: train_amnet.Settings) -> None:
    settings = replace(settings, steps=60, warmup_steps=5, learning_rate=3e-3)
    run = trainer(settings)
    batch = next(run._batches())
    losses = []
    for _ in range(60):
        losses.append(float(run._update(*batch)["loss"]))
        run.step += 1
    assert losses[-1] < 0.93 * losses[0]
    assert np.mean(losses[-10:]) < np.mean(losses[25:35]) < np.mean(losses[:10])


def test_predictor_learns_a_fixed_batch_through_the_renderer(
    settings: train_amnet.Settings, tiny_renderer: Path
) -> None:
    shared = common(settings)
    own = train_predictor.Settings(
        **{**shared, "learning_rate": 2e-3, "steps": 60}, renderer=str(tiny_renderer), code_steps=30
    )
    task = train_predictor.PredictorTask(own, split_photos(own)[2])
    run = trainer(own, task)  # type: ignore[arg-type]
    before = {k: v.clone() for k, v in task.renderer.state_dict().items()}
    batch = next(run._batches())
    logs = []
    for _ in range(60):
        logs.append({k: float(v) for k, v in run._update(*batch).items()})
        run.step += 1
    assert logs[-1]["code"] < 0.5 * logs[0]["code"]
    assert "render" not in logs[29]
    assert logs[-1]["render"] < 0.8 * logs[30]["render"]
    assert all(torch.equal(before[k], v) for k, v in task.renderer.state_dict().items())  # frozen


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_of_the_predictor_see_8_bit_images_in_any_precision(
    settings: train_amnet.Settings, tiny_renderer: Path, precision: Any
) -> None:
    shared = common(settings)
    own = train_predictor.Settings(**{**shared, "precision": precision}, renderer=str(tiny_renderer), code_steps=1)
    run = trainer(own, train_predictor.PredictorTask(own, split_photos(own)[2]))  # type: ignore[arg-type]
    seen: list[torch.Tensor] = []
    run.task.network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    for batch in run._batches():
        run._update(*batch)
        run.step += 1
    assert run.bad_steps == 0
    assert len(seen) == own.steps
    for lr in seen:
        assert lr.dtype == torch.float32
        torch.testing.assert_close(lr * 255, (lr * 255).round(), atol=1e-4, rtol=0)


def test_loss_is_l1_of_what_the_true_code_renders(settings: train_amnet.Settings) -> None:
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


def test_softness_softens_every_second_patch_on_average_and_a_copy_of_what_is_held_out(
    settings: train_amnet.Settings,
) -> None:
    run = trainer(replace(settings, softness=1.5))
    assert isinstance(run.task, train_amnet.AMNetTask)
    sharp, soft = run.task.held_out.hr.chunk(2)
    seen: list[torch.Tensor] = []
    rewarded = run.task.loss
    run.task.loss = lambda network, hr, *rest: seen.append(hr) or rewarded(network, hr, *rest)  # type: ignore[method-assign,func-returns-value]
    patches, uniforms = next(run._batches())
    uniforms[:, 3] = np.linspace(0, 0.999, len(uniforms))
    run._update(patches, uniforms)

    def roughness(images: torch.Tensor) -> torch.Tensor:
        return images.diff(dim=-1).abs().mean((1, 2, 3))

    given = torch.from_numpy(patches).permute(0, 3, 1, 2) / 255
    changed = roughness(seen[0]) < 0.999 * roughness(given)
    assert changed.tolist() == (uniforms[:, 3] > 0.6).tolist()
    assert bool((roughness(soft) < roughness(sharp)).all())


def test_learning_rate_rises_then_falls_along_a_cosine(settings: train_amnet.Settings) -> None:
    run = trainer(replace(settings, steps=110, warmup_steps=10, learning_rate=1e-3, final_lr_ratio=0.1))
    rates = [run._rate(step) for step in range(111)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx(0.55e-3)
    assert rates[110] == pytest.approx(1e-4)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_with_minutes_the_learning_rate_and_the_end_follow_the_clock(settings: train_amnet.Settings) -> None:
    run = trainer(replace(settings, steps=10**6, minutes=2.0, warmup_steps=0, learning_rate=1e-3, final_lr_ratio=0.1))
    run.seconds = 60.0
    assert run._rate(5) == pytest.approx(0.55e-3)
    run.seconds = 119.9
    assert run._rate(6) == pytest.approx(1e-4, rel=1e-3)
    run.run()
    assert run.seconds >= 120
    assert 1 <= run.step < 10**6
    assert (settings.out / "checkpoint.pt").is_file()


def test_average_is_the_exponential_moving_average(settings: train_amnet.Settings) -> None:
    run = trainer(settings)
    wanted = None
    for count, batch in enumerate(run._batches()):
        run._update(*batch)
        run.step += 1
        now = run.task.network.head.weight.detach().clone()
        decay = min(0.9, (1 + count) / (10 + count))  # the first averages forget their start
        wanted = now if wanted is None else decay * wanted + (1 - decay) * now
    assert wanted is not None
    torch.testing.assert_close(run.average.module.head.weight, wanted, atol=1e-7, rtol=1e-5)
    assert not torch.equal(run.average.module.head.weight, now)


# ------------------------------------------------------------------------------------------------------------- data


def test_a_batch_depends_on_seed_and_step_alone(settings: train_amnet.Settings) -> None:
    run = trainer(settings)
    whole = list(run._batches())
    assert len(whole) == 6
    run.step = 4
    late = list(run._batches())
    assert len(late) == 2
    for (patches, uniforms), (again, uniforms_again) in zip(whole[4:], late, strict=True):
        np.testing.assert_array_equal(patches, again)
        np.testing.assert_array_equal(uniforms, uniforms_again)
    assert whole[0][0].shape == (2, 64, 64, 3)
    assert whole[0][0].dtype == np.uint8
    assert not np.array_equal(whole[0][0], whole[1][0])
    other = next(trainer(replace(settings, seed=1))._batches())
    assert not np.array_equal(other[1], whole[0][1])


def test_held_out_photos_are_never_trained_on(settings: train_amnet.Settings) -> None:
    source, indices, held_out = split_photos(settings)
    kept = [photo.tobytes() for photo in held_out]
    assert len(held_out) == 2
    assert len(indices) == 3
    assert not any(source[int(i)].tobytes() in kept for i in indices)
    again = split_photos(replace(settings, seed=5))
    np.testing.assert_array_equal(again[1], indices)


def test_bundled_split() -> None:
    source, indices, held_out = split_photos(train_amnet.Settings(data="bundled", patch_size=64))
    assert len(indices) == len(source) > 5
    names = {source.names[int(i)] for i in indices}
    assert len(held_out) > 1
    assert names.isdisjoint(held_out.names)


def test_held_out_score(random_photos: list[np.ndarray]) -> None:
    """PSNR-Y of a known error, by its formula; crops are central; LR and codes are those of the width."""
    degradation, basis = Degradation(4), load_basis("isotropic", 4)
    photos = open_photos(random_photos[:2])
    held = loop.HeldOut(photos, degradation, basis, torch.device("cpu"))
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


# -------------------------------------------------------------------------------------------------- starting point


@pytest.mark.parametrize("size", [{"channels": 8, "blocks": 2}, {"channels": 12, "blocks": 4}])
def test_a_larger_renderer_starts_as_the_smaller_one(size: dict[str, int]) -> None:
    torch.manual_seed(0)
    smaller, larger = amnet.AMNet(channels=8, blocks=2), amnet.AMNet(**size)
    for parameter in smaller.parameters():  # what a fresh network has at zero is not zero after training
        nn.init.normal_(parameter, std=0.2)
    lr, code = torch.rand(2, 3, 10, 12), torch.randn(2, 10)
    wanted = smaller(lr, code)
    assert not torch.allclose(larger(lr, code), wanted, atol=1e-2)
    train_amnet.inherit(larger, smaller)
    torch.testing.assert_close(larger(lr, code), wanted, atol=1e-4, rtol=1e-4)
    larger(lr, code).square().mean().backward()
    # Nothing that was added stays dead: the last layers of new blocks and the new columns of old layers get gradients.
    for name in ("tail.weight", "body.1.conv1.weight", f"body.{size['blocks'] - 1}.conv2.weight"):
        gradient = larger.get_parameter(name).grad
        assert gradient is not None
        assert (gradient.flatten(2).abs().amax((0, 2)) > 0).all(), name


def test_a_renderer_starts_from_one_of_another_scale_but_for_the_tail() -> None:
    torch.manual_seed(0)
    four, two = amnet.AMNet(scale=4, channels=8, blocks=1), amnet.AMNet(scale=2, channels=8, blocks=1)
    tail = two.tail.weight.clone()
    train_amnet.inherit(two, four)
    assert torch.equal(two.body[0].conv1.weight, four.body[0].conv1.weight)  # type: ignore[union-attr, arg-type]
    assert torch.equal(two.tail.weight, tail)


def test_a_renderer_too_large_to_start_from(settings: train_amnet.Settings, tiny_renderer: Path) -> None:
    with pytest.raises(ValueError, match=r"'channels': 8.* does not fit into .*'channels': 6.* choose a larger --size"):
        train_amnet.inherit(amnet.AMNet(channels=6, blocks=1), load_renderer(tiny_renderer).network)
    figures = trainer(replace(settings, start=str(tiny_renderer), steps=1, learning_rate=1e-9)).run()
    unchanged = trainer(replace(settings, out=settings.out / "x")).task.held_out  # type: ignore[attr-defined]
    assert figures["psnr"] == pytest.approx(unchanged.score(load_renderer(tiny_renderer).network)[0]["psnr"], abs=1e-3)


# ------------------------------------------------------------------------------------------------ several processes


def curve(out: Path, name: str) -> list[float]:
    events = EventAccumulator(str(out / "tb"))
    events.Reload()
    return [point.value for point in events.Scalars(f"train/{name}")]


def arguments(settings: train_amnet.Settings, **changed: Any) -> list[str]:
    """Command line of a run with these settings."""
    given = {k: v for k, v in vars(settings).items() if k not in ("compile", "resume", "start", "smooth")} | changed
    return ["--no-compile", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]


def test_two_processes_make_the_steps_of_one_with_the_double_batch(settings: train_amnet.Settings) -> None:
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


def test_a_launcher_that_starts_one_process_of_several_is_told(
    settings: train_amnet.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert loop.training_device(settings) == torch.device("cpu")  # --num_processes 1
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ValueError, match="add --multi_gpu before the script"):
        loop.training_device(settings)


# ----------------------------------------------------------------------------------------------------------- export


def test_run_exports_weights_and_a_full_card(settings: train_amnet.Settings) -> None:
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
        "checkpoint.pt",
        "tb",
    ]
    assert any(p.name.startswith("events") for p in (settings.out / "tb").iterdir())
    assert "3 photos, steps 0 to 6, cpu fp32" in told(run)


def test_predictor_run_exports_for_its_renderer(settings: train_amnet.Settings, tiny_renderer: Path) -> None:
    shared = common(settings)
    own = train_predictor.Settings(**{**shared, "steps": 2}, renderer=str(tiny_renderer), code_steps=1)
    figures = train_predictor.main(own)
    assert "psnr_true_kernel" in figures
    basis = load_renderer(tiny_renderer).basis
    loaded = load_predictor(own.out / "predictor_x4.safetensors", scale=4, basis=basis)
    assert re.match(r"\w+/tiny_renderer\.safetensors, ", loaded.card["renderer"])
    # And training goes on from it.
    start = replace(own, out=own.out / "next", start=str(loaded.path), steps=1, target="hr", code_steps=0)
    assert train_predictor.main(start)["psnr"] == pytest.approx(figures["psnr"], abs=1.0)


def test_predictor_starts_from_one_of_another_scale(
    settings: train_amnet.Settings, tiny_renderer: Path, tmp_path: Path
) -> None:
    network = KernelPredictor(channels=8)
    other = save_checkpoint(tmp_path / "x2.safetensors", network, load_basis("isotropic", 2), 2, {})
    start = train_predictor.Settings(
        **{**common(settings), "steps": 1, "learning_rate": 1e-9}, renderer=str(tiny_renderer), start=str(other)
    )
    train_predictor.main(start)
    went_on = load_predictor(start.out / "predictor_x4.safetensors", scale=4).network
    for name, value in went_on.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=0, atol=1e-6)

    full = load_basis("isotropic", 4)
    short = KernelBasis(full.mean, full.components[:3], full.scale[:3], full.centre[:3], full.half_range[:3])
    wrong = save_checkpoint(tmp_path / "short.safetensors", KernelPredictor(channels=8, code_length=3), short, 4, {})
    with pytest.raises(ValueError, match=r"short.*codes of 3 numbers, renderer .*tiny_renderer.* takes 10"):
        train_predictor.main(replace(start, start=str(wrong)))


def test_the_best_weights_are_exported(settings: train_amnet.Settings) -> None:
    run = trainer(replace(settings, validate_every=1))
    scores = iter([3.0, 9.0, 5.0, float("nan"), 9.0, 8.0])
    averages = []

    def validate(network: nn.Module) -> tuple[dict[str, float], torch.Tensor]:
        assert not network.training
        averages.append({k: v.clone() for k, v in network.state_dict().items()})
        return {"psnr": next(scores)}, torch.zeros(3, 4, 4)

    run.task.validate = validate  # type: ignore[method-assign]
    assert run.run() == {"psnr": 8.0}
    loaded = load_renderer(run.weights)
    assert loaded.card["steps"] == 2
    assert loaded.card["validation"] == {"psnr": 9.0}
    assert all(torch.equal(v, averages[1][k]) for k, v in loaded.network.state_dict().items())


# ----------------------------------------------------------------------------------------------------------- resume


def test_resume_equals_a_run_never_stopped(settings: train_amnet.Settings, tmp_path: Path) -> None:
    whole = trainer(settings)
    whole.run()
    part = replace(settings, out=tmp_path / "stopped")
    stopped = trainer(part, Interrupted(part, 3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert stopped.step == 4  # the step under way is finished
    assert "stopped at step 4" in told(stopped)
    resumed = trainer(replace(part, resume=True))
    assert resumed.step == 4
    assert_same(state(resumed), state(stopped))
    resumed.run()
    assert_same(state(resumed), state(whole))
    assert resumed.best == whole.best
    one, other = load_renderer(whole.weights), load_renderer(resumed.weights)
    assert_same(dict(one.network.state_dict()), dict(other.network.state_dict()))
    assert one.card["steps"] == other.card["steps"]


def test_resume_after_a_kill_goes_on_from_the_last_checkpoint(settings: train_amnet.Settings) -> None:
    """A process that is killed between two steps, or while it writes, leaves a whole checkpoint and no harm."""
    whole = trainer(replace(settings, steps=40, validate_every=40, out=settings.out / "whole"))
    whole.run()
    part = replace(settings, steps=40, validate_every=40, checkpoint_minutes=0, out=settings.out / "part")
    code = (
        "import torch, tyro; import train_amnet; from blindsr_pretrain import trainer as loop\n"
        "from sr_env.models import amnet\n"
        f"torch.set_num_threads(1); amnet.SIZES = {amnet.SIZES!r}; loop._VALIDATION_CROP = 48\n"
        "train_amnet.main(tyro.cli(train_amnet.Settings))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *arguments(part)], stdout=subprocess.DEVNULL)
    checkpoint = part.out / "checkpoint.pt"
    while not checkpoint.is_file():
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()  # SIGKILL, at whatever it is doing
    process.wait()
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 1 <= step < 40
    resumed = trainer(replace(part, resume=True, checkpoint_minutes=1e9))
    assert resumed.step == step
    resumed.run()
    assert_same(state(resumed), state(whole))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save(settings: train_amnet.Settings, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    run = trainer(settings, Interrupted(settings, 1, lambda: os.kill(os.getpid(), number)))
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert signal.getsignal(number) is before
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 2
    assert "add --resume" in told(run)


def test_a_second_ctrl_c_stops_at_once_and_saves_no_half_step(settings: train_amnet.Settings) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    run = trainer(settings, Interrupted(settings, 1, twice))
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert run.step == 1
    assert not run.checkpoint.exists()


def test_training_in_a_thread(settings: train_amnet.Settings) -> None:
    """Signals belong to the main thread; elsewhere training goes without them."""
    run, figures = trainer(replace(settings, steps=1)), []
    thread = threading.Thread(target=lambda: figures.append(run.run()))
    thread.start()
    thread.join()
    assert "psnr" in figures[0]


def test_checkpoints_by_the_clock(settings: train_amnet.Settings) -> None:
    steps = []
    run = trainer(replace(settings, checkpoint_minutes=0))
    save = run._save
    run._save = lambda: (steps.append(run.step), save())[1]  # type: ignore[method-assign, func-returns-value]
    run.run()
    assert steps == [1, 2, 3, 4, 5, 6]


def test_resuming_a_finished_run_scores_it_again(settings: train_amnet.Settings) -> None:
    figures = trainer(settings).run()
    done = trainer(replace(settings, resume=True))
    before = state(done)
    assert done.run() == figures
    assert "nothing left to train" in told(done)
    assert_same(state(done), before)


def test_overwriting_and_resuming_nothing_are_refused(settings: train_amnet.Settings) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        trainer(replace(settings, resume=True))
    trainer(replace(settings, steps=1)).run()
    with pytest.raises(FileExistsError, match="add --resume to go on"):
        trainer(settings)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other network", "other state"])
def test_damaged_checkpoint_is_one_clear_error(settings: train_amnet.Settings, damage: str) -> None:
    run = trainer(settings)
    run._save()
    content = run.checkpoint.read_bytes()
    if damage == "cut":
        run.checkpoint.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        run.checkpoint.write_bytes(b"")
    elif damage == "text":
        run.checkpoint.write_text("hello")
    elif damage == "other network":
        settings = replace(settings, size="amnet")
    else:
        torch.save({"network": run.task.network.state_dict()}, run.checkpoint)
    with pytest.raises(ValueError, match=r"cannot resume from .* damaged or of another network; delete it") as caught:
        trainer(replace(settings, resume=True))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- what can fail


class Sick(train_amnet.AMNetTask):
    """Its loss is not finite at some steps."""

    def __init__(self, settings: train_amnet.Settings, steps: set[int], value: float = float("nan")) -> None:
        super().__init__(settings, split_photos(settings)[2])
        self.steps, self.value = steps, value

    def loss(self, network: nn.Module, hr: torch.Tensor, uniforms: np.ndarray, step: int) -> Any:
        loss, logs = super().loss(network, hr, uniforms, step)
        return loss * (self.value if step in self.steps else 1.0), logs


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(settings: train_amnet.Settings, value: float) -> None:
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


def test_too_many_bad_steps_end_the_run(settings: train_amnet.Settings) -> None:
    settings = replace(settings, steps=MAX_BAD_STEPS + 9, validate_every=1000)
    run = trainer(settings, Sick(settings, set(range(2, 10**3))))
    with pytest.raises(FloatingPointError, match=r"lower --learning-rate$"):  # nothing saved, nothing to resume from
        run.run()
    assert run.step == 2 + MAX_BAD_STEPS - 1
    run._save()
    resumed = trainer(replace(settings, resume=True), Sick(settings, set(range(10**3))))
    resumed.step = 0
    with pytest.raises(FloatingPointError, match=r"and --resume from .*checkpoint\.pt"):
        resumed.run()


def test_gradients_are_clipped(settings: train_amnet.Settings) -> None:
    run = trainer(replace(settings, clip=1e-3))
    run._update(*next(run._batches()))
    norm = torch.sqrt(sum(p.grad.square().sum() for p in run.task.network.parameters()))  # type: ignore[arg-type, union-attr, misc]
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)


def test_too_few_photos(settings: train_amnet.Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 5 usable photos, too few to hold 3 out"):
        split_photos(replace(settings, validation_photos=3))
    with pytest.raises(FileNotFoundError):
        split_photos(replace(settings, data=str(tmp_path / "nowhere")))


def test_unwritable_out(settings: train_amnet.Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        trainer(replace(settings, out=tmp_path / "file" / "run"))


def test_a_full_disk_shows_before_training(settings: train_amnet.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
    with pytest.raises(OSError, match=r"run' has 0\.0 MB free and 0\.\d MB are needed"):
        trainer(settings)
    assert not list(settings.out.iterdir())


@pytest.mark.parametrize("patch", [62, 28])
def test_patch_that_does_not_suit_the_scale(settings: train_amnet.Settings, patch: int) -> None:
    with pytest.raises(ValueError, match=f"patch_size {patch} does not suit scale 4: give a multiple of 4 from 32"):
        trainer(replace(settings, patch_size=patch))
    assert not settings.out.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"patch_size": -4},
        {"workers": 0},
        {"log_every": 0},
        {"validate_every": 0},
        {"validation_photos": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": -1.0},
        {"warmup_steps": -1},
        {"final_lr_ratio": 2.0},
        {"ema": 1.0},
        {"clip": 0.0},
        {"checkpoint_minutes": -1.0},
        {"minutes": 0.0},
        {"frequency": -1.0},
        {"squared_share": 1.5},
    ],
)
def test_settings_out_of_range(settings: train_amnet.Settings, wrong: dict[str, Any]) -> None:
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"^{name} is {value}"):
        replace(settings, **wrong)


def test_training_goes_on_without_a_compiler(settings: train_amnet.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any) -> Any:
        def call(*args: Any) -> None:
            raise RuntimeError("no compiler\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    loop.compiles.cache_clear()
    with pytest.warns(UserWarning, match="uncompiled, torch.compile fails here: RuntimeError: no compiler$"):
        run = trainer(replace(settings, compile=True, steps=1))
    assert run.network is run.task.network
    run.run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert not loop.compiles("cpu")
    loop.compiles.cache_clear()


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


# ----------------------------------------------------------------------------------------------------------- curves


def test_curves_of_runs_are_drawn(settings: train_amnet.Settings, tmp_path: Path) -> None:
    trainer(replace(settings, log_every=1)).run()
    steps, values = plot_curves.read_curves(settings.out)["train/loss"]
    assert steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert (values > 0).all()
    wanted = [values[: k + 1].mean() if k < 3 else values[k - 2 : k + 1].mean() for k in range(6)]
    np.testing.assert_allclose(plot_curves.smoothed(values, 3), wanted)
    out = tmp_path / "deep" / "curves.png"
    plot_curves.main(plot_curves.Settings(runs=(settings.out,), out=out))
    with Image.open(out) as picture:
        assert np.asarray(picture).std() > 5
    with pytest.raises(ValueError, match=r"no curve 'train/lost' in these runs: choose from .*train/loss"):
        plot_curves.main(plot_curves.Settings(runs=(settings.out,), out=out, curves=("train/lost",)))
    with pytest.raises(FileNotFoundError, match="no curves in"):
        plot_curves.main(plot_curves.Settings(runs=(tmp_path,), out=out))


# ----------------------------------------------------------------------------------------------------- interpolation


@pytest.fixture
def two_renderers(tmp_path: Path) -> list[Path]:
    """Two renderers of one architecture with other weights."""
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        folder = tmp_path / f"run{seed}"
        folder.mkdir()
        card = {"steps": 10 + seed, "seed": seed, "command": f"python {seed}", "validation": {"psnr": 20.0 + seed}}
        network = AMNet(scale=4, channels=8, blocks=1)
        paths.append(save_checkpoint(folder / "tiny_x4.safetensors", network, load_basis("isotropic", 4), 4, card))
    return paths


@pytest.fixture
def averaging(photo_folder: Path) -> Callable[..., interpolate.Settings]:
    """Settings of an average that is measured on one small photo."""
    return partial(interpolate.Settings, data=str(photo_folder), patch_size=64, validation_photos=1, device="cpu")


def test_interpolation_lies_between_two_renderers(
    two_renderers: list[Path], averaging: Callable[..., interpolate.Settings], tmp_path: Path
) -> None:
    first, second = map(str, two_renderers)
    settings = averaging(first, second, share=0.25, out=tmp_path / "mean")
    figures = interpolate.main(settings)
    result = load_renderer(tmp_path / "mean" / "tiny_x4.safetensors")
    ends = [load_renderer(path).network.state_dict() for path in two_renderers]
    for name, value in result.network.state_dict().items():
        torch.testing.assert_close(value, 0.75 * ends[0][name] + 0.25 * ends[1][name])
    assert result.card["validation"] == figures
    assert figures.keys() >= {"psnr", "psnr_2.6", "lpips"}
    assert result.card["steps"] == 10
    told = result.card["interpolated"]
    assert [part["share"] for part in told] == [0.75, 0.25]
    assert [part["validation"]["psnr"] for part in told] == [20.0, 21.0]
    assert [part["weights"] for part in told] == ["run0/tiny_x4.safetensors", "run1/tiny_x4.safetensors"]


def test_interpolation_is_measured_with_a_predictor_s_codes(
    tiny_renderer: Path, tiny_predictor: Path, averaging: Callable[..., interpolate.Settings], tmp_path: Path
) -> None:
    settings = averaging(str(tiny_renderer), str(tiny_renderer), out=tmp_path / "true")
    true = interpolate.main(settings)
    blind = interpolate.main(replace(settings, predictor=str(tiny_predictor), out=tmp_path / "blind"))
    assert blind["psnr_true_kernel"] == true["psnr"]
    assert blind["lpips_true_kernel"] == true["lpips"]
    assert blind["psnr"] != true["psnr"]


def test_interpolation_refuses_what_cannot_be_averaged(
    two_renderers: list[Path], tiny_renderer: Path, tmp_path: Path
) -> None:
    first = str(two_renderers[0])
    network = AMNet(scale=4, channels=8, blocks=2)
    other = save_checkpoint(tmp_path / "deeper.safetensors", network, load_basis("isotropic", 4), 4, {})
    with pytest.raises(ValueError, match=r"tiny_x4\.safetensors and deeper\.safetensors differ in architecture"):
        interpolate.main(interpolate.Settings(first, str(other), out=tmp_path / "mean"))
    with pytest.raises(ValueError, match="choose another --out"):
        interpolate.main(interpolate.Settings(first, str(tiny_renderer), out=two_renderers[0].parent))
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        interpolate.Settings(first, first, share=1.5)
    assert not (tmp_path / "mean").exists()
