"""AMGAN: the loss is the sum it says it is, generator and discriminator train each other alone, and runs resume."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import train_amgan
from blindsr_pretrain import amgan as module
from blindsr_pretrain import losses, validation
from blindsr_pretrain.amgan import AMGANSettings, AMGANTask
from blindsr_pretrain.batches import as_images
from blindsr_pretrain.data import split_photos
from blindsr_pretrain.discriminator import Discriminator
from blindsr_pretrain.losses import LossWeights, MetricLoss, PhaseLoss, RealnessLoss, RelativisticAverageLoss, VGGLoss
from blindsr_pretrain.trainer import MAX_BAD_STEPS, Trainer
from rich.console import Console
from torch import nn

from sr_env.degradation import Degradation, load_basis
from sr_env.metrics import ConvFeatures, Metric, create_metric
from sr_env.models import load_renderer


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG16 with random weights up to its third layer of pooling."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vgg = ConvFeatures("vgg16", (1, 6))
        pooled = ConvFeatures("vgg16", (3, 8, 15, 22, 29), l2_pooling=True)
    monkeypatch.setattr(module, "vgg_backbone", lambda arch, device: vgg)

    def metric(name: str, **options: Any) -> Metric:
        return create_metric(name, **(options | ({"backbone": pooled} if name == "dists" else {})))

    monkeypatch.setattr(losses, "create_metric", metric)
    monkeypatch.setattr(validation, "create_metric", metric)


@pytest.fixture
def settings(photo_folder: Path, tmp_path: Path, tiny_renderer: Path) -> AMGANSettings:
    return AMGANSettings(
        out=tmp_path / "run",
        data=str(photo_folder),
        start=str(tiny_renderer),
        steps=4,
        batch_size=2,
        patch_size=64,
        warmup_steps=1,
        learning_rate=1e-3,
        discriminator_rate=1e-3,
        discriminator_channels=4,
        outcomes=9,
        weights=LossWeights(dists=0.0),  # the full VGG16 of DISTS is slow; one test has it
        device="cpu",
        precision="fp32",
        compile=False,
        checkpoint_minutes=1e9,
        validate_every=2,
        validation_photos=2,
    )


def trainer(settings: AMGANSettings, task: Any = None) -> Trainer:
    photos, indices, held_out = split_photos(settings)
    console = Console(file=io.StringIO(), width=200)
    return Trainer(task or AMGANTask(settings, held_out), settings, photos, indices, console)


def amgan(run: Trainer) -> AMGANTask:
    assert isinstance(run.task, AMGANTask)
    return run.task


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_is_the_supplement_s_sum(settings: AMGANSettings) -> None:
    task = amgan(trainer(replace(settings, weights=LossWeights())))
    hr = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    uniforms = np.full((2, 5), 0.25)
    degradation = Degradation(4)
    kernels = degradation.build(np.full(2, 0.2 + 0.25 * 3.8))
    assert task.adversary is not None
    task.adversary.eval()  # no power iteration between the two computations
    with torch.no_grad():
        loss, terms = task.loss(task.network, hr, uniforms, step=3)
        sr = task.network(degradation(hr, kernels), load_basis("isotropic", 4).encode(kernels.kernels))
        log = F.log_softmax(task.adversary(sr), 1)
        real, fake = (torch.from_numpy(anchor).float() for anchor in RealnessLoss(9).anchors(3))
        realness = (real * (real.log() - log)).sum(1).mean() - (fake * (fake.log() - log)).sum(1).mean()
        vgg, dists = VGGLoss(module.vgg_backbone("auto", "cpu")), MetricLoss("dists", "cpu")
        wanted = {"l1": (sr - hr).abs().mean(), "vgg": vgg(sr, hr), "dists": dists(sr, hr), "adversarial": realness}
        wanted["phase"] = PhaseLoss(4)(sr, hr)
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-5)
    total = wanted["l1"] + 15 * wanted["vgg"] + 0.01 * wanted["adversarial"] + 10 * wanted["dists"]
    total = total + 20 * wanted["phase"]
    torch.testing.assert_close(loss, total, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["realness", "relativistic"])
def test_each_network_is_trained_by_its_own_loss_alone(settings: AMGANSettings, kind: Any) -> None:
    run = trainer(replace(settings, adversarial=kind))
    task = amgan(run)
    assert task.adversary is not None
    batch = next(run._batches())
    renderer, judge = tensors(task.network), dict(task.adversary.named_parameters())
    before = {name: value.detach().clone() for name, value in judge.items()}
    seen: list[bool] = []
    own = task.adversary_loss

    def watched(adversary: nn.Module) -> Any:
        # The generator has moved, through a discriminator that has not and has no gradient from it.
        seen.append(not same(tensors(task.network), renderer))
        seen.extend(torch.equal(before[name], value) and value.grad is None for name, value in judge.items())
        renderer.update(tensors(task.network))
        return own(adversary)

    task.adversary_loss = watched  # type: ignore[method-assign]
    logs = run._update(*batch)
    assert len(seen) > 5
    assert all(seen)
    assert same(tensors(task.network), renderer)  # the discriminator's step left the generator alone
    assert not any(torch.equal(before[name], value) for name, value in judge.items() if "weight" in name)
    names = {"loss", "l1", "vgg", "adversarial", "phase", "adversary_loss", "real_fake_distance", "gradient_norm"}
    assert names <= logs.keys()


def test_the_discriminator_sees_the_batch_that_was_rendered(settings: AMGANSettings) -> None:
    run = trainer(settings)
    task, (patches, uniforms) = amgan(run), next(run._batches())
    hr = as_images(patches)
    task.loss(task.network, hr, uniforms, step=5)
    seen = []

    class Probe(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image)
            return torch.cat((torch.zeros(2, 9), torch.ones(2, 9).cumsum(1)))

    loss, _ = task.adversary_loss(Probe())
    assert torch.equal(seen[0][:2], hr)
    assert not seen[0].requires_grad
    assert (seen[0][2:] - hr).abs().mean() > 0
    wanted = RealnessLoss(9).discriminator(torch.zeros(2, 9), torch.ones(2, 9).cumsum(1), seed=5)
    torch.testing.assert_close(loss, wanted)


def test_the_discriminator_learns_to_tell_them_apart(settings: AMGANSettings) -> None:
    run = trainer(replace(settings, learning_rate=1e-9, discriminator_rate=3e-3, steps=60, discriminator_channels=8))
    batch = next(run._batches())
    logs = []
    for _ in range(60):
        logs.append({name: float(value) for name, value in run._update(*batch).items()})
        run.step += 1
    assert logs[-1]["adversary_loss"] < 0.3 * logs[0]["adversary_loss"]
    assert logs[-1]["real_fake_distance"] > 3 * logs[0]["real_fake_distance"]


@pytest.mark.parametrize("kind", ["realness", "relativistic"])
def test_resume_equals_a_run_never_stopped(settings: AMGANSettings, tmp_path: Path, kind: Any) -> None:
    settings = replace(settings, adversarial=kind, anchors="official")
    whole = trainer(settings)
    whole.run()
    part = replace(settings, out=tmp_path / "stopped")
    stopped = trainer(part)
    update = stopped._update

    def interrupted(*batch: Any) -> Any:
        if stopped.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return update(*batch)

    stopped._update = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = trainer(replace(part, resume=True))
    assert resumed.step == 2
    resumed.run()
    for network in ("network", "adversary"):
        assert same(tensors(getattr(resumed.task, network)), tensors(getattr(whole.task, network))), network
    assert same(tensors(resumed.average), tensors(whole.average))


def test_a_discriminator_s_bad_step_changes_nothing_of_it(settings: AMGANSettings) -> None:
    run = trainer(settings)
    task, batch = amgan(run), next(run._batches())
    assert task.adversary is not None
    own = task.adversary_loss

    def bad(adversary: nn.Module) -> Any:
        loss, logs = own(adversary)
        return loss * float("nan"), logs

    task.adversary_loss = bad  # type: ignore[method-assign]
    before = {name: value.detach().clone() for name, value in task.adversary.named_parameters()}
    run._update(*batch)
    assert run.bad_steps == 1
    assert all(torch.equal(before[name], value) for name, value in task.adversary.named_parameters())
    for _ in range(MAX_BAD_STEPS - 1):
        run._check_steps()
        run._update(*batch)
    with pytest.raises(FloatingPointError, match="was not finite"):
        run._check_steps()


@pytest.mark.parametrize(
    ("changed", "name", "told"),
    [
        ({}, "amgan_x4", "realness, 9 outcomes, anchors supplement, form kl"),
        ({"adversarial": "relativistic"}, "amgan_star_x4", "relativistic"),
    ],
)
def test_export(settings: AMGANSettings, changed: dict[str, Any], name: str, told: str) -> None:
    figures = train_amgan.main(replace(settings, **changed))
    assert set(figures) == {f"{m}{w}" for m in ("lpips", "psnr") for w in ("", "_0.2", "_1.3", "_2.6")}
    loaded = load_renderer(settings.out / f"{name}.safetensors", scale=4)
    card = loaded.card
    assert card["losses"] == asdict(LossWeights(l1=1.0, vgg=15.0, adversarial=0.01, dists=0.0, phase=20.0))
    assert card["adversarial"] == told
    assert card["vgg"] == "random"
    assert card["start"].startswith("renderer")
    started = load_renderer(settings.start)
    assert loaded.basis.digest == started.basis.digest
    assert not same(tensors(loaded.network), tensors(started.network))


def test_a_share_of_the_middles_is_rendered_with_the_predicted_code(
    settings: AMGANSettings, tiny_predictor: Path
) -> None:
    changed = replace(settings, patch_size=96, render_size=64, predictor=str(tiny_predictor), predicted_share=0.4)
    task = amgan(trainer(changed))
    hr = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    uniforms = np.full((2, 5), 0.3)
    uniforms[1, 4] = 0.7
    seen: dict[str, torch.Tensor] = {}

    def network(lr: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        seen.update(lr=lr, code=code)
        return task.network(lr, code)

    task.loss(network, hr, uniforms, 0)  # type: ignore[arg-type]
    kernels = task.degradation.draw(uniforms, hr.device)
    lr, true = task.degradation(hr, kernels), task.basis.encode(kernels.kernels)
    predicted = task.predicted(lr)
    assert not torch.allclose(predicted, true, atol=1e-2)
    assert torch.allclose(seen["code"][0], predicted[0], atol=1e-5)
    assert torch.equal(seen["code"][1], true[1])
    assert torch.equal(seen["lr"], lr[..., 4:20, 4:20])
    assert task.pair is not None
    assert torch.equal(task.pair[0], hr[..., 16:80, 16:80])


def test_a_network_for_a_predictor_is_judged_with_it(settings: AMGANSettings, tiny_predictor: Path) -> None:
    with_predictor = replace(settings, predictor=str(tiny_predictor), steps=1)
    figures = train_amgan.main(with_predictor)
    task = amgan(trainer(replace(with_predictor, resume=True)))
    network = load_renderer(settings.out / "amgan_x4.safetensors").network
    by_hand = task.held_out.score(lambda lr, code: network(lr, task.predicted(lr)))[0]
    assert {name: figures[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-4)
    assert figures["lpips_true_kernel"] == pytest.approx(task.held_out.score(network)[0]["lpips"], rel=1e-4)
    card = load_renderer(settings.out / "amgan_x4.safetensors").card
    assert card["codes"].endswith("with a chance of 0.5, else true")


def test_the_weights_of_the_lowest_lpips_are_kept(settings: AMGANSettings) -> None:
    run = trainer(replace(settings, validate_every=1))
    scores = iter([0.5, 0.3, 0.4, 0.35])
    run.task.validate = lambda network: ({"lpips": next(scores)}, torch.zeros(3, 4, 4))  # type: ignore[method-assign]
    run.run()
    assert load_renderer(run.weights).card["validation"] == {"lpips": 0.3}


def test_what_is_trained_on_lpips_is_chosen_by_dists(settings: AMGANSettings) -> None:
    task = amgan(trainer(replace(settings, weights=LossWeights(dists=0.0, lpips=1.0))))
    assert task.headline == "dists"
    loss, terms = task.loss(task.network, torch.rand(1, 3, 64, 64), np.full((1, 6), 0.5), 0)
    assert terms["lpips"] > 0
    assert loss.isfinite()
    assert list(task.held_out.metrics) == ["lpips", "psnr", "dists"]
    assert amgan(trainer(settings)).headline == "lpips"


def test_without_an_adversary(settings: AMGANSettings) -> None:
    run = trainer(replace(settings, weights=LossWeights(adversarial=0.0, dists=0.0), steps=1))
    assert run.task.adversary is None
    logs = run._update(*next(run._batches()))
    assert "adversary_loss" not in logs
    run._save()
    assert json.loads(run.checkpoint.read_text())["files"].keys() == {"weights", "optimizer"}


def test_mistakes_show_before_training(settings: AMGANSettings) -> None:
    with pytest.raises(ValueError, match="patch_size is 60: the discriminator needs at least 64"):
        replace(settings, patch_size=60)
    with pytest.raises(ValueError, match="discriminator_rate is 0"):
        replace(settings, discriminator_rate=0.0)
    with pytest.raises(ValueError, match="predicted_share is 0"):
        replace(settings, predicted_share=0.0)
    with pytest.raises(ValueError, match=r"render_size is 96: give at least 1 and at most the patch_size of 64"):
        replace(settings, render_size=96)
    with pytest.raises(ValueError, match=r"render_size is 32: the discriminator needs at least 64"):
        replace(settings, render_size=32)
    with pytest.raises(ValueError, match="render_size is 66: give a multiple of the scale, 4"):
        trainer(replace(settings, patch_size=96, render_size=66))
    with pytest.raises(FileNotFoundError, match="no predictor 'nobody'"):
        trainer(replace(settings, predictor="nobody"))
    with pytest.raises(FileNotFoundError, match="no renderer 'amnet_xxl'"):
        trainer(replace(settings, start="amnet_xxl"))
    with pytest.raises(ValueError, match="outcomes is 1"):
        trainer(replace(settings, outcomes=1))


def test_outputs_of_the_discriminator_fit_the_loss(settings: AMGANSettings) -> None:
    for kind, loss in (("realness", RealnessLoss(9)), ("relativistic", RelativisticAverageLoss())):
        task = amgan(trainer(replace(settings, adversarial=kind, out=settings.out / kind)))  # type: ignore[arg-type]
        assert isinstance(task.adversary, Discriminator)
        assert task.adversary(torch.rand(1, 3, 64, 64)).shape == (1, loss.outputs)


def test_the_command_line_knows_the_loss_weights() -> None:
    script = str(Path(train_amgan.__file__))
    bad = subprocess.run(
        [sys.executable, script, "--weights.dists", "-1"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert bad.returncode == 2
    assert "dists is -1.0" in bad.stderr
