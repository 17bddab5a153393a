"""Train HingeDDPG from the pretrained kernel predictor, and show on held-out photos what came of it.

    python agents/train_ddpg.py

Actors are selected on parts of the training photos that are not trained on; the table at the end is measured on the
bundled test photos, which neither training nor selection sees. Where no actor beats the pretrained one on the
selection scenes without losing at some kernel width, the pretrained one is kept, and the output says so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agents.hinge_ddpg import HingeDDPG
from agents.report import (
    BICUBIC,
    PRETRAINED,
    TRAINED,
    TRUE_KERNEL,
    draw_before_after,
    draw_curves,
    make_table,
    true_kernel,
    verdict,
)
from agents.scenes import FixedScenes, Part, Selection
from sr_env._files import check_writable
from sr_env._provenance import command_line, commit, hardware, public_path
from sr_env._script import Weights, run_script
from sr_env.checkpoint import save_checkpoint
from sr_env.degradation import REPORTED_WIDTHS
from sr_env.devices import Precision
from sr_env.photos import open_photos
from sr_env.sb3 import BlindSRVecEnv
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.vector_env import BlindSRVectorEnv

from stable_baselines3.common.callbacks import BaseCallback  # isort: skip

#: Bytes of decoded photos kept, so that the whole run stays under 2 GB.
_PHOTO_MEMORY = 512 * 1024**2


@dataclass
class Settings:
    """Train HingeDDPG.

    Attributes:
        out: Folder for everything that is written; files of a run before are replaced.
        photos: Folder of HR photos to train on, searched recursively; "bundled" takes scikit-image's photographs.
        reward: Metrics and weights that the agent is paid by, such as ``--reward psnr=1,lpips=20``.
        renderer: Name or path of the frozen renderer; None takes ``amnet_l_x{scale}``.
        predictor: Name or path of the pretrained actor; None takes ``predictor_x{scale}``.
        scale: Magnification.
        patch_size: HR patch side in pixels.
        steps: Environment steps in all.
        minutes: Training stops after so many minutes, whether or not ``steps`` is reached.
        envs: Sub-environments in one batch.
        loss: Critic loss: printed, hinge_l2, hinge_l1, hinge_margin or mse.
        noise: Exploration noise in action units of the most telling component.
        anchor: Weight of the squared distance from the pretrained code in units of the noise.
        learning_rate: Of the critics.
        actor_learning_rate: Of the actor.
        critics: Size of the ensemble.
        learning_starts: Environment steps before the first update.
        warmup_updates: Updates of the critics alone.
        gradient_steps: Updates per step of all sub-environments.
        batch_size: Scenes per update.
        buffer_size: Scenes in the replay memory.
        train_features: Train the actor's convolutions too (slow on a CPU).
        select_every: Environment steps between validations on the selection scenes.
        selection_crops: Crops of the selection scenes, each seen at every selection width.
        selection_widths: Kernel widths of the selection scenes; an actor that loses at one of them is not taken.
        test_crops: Crops of the test scenes.
        test_widths: Kernel widths of the test scenes; None takes those that are reported for the scale.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Of the renderer: "auto" (bf16 where the device computes in it), "fp32" or "bf16".
        seed: Seed of scenes, noise, networks and batches.
        resume: Continue from the state in ``out``.
    """

    out: Path = Path("runs/ddpg")
    photos: str = "bundled"
    reward: Weights = field(default_factory=lambda: {"psnr": 1.0})
    renderer: str | None = None
    predictor: str | None = None
    scale: int = 4
    patch_size: int = 192
    steps: int = 8000
    minutes: float = 3.5
    envs: int = 16
    loss: str = "hinge_l2"
    noise: float = 0.1
    anchor: float = 0.05
    learning_rate: float = 1e-3
    actor_learning_rate: float = 5e-5
    critics: int = 4
    learning_starts: int = 512
    warmup_updates: int = 500
    gradient_steps: int = 8
    batch_size: int = 256
    buffer_size: int = 20_000
    train_features: bool = False
    select_every: int = 640
    selection_crops: int = 24
    selection_widths: tuple[float, ...] = (0.2, 1.3, 2.6, 3.6)
    test_crops: int = 12
    test_widths: tuple[float, ...] | None = None
    device: str = "auto"
    precision: Precision = "auto"
    seed: int = 0
    resume: bool = False


class Watch(BaseCallback):
    """Shows progress, validates, saves, and ends training when its time is over.

    Args:
        settings: The run's.
        selection: Validates and keeps the best actor.
        save: Writes the state.
        console: Where progress is shown.
    """

    def __init__(self, settings: Settings, selection: Selection, save: Callable[[], None], console: Console) -> None:
        super().__init__()
        self.settings, self.selection, self.save, self.console = settings, selection, save, console
        self.training: list[tuple[int, float, float]] = []
        self.timed_out = False
        self._rewards: list[float] = []
        self._next = settings.select_every

    def _on_training_start(self) -> None:
        self._begun = time.monotonic()
        self._next = (self.num_timesteps // self.settings.select_every + 1) * self.settings.select_every
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._bar = self._progress.add_task("", total=self.settings.steps, completed=self.num_timesteps)
        self._progress.start()

    def _on_step(self) -> bool:
        self._progress.update(self._bar, completed=self.num_timesteps)
        self._rewards += self.locals["rewards"].tolist()
        if time.monotonic() - self._begun > 60 * self.settings.minutes:
            self.timed_out = True
            return False
        if self._next <= self.num_timesteps < self.settings.steps:  # the last one comes after the last update
            self._next += self.settings.select_every
            self.validate()
            self.save()
        return True

    def _on_training_end(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the progress bar away."""
        if hasattr(self, "_progress"):
            self._progress.stop()

    def validate(self) -> None:
        """Score the averaged actor on the selection scenes."""
        assert isinstance(self.model, HingeDDPG)
        correlation = self.model.correlation
        reward = float(np.mean(self._rewards)) if self._rewards else float("nan")
        self.training.append((self.num_timesteps, reward, correlation))
        self._rewards.clear()
        gain = self.selection.consider(self.model.predictor, self.num_timesteps)
        for width, value in zip(self.selection.scenes.widths, gain, strict=True):
            self.logger.record(f"selection/gain_{width:g}", value)
        self.logger.record("selection/gain", gain.mean())
        each = " / ".join(f"{value:+.3f}" for value in gain)
        kept = "kept" if self.selection.best_step == self.num_timesteps else "not kept"
        self.console.print(
            f"step {self.num_timesteps}: selection scenes {gain.mean():+.4f} over the pretrained actor ({each}), "
            f"{kept}; training reward {reward:+.3f}, critics' correlation {correlation:.2f}"
        )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"selection": self.selection.state(), "training": [list(row) for row in self.training]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.selection.load_state(state["selection"])
        self.training = [(int(step), float(reward), float(corr)) for step, reward, corr in state["training"]]


def main(settings: Settings) -> dict[str, float]:
    """Train, select, and report; returns the gain on the test photos and its standard error."""
    console = Console()
    begun, cpu = time.monotonic(), time.process_time()
    state_file = settings.out / "state.pt"
    if settings.resume and not state_file.is_file():
        raise FileNotFoundError(f"nothing to resume: {state_file} does not exist; start without --resume")
    check_writable(settings.out)

    photos = open_photos(settings.photos, split="train", min_size=settings.patch_size, memory_budget=_PHOTO_MEMORY)
    shared: dict[str, Any] = {
        "scale": settings.scale,
        "patch_size": settings.patch_size,
        "renderer": settings.renderer,
        "predictor": settings.predictor,
        "reward": settings.reward,
        "reference": "predictor",
        "device": settings.device,
        "precision": settings.precision,
    }
    reported = {**shared, "info_metrics": ("psnr", "lpips")}
    env = BlindSRVecEnv(
        BlindSRVectorEnv(settings.envs, photos=Part(photos, settings.patch_size, held_out=False), **shared)
    )
    simulator = env.env.simulator
    assert simulator.predictor is not None
    pretrained = simulator.predictor.network
    model = HingeDDPG(
        env=env,
        predictor=simulator.predictor,
        learning_rate=settings.learning_rate,
        actor_learning_rate=settings.actor_learning_rate,
        buffer_size=settings.buffer_size,
        learning_starts=settings.learning_starts,
        batch_size=settings.batch_size,
        gradient_steps=settings.gradient_steps,
        loss=settings.loss,
        noise=settings.noise,
        warmup_updates=settings.warmup_updates,
        anchor=settings.anchor,
        train_features=settings.train_features,
        n_critics=settings.critics,
        tensorboard_log=str(settings.out / "tb"),
        seed=settings.seed,
        device=simulator.device,
    )
    held_out = Simulator(SimulatorSettings(photos=Part(photos, settings.patch_size, held_out=True), **shared))
    # Seeds of their own: the same scenes whatever the training's seed.
    selection = Selection(FixedScenes(held_out, settings.selection_crops, settings.selection_widths, 1), pretrained)
    watch = Watch(settings, selection, lambda: model.save_state(state_file, watch.state()), console)
    if settings.resume:
        watch.load_state(model.load_state(state_file))
        env.seed(settings.seed + 1_000_003 + model.num_timesteps)  # scenes not seen before
    told = ", ".join(f"{weight:g} {name}" for name, weight in settings.reward.items())
    console.print(
        f"HingeDDPG, loss {settings.loss}, reward {told} above the pretrained actor's; {len(photos)} photos, "
        f"{settings.envs} environments on {simulator.device}; replay memory {settings.buffer_size} scenes, "
        f"{model.memory.nbytes / 1e6:.0f} MB; steps {model.num_timesteps} to {settings.steps}, at most "
        f"{settings.minutes:g} minutes; writing to {settings.out}"
    )
    try:
        if model.num_timesteps < settings.steps:
            model.learn(
                settings.steps - model.num_timesteps, callback=watch, log_interval=320, reset_num_timesteps=False
            )
            watch.validate()
            watch.save()
    except KeyboardInterrupt:
        watch.stop()
        watch.save()
        console.print(f"stopped at step {model.num_timesteps}, saved; add --resume to go on")
        raise
    if watch.timed_out:
        console.print(f"{settings.minutes:g} minutes are over at step {model.num_timesteps} of {settings.steps}")

    actor = model.predictor
    if selection.best is None:
        console.print(
            "No actor beat the pretrained one on the selection scenes without losing at some kernel width: "
            "the PRETRAINED actor is kept and exported as it was."
        )
        actor.load_state_dict(pretrained.state_dict())
    else:
        console.print(
            f"Kept the actor of step {selection.best_step}, {selection.best_gain:+.4f} on the selection scenes."
        )
        actor.load_state_dict(selection.best)
    model.actor.predictor.load_state_dict(actor.state_dict())

    test = Simulator(SimulatorSettings(photos="bundled", split="test", **reported))
    scenes = FixedScenes(test, settings.test_crops, settings.test_widths or REPORTED_WIDTHS[settings.scale], 2)
    methods = {
        BICUBIC: test.enlarge,
        PRETRAINED: scenes.acting(pretrained),
        TRAINED: scenes.acting(actor),
        TRUE_KERNEL: true_kernel(test),
    }
    scores = {name: scenes.score(method) for name, method in methods.items()}
    title = f"{settings.test_crops} crops of {', '.join(test.photos.names)}, each at {len(scenes.widths)} kernel widths"
    lower = [name for name, metric in test.metrics.items() if not metric.higher_is_better]
    console.print(make_table(scores, scenes.widths, lower, title))
    console.print(verdict(scores))
    result = {
        "gain": float(scores[TRAINED].gain(scores[PRETRAINED]).mean()),
        "standard_error": scores[TRAINED].standard_error(scores[PRETRAINED]),
    }

    curves, pictures = settings.out / "curves.png", settings.out / "before_after.png"
    draw_curves(curves, selection.history, selection.scenes.widths, watch.training, selection.best_step)
    draw_before_after(pictures, scenes, {name: methods[name] for name in (BICUBIC, PRETRAINED, TRAINED)})
    card = {
        "kept": "pretrained" if selection.best is None else f"step {selection.best_step}",
        "start": str(simulator.predictor.path.name),
        "steps": model.num_timesteps,
        "seconds": round(time.monotonic() - begun),
        "hardware": hardware(simulator.device),
        "torch": torch.__version__,
        "seed": settings.seed,
        "command": command_line(),
        "commit": commit(),
        "settings": {k: public_path(v) if isinstance(v, Path | str) else v for k, v in asdict(settings).items()},
        "test": result,
        "licence": "Apache-2.0",
    }
    weights = save_checkpoint(
        settings.out / f"actor_x{settings.scale}.safetensors", actor, simulator.basis, settings.scale, card
    )
    console.print(f"curves: {curves}\nbefore and after: {pictures}\nactor: {weights}", soft_wrap=True)
    console.print(
        f"{time.monotonic() - begun:.0f} s, {time.process_time() - cpu:.0f} s of CPU time, "
        f"peak memory {peak_memory() / 1e9:.2f} GB"
    )
    return result


def peak_memory() -> float:
    """Largest resident size of this process in bytes; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    run_script(Settings, main)
