"""Train HingeDDPG from the pretrained kernel predictor, and show on held-out photos what came of it.

    python agents/train_ddpg.py

Actors are selected on photos (of the few bundled ones: on parts of them) that are not trained on; the table at the end
is measured on the bundled test photos, which neither training nor selection sees. Where no actor beats the pretrained
one on the selection scenes without losing at some kernel width, the pretrained one is kept, and the output says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from blindsr_agents.hinge_ddpg.agent import HingeDDPG, Normalisation
from blindsr_agents.training.report import Board, draw_before_after, draw_curves, measure_test, peak_memory
from blindsr_agents.training.setup import Improvement, ImprovementSettings
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sr_env.envs.sb3 import BlindSRVecEnv
from sr_env.envs.vector import BlindSRVectorEnv
from sr_env.utils.files import check_writable
from sr_env.utils.script import run_script, stop_requests

from stable_baselines3.common.callbacks import BaseCallback  # isort: skip


@dataclass
class Settings(ImprovementSettings):
    """Train HingeDDPG.

    Attributes:
        steps: Environment steps in all; training also ends when ``minutes`` are over.
        envs: Sub-environments in one batch.
        actions_per_scene: Sub-environments that share a scene, so that several actions are compared on it.
        loss: Critic loss: printed, hinge_l2, hinge_l1, hinge_margin or mse.
        shift: Added to squashed rewards and advantages before the critic loss; 3 makes both non-negative, 0 lets the
            hinge act on negative ones.
        noise: What exploration noise changes the picture by in each direction of the action space, in grey levels.
        noise_final: The same at the end; None keeps it constant.
        noise_limit: The largest noise of any direction in action units.
        anchor: Weight of the squared distance from the pretrained code in units of the noise.
        learning_rate: Of the critics.
        actor_learning_rate: Of the actor.
        critics: Size of the ensemble.
        pessimism: The actor climbs the critics' mean less this many of their standard deviations.
        normalisation: Rewards are scaled per scene ("scene", with several actions on each), per range of kernel widths
            ("width"), over "all" scenes, or not ("none").
        contrast: Weight in the critic loss of the differences between the actions on one scene.
        learning_starts: Environment steps before the first update.
        warmup_updates: Updates of the critics alone.
        gradient_steps: Updates per step of all sub-environments.
        batch_size: Scenes per update.
        buffer_size: Scenes in the replay memory.
        train_features: Train the actor's convolutions too (slow on a CPU).
        patience: Training stops after so many validations without a better actor; None goes on.
        test_crops: Crops of the test scenes; 0 leaves the test out.
        test_widths: Kernel widths of the test scenes; None takes those that are reported for the scale.
        resume: Continue from the state in ``out``, as if there had been no interruption.
    """

    steps: int = 8000
    envs: int = 32
    actions_per_scene: int = 4
    loss: str = "hinge_l2"
    shift: float = 3.0
    noise: float = 0.7
    noise_final: float | None = None
    noise_limit: float = 0.3
    anchor: float = 0.003
    learning_rate: float = 1e-3
    actor_learning_rate: float = 2e-4
    critics: int = 4
    pessimism: float = 1.0
    normalisation: Normalisation = "width"
    contrast: float = 3.0
    learning_starts: int = 512
    warmup_updates: int = 200
    gradient_steps: int = 16
    batch_size: int = 256
    buffer_size: int = 20_000
    train_features: bool = False
    patience: int | None = None
    test_crops: int = 12
    test_widths: tuple[float, ...] | None = None
    resume: bool = False

    def agent(self) -> dict[str, Any]:
        """Keywords of :class:`~blindsr_agents.hinge_ddpg.agent.HingeDDPG` that bear the settings' own names."""
        names = (
            *("learning_rate", "actor_learning_rate", "buffer_size", "learning_starts", "batch_size"),
            *(
                "gradient_steps",
                "loss",
                "shift",
                "noise",
                "noise_final",
                "noise_limit",
                "warmup_updates",
                "anchor",
                "pessimism",
            ),
            *("normalisation", "contrast", "train_features", "seed"),
        )
        return {name: getattr(self, name) for name in names} | {"n_critics": self.critics}


class Ended(Exception):
    """Training is over before its steps are; the message says why."""


class Watch(BaseCallback):
    """Shows progress, validates, saves, and says when training ends early.

    Everything happens between two rounds of updates, so that what is saved there can be gone on from exactly.

    Args:
        settings: The run's.
        improvement: Whose selection validates and keeps the best actor.
        save: Writes the state.
        asked: Tells whether the user asked to stop.
        console: Where progress is shown.
    """

    def __init__(
        self,
        settings: Settings,
        improvement: Improvement,
        save: Callable[[], None],
        asked: Callable[[], bool],
        console: Console,
    ) -> None:
        super().__init__()
        self.settings, self.selection, self.save, self.asked = settings, improvement.selection, save, asked
        self.console = console
        self.board = Board(improvement)
        self.training: list[tuple[int, float, float]] = []
        self._rewards: list[float] = []
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)

    def _on_training_start(self) -> None:
        self._begun = time.monotonic()
        self._bar = self.progress.add_task("", total=self.settings.steps, completed=self.num_timesteps)

    def _on_rollout_start(self) -> None:
        every, last = self.settings.select_every, self.training[-1][0] if self.training else 0
        if self.num_timesteps // every > last // every:
            self.validate()
            self.save()
        patience = self.settings.patience
        if time.monotonic() - self._begun > 60 * self.settings.minutes:
            raise Ended(f"{self.settings.minutes:g} minutes are over at step {self.num_timesteps}")
        if patience is not None and self.selection.idle >= patience:
            raise Ended(f"no better actor in {patience} validations, at step {self.num_timesteps}")
        if self.asked():
            self.save()
            self.console.print(f"stopped at step {self.num_timesteps}, saved; add --resume to go on")
            raise KeyboardInterrupt

    def _on_step(self) -> bool:
        self.progress.update(self._bar, completed=self.num_timesteps)
        self._rewards += self.locals["rewards"].tolist()
        self.board.rewards(self.logger, self.locals["infos"])
        return True

    def validate(self) -> None:
        """Score the averaged actor on the selection scenes, once a step."""
        if self.training and self.training[-1][0] == self.num_timesteps:
            return
        assert isinstance(self.model, HingeDDPG)
        correlation = self.model.correlation
        reward = float(np.mean(self._rewards)) if self._rewards else float("nan")
        self.training.append((self.num_timesteps, reward, correlation))
        self._rewards.clear()
        gain = self.selection.consider(self.model.predictor, self.num_timesteps)
        self.board.validation(self.logger, self.model, gain)
        self.logger.dump(self.num_timesteps)
        each = " / ".join(f"{value:+.4g}" for value in gain)
        kept = "kept" if self.selection.best_step == self.num_timesteps else "not kept"
        if self.selection.broken:
            kept += f" (guard broken: {', '.join(self.selection.broken)})"
        self.console.print(
            f"step {self.num_timesteps}: selection scenes {gain.mean():+.4g} over the pretrained actor ({each}), "
            f"{kept}; training reward {reward:+.3g}, critics' correlation {correlation:.2f}",
            soft_wrap=True,
        )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "selection": self.selection.state(),
            "training": [list(row) for row in self.training],
            "rewards": list(self._rewards),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.selection.load_state(state["selection"])
        self.training = [(int(step), float(reward), float(corr)) for step, reward, corr in state["training"]]
        self._rewards = list(state["rewards"])


def build(settings: Settings, improvement: Improvement, **changes: Any) -> tuple[BlindSRVecEnv, HingeDDPG]:
    """The environment that the settings describe, and an agent in it (``changes``: further arguments of the agent)."""
    env = BlindSRVecEnv(
        BlindSRVectorEnv(
            settings.envs,
            actions_per_scene=settings.actions_per_scene,
            photos=improvement.photos,
            **settings.environment(),
        )
    )
    device = improvement.simulator.device
    return env, HingeDDPG(env=env, predictor=improvement.pretrained, device=device, **settings.agent(), **changes)


def main(settings: Settings) -> dict[str, float]:
    """Train, select, and report; returns the gain on the test photos and its standard error (empty without a test)."""
    console = Console()
    begun, cpu = time.monotonic(), time.process_time()
    state_file = settings.out / "state.pt"
    if settings.resume and not state_file.is_file():
        raise FileNotFoundError(f"nothing to resume: {state_file} does not exist; start without --resume")
    check_writable(settings.out)
    improvement = Improvement(settings)
    env, model = build(settings, improvement, tensorboard_log=str(settings.out / "tb"))

    def save() -> None:
        model.save_state(state_file, {"watch": watch.state(), "episodes": env.env.state()})

    with stop_requests() as stop:
        watch = Watch(settings, improvement, save, stop.is_set, console)
        if settings.resume:
            kept = model.load_state(state_file)
            watch.load_state(kept["watch"])
            env.load_state(kept["episodes"])
        told = ", ".join(f"{weight:g} {name}" for name, weight in settings.reward.items())
        console.print(
            f"HingeDDPG, loss {settings.loss}, reward {told} above the pretrained actor's; "
            f"{len(improvement.photos)} photos, {settings.envs} environments on {improvement.simulator.device}; "
            f"replay memory {settings.buffer_size} scenes, {model.memory.nbytes / 1e6:.0f} MB; steps "
            f"{model.num_timesteps} to {settings.steps}, at most {settings.minutes:g} minutes; "
            f"writing to {settings.out}",
            soft_wrap=True,
        )
        if (left := settings.steps - model.num_timesteps) > 0:
            with watch.progress:
                try:
                    model.learn(left, callback=watch, log_interval=10**9, reset_num_timesteps=False)
                except Ended as reason:
                    console.print(f"{reason} of {settings.steps}")
                watch.validate()
            save()

    actor = model.predictor
    chosen = improvement.choose(actor, console)
    model.actor.predictor.load_state_dict(actor.state_dict())
    draw_curves(settings.out / "curves.png", improvement.selection, watch.training)
    result: dict[str, float] = {}
    if settings.test_crops:
        test = measure_test(improvement, actor, settings.test_crops, settings.test_widths, console)
        draw_before_after(settings.out / "before_after.png", test.scenes, test.shown)
        result = test.result
    card = {
        "method": "HingeDDPG",
        "kept": chosen,
        "steps": model.num_timesteps,
        "seconds": round(time.monotonic() - begun),
        **({"test": result} if result else {}),
    }
    weights = improvement.save(actor, card)
    written = ["curves.png", *(["before_after.png"] if result else []), weights.name]
    console.print(f"written to {settings.out}: {', '.join(written)}", soft_wrap=True)
    console.print(
        f"{time.monotonic() - begun:.0f} s, {time.process_time() - cpu:.0f} s of CPU time, "
        f"peak memory {peak_memory() / 1e9:.2f} GB"
    )
    return result


if __name__ == "__main__":
    run_script(Settings, main)
