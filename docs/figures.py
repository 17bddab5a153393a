"""Draw the figures of docs/method.md from the released weights.

    python docs/figures.py

The photographs are the held-out ones that ship with scikit-image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blindsr_agents.exploration import measured_noise_shape, opposite_pairs
from blindsr_agents.hinge_ddpg import group_widths
from blindsr_agents.hinge_ddpg.losses import critic_loss
from matplotlib.figure import Figure
from torch import Tensor

from sr_env.degradation import ISOTROPIC_WIDTHS, isotropic_kernels, load_basis
from sr_env.simulator import UNIFORMS_PER_SCENE, Scenes, Simulator, SimulatorSettings
from sr_env.upscale import equivalent_widths
from sr_env.utils.files import atomic_write
from sr_env.utils.images import to_uint8
from sr_env.utils.script import run_script

_SCALE = 4
_RANGE = ISOTROPIC_WIDTHS[_SCALE]
_GROUPS = 8
_BATCH = 4  # scenes at once, which bounds the memory


@dataclass
class Settings:
    """Draw the figures of docs/method.md.

    Attributes:
        out: Folder for the pictures.
        renderer: Name or path of an x4 renderer.
        photo: Bundled photo of the scene that is shown.
        crop: Top and left of its patch in HR pixels.
        kernel_width: Kernel width of the scene along whose codes the renderer is led, in HR pixels.
        scenes: Scenes of the statistics of the reward.
        actions: Actions tried on each of them.
        seed: Of these scenes and actions.
    """

    out: Path = Path("docs/figures")
    renderer: str = "amnet_x4"
    photo: str = "chelsea.png"
    crop: tuple[int, int] = (60, 120)
    kernel_width: float = 1.8
    scenes: int = 40
    actions: int = 8
    seed: int = 0


def save(figure: Figure, path: Path) -> None:
    """Write a figure, JPEG or PNG by its name."""
    options: dict[str, Any] = {"pil_kwargs": {"quality": 88}} if path.suffix == ".jpg" else {}
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", **options)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def codes_of(widths: Tensor, simulator: Simulator) -> Tensor:
    """Codes [B, L] of isotropic kernels of given widths [B]."""
    return simulator.basis.encode(isotropic_kernels(widths))


def shown_scenes(simulator: Simulator, settings: Settings, widths: Sequence[float]) -> Scenes:
    """The shown patch, blurred by each of the widths."""
    options = {"photo": settings.photo, "crop": settings.crop, "kernel_width": list(widths)}
    return simulator.draw(np.zeros((len(widths), UNIFORMS_PER_SCENE)), options)


def draw_kernels() -> Figure:
    """Kernels of the family, and their codes as actions against the width."""
    basis = load_basis("isotropic", _SCALE)
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.7), squeeze=False)[:, 0]
    shown = torch.tensor([0.2, 0.8, 1.3, 2.0, 2.6, 3.3, 4.0])
    for axis, kernel, width in zip(above.subplots(1, len(shown)), isotropic_kernels(shown), shown, strict=True):
        axis.imshow((kernel / kernel.max()).sqrt(), cmap="inferno", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[], title=f"{width:.1f}")
    widths = torch.linspace(*_RANGE, 381)
    kernels = isotropic_kernels(widths)
    codes = basis.encode(kernels)
    left, right = below.subplots(1, 2, width_ratios=(2, 1))
    for number, curve in enumerate(basis.to_action(codes).T, 1):
        alone = number <= 5
        left.plot(
            widths, curve, lw=1.8 if alone else 0.6, color=None if alone else "0.7", label=number if alone else None
        )
    left.set(xlabel="kernel width / HR pixels", ylabel="action", ylim=(-1, 1))
    left.legend(title="component", fontsize="small", ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    lengths = range(1, basis.code_length + 1)
    errors = [
        float((basis.decode(codes * (torch.arange(10) < n)) - kernels).flatten(1).norm(dim=1).max()) for n in lengths
    ]
    right.semilogy(lengths, errors, "o-")
    right.set(xlabel="components kept", ylabel="largest error of a kernel", xticks=lengths)
    return figure


def draw_widths(simulator: Simulator, settings: Settings) -> Figure:
    """One patch blurred by three kernels: LR, what the renderer makes of it with the predictor's code, and HR."""
    widths = (0.2, 1.3, 2.6)
    scenes = shown_scenes(simulator, settings, widths)
    result, action = simulator.reconstruct(scenes)
    bicubic = simulator.bicubic(scenes)
    named = equivalent_widths(simulator.basis.to_code(action), simulator.basis)
    figure = Figure(figsize=(9, 6.1), layout="constrained")
    axes = figure.subplots(2, 4)
    for column, width in enumerate(widths):
        axes[0, column].imshow(to_uint8(scenes.lr)[column], interpolation="nearest")
        axes[0, column].set_title(f"LR, kernel width {width}", fontsize="medium")
        axes[1, column].imshow(to_uint8(result.sr)[column])
        axes[1, column].set_title(
            f"SR, predicted width {named[column]:.2f}\n"
            f"{result.terms['psnr'][column]:.2f} dB (bicubic {bicubic.terms['psnr'][column]:.2f})",
            fontsize="medium",
        )
    axes[0, 3].imshow(to_uint8(scenes.hr)[0])
    axes[0, 3].set_title("HR", fontsize="medium")
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def draw_path(simulator: Simulator, settings: Settings) -> Figure:
    """SR of one LR image as the code moves from narrow to wide kernels, and what the metrics say of it."""
    scene = shown_scenes(simulator, settings, [settings.kernel_width])
    reference, action = simulator.reconstruct(scene)
    predicted = float(equivalent_widths(simulator.basis.to_code(action), simulator.basis))
    widths = torch.linspace(0.6, 3.4, 57)
    codes = codes_of(widths, simulator)
    scenes = scene.repeat(len(widths))
    result = simulator.score(scenes, simulator.render(scenes.lr, codes), codes)
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1), squeeze=False)[:, 0]
    names = ("far too narrow", "too narrow", "true", "too wide", "far too wide")
    for axis, offset, name in zip(above.subplots(1, 5), (-1.2, -0.6, 0, 0.6, 1.2), names, strict=True):
        nearest = int((widths - settings.kernel_width - offset).abs().argmin())
        axis.imshow(to_uint8(result.sr[nearest : nearest + 1])[0, 24:144, 24:144])
        axis.set_title(f"{name}: {widths[nearest]:.1f}", fontsize="medium")
        axis.set_axis_off()
    left, right = below.subplots(1, 2)
    left.plot(widths, result.terms["psnr"] - reference.terms["psnr"])
    left.set(ylabel="reward, PSNR / dB")
    right.plot(widths, reference.terms["lpips"] - result.terms["lpips"])
    right.set(ylabel="reward, -LPIPS")
    for axis in (left, right):
        axis.axhline(0, color="0.6", lw=0.8)
        axis.axvline(settings.kernel_width, color="tab:green", ls="--", label="true kernel")
        axis.axvline(predicted, color="tab:red", ls=":", label="predicted, reward 0")
        axis.set_xlabel("width of the kernel that the code stands for / HR pixels")
    left.legend(fontsize="small")
    return figure


def draw_losses(gamma: float = 0.99) -> Figure:
    """The critic losses for one negative reward, and the Q at which each is least."""
    q = torch.linspace(-2, 2, 1601)
    rewards = torch.arange(-60, 61) / 40
    pairs = torch.cartesian_prod(rewards, q)
    shown = int((rewards + 0.3).abs().argmin())
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("mse", "hinge_l2", "hinge_l1", "hinge_margin", "printed"):
        loss = critic_loss(name)
        # The losses are means over all their elements: vmap gives one value for each pair of reward and Q.
        values = torch.vmap(loss, in_dims=(0, 0, None))(pairs[:, 1:], pairs[:, :1], gamma)
        values = values.reshape(len(rewards), len(q))
        left.plot(q, values[shown], label=name)
        # The printed loss falls without end, and hinge_margin is least on a whole half line: they have no minimum.
        if name not in ("printed", "hinge_margin"):
            right.plot(rewards, q[values.argmin(1)])
    left.axvline(-0.3, color="0.6", lw=0.8)
    left.set(xlabel="Q", ylabel="loss for r = -0.3", ylim=(-2, 4))
    left.legend(fontsize="small")
    right.axvspan(-gamma / 2, 0, color="tab:orange", alpha=0.2)
    right.set(xlabel="reward r", ylabel="Q at which the loss is least")
    return figure


def draw_rewards(simulator: Simulator, settings: Settings) -> tuple[Figure, Mapping[str, float]]:
    """Spread of the reward over scenes and over the actions on one scene, and its size per range of widths."""
    rng = np.random.default_rng(settings.seed)
    shape = measured_noise_shape(simulator, noise=0.7, limit=0.3, seed=settings.seed)
    scores: dict[str, list[Tensor]] = {"score": [], "bicubic": [], "predictor": []}
    widths: list[Tensor] = []
    for first in range(0, settings.scenes, _BATCH):
        count = min(_BATCH, settings.scenes - first)
        scenes = simulator.draw(rng.random((count, UNIFORMS_PER_SCENE)))
        predicted, action = simulator.reconstruct(scenes)
        noise = opposite_pairs(rng, count, settings.actions, simulator.code_length)
        moved = torch.from_numpy(noise).float() @ shape
        actions = (action.repeat_interleave(settings.actions, 0) + moved).clamp(-1, 1)
        tried = simulator.evaluate(scenes.repeat(settings.actions), actions)
        scores["score"].append(tried.score.reshape(count, -1))
        scores["bicubic"].append(simulator.bicubic(scenes).score[:, None])
        scores["predictor"].append(predicted.score[:, None])
        widths.append(scenes.kernels.widths[:, 0])
    score, bicubic, predictor = (torch.cat(parts) for parts in scores.values())
    rewards = {
        "none": score,
        "bicubic": score - bicubic,
        "predictor": score - predictor,
    }
    spread = {name: float(value.mean(1).std()) for name, value in rewards.items()}
    spread["actions"] = float(score.var(1).mean().sqrt())
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.bar(
        ["scenes,\nnone", "scenes,\nbicubic", "scenes,\npredictor", "actions on\none scene"],
        list(spread.values()),
        color=["tab:blue"] * 3 + ["tab:green"],
    )
    left.margins(y=0.1)
    left.set(ylabel="standard deviation of the reward / dB")
    for place, value in enumerate(spread.values()):
        left.text(place, value, f"{value:.2f}", ha="center", va="bottom", fontsize="small")
    groups = group_widths(torch.cat(widths).numpy(), _RANGE)
    edges = np.linspace(*_RANGE, _GROUPS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    sizes = rewards["predictor"].abs().numpy()
    medians = [float(np.median(sizes[groups == group])) for group in range(_GROUPS)]
    right.bar(centres, medians, width=0.9 * (edges[1] - edges[0]))
    right.set(xlabel="kernel width / HR pixels", ylabel="median size of the reward / dB")
    return figure, spread


def main(settings: Settings) -> None:
    """Draw all figures."""
    simulator = Simulator(
        SimulatorSettings(
            split="all", renderer=settings.renderer, reference="predictor", info_metrics=("lpips",), device="cpu"
        )
    )
    save(draw_kernels(), settings.out / "kernels.png")
    save(draw_widths(simulator, settings), settings.out / "widths.jpg")
    save(draw_path(simulator, settings), settings.out / "path.jpg")
    save(draw_losses(), settings.out / "losses.png")
    figure, spread = draw_rewards(
        Simulator(SimulatorSettings(split="all", reference="predictor", device="cpu")), settings
    )
    save(figure, settings.out / "rewards.png")
    print("standard deviation of the reward in dB: " + ", ".join(f"{k} {v:.2f}" for k, v in spread.items()))


if __name__ == "__main__":
    run_script(Settings, main)
