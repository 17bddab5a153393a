"""A whole run of HingeDDPG: train, select on held-out photos, report on test photos, write the actor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from blindsr_agents.baselines import ConstantOffset, best_constant
from blindsr_agents.hinge_ddpg.agent import HingeDDPG
from blindsr_agents.hinge_ddpg.config import HingeDDPGConfig
from blindsr_agents.training.progress import Ended, Progress
from blindsr_agents.training.report import draw_before_after, draw_curves, measure_test, peak_memory
from blindsr_agents.training.settings import ImprovementSettings
from blindsr_agents.training.setup import Improvement
from blindsr_agents.training.state import STATE
from sr_env.envs.sb3 import BlindSRVecEnv
from sr_env.envs.vector import BlindSRVectorEnv
from sr_env.photos import PhotoSource
from sr_env.simulator import reward_title
from sr_env.utils.checks import UsageError
from sr_env.utils.files import check_writable, disk_errors_named
from sr_env.utils.resume import check_out
from sr_env.utils.script import stop_requests

from stable_baselines3.common.callbacks import BaseCallback  # isort: skip


@dataclass
class HingeDDPGSettings(ImprovementSettings, HingeDDPGConfig):
    """Train HingeDDPG.

    Attributes:
        steps: Environment steps in all, the budget: with it, a seed gives the same actor on a busy machine.
        minutes: Training also ends after so many minutes, which is meant for machines that would take very long.
        envs: Sub-environments in one batch.
        actions_per_scene: Sub-environments that share a scene, so that several actions are compared on it.
        patience: Training stops after so many validations without a better actor; None goes on.
        few_anchor: The least ``anchor`` where there are so few photographs that parts of them are held out, as of the
            bundled ones: what few say of scenes does not carry over to others, and their held-out parts do not show it.
        constant_renderings: SR images rendered to fit the best constant action that the report compares with; 0 leaves
            it out.
        test_crops: Crops of the test scenes; 0 leaves the test out.
        test_widths: Kernel widths of the test scenes; None takes those that are reported for the scale. ``lr_photos``
            have none.
    """

    controls: tuple[str, ...] = ("code", "sharpen")
    steps: int = 2560
    minutes: float = 30.0
    envs: int = 32
    actions_per_scene: int = 4
    patience: int | None = None
    few_anchor: float = 1.0
    constant_renderings: int = 2560
    test_crops: int = 24
    test_widths: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        ImprovementSettings.__post_init__(self)
        HingeDDPGConfig.__post_init__(self)
        for name in ("steps", "envs", "actions_per_scene"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is not positive: give 1 or more")
        self._check_number("few_anchor", lowest=0.0)
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"patience {self.patience} ends training before it begins: give 1 or more, or None")
        if self.test_crops < 0:
            raise UsageError(f"test_crops {self.test_crops} is negative: give 0 for no test, or more")
        if self.constant_renderings and self.constant_renderings < ConstantOffset.calls_per_scene:
            raise UsageError(
                f"constant_renderings {self.constant_renderings} do not suffice for one scene: give 0 for no "
                f"comparison, or {ConstantOffset.calls_per_scene} or more"
            )

    def config(self) -> HingeDDPGConfig:
        """How the agent learns."""
        return HingeDDPGConfig(**{field.name: getattr(self, field.name) for field in fields(HingeDDPGConfig)})


def build(settings: HingeDDPGSettings, improvement: Improvement, **changes: Any) -> tuple[BlindSRVecEnv, HingeDDPG]:
    """The environment that the settings describe, and an agent in it (``changes``: further arguments of the agent)."""
    env = BlindSRVecEnv(
        BlindSRVectorEnv(
            settings.envs,
            actions_per_scene=settings.actions_per_scene,
            **settings.environment(improvement.photos),
        )
    )
    device = improvement.simulator.device
    config, start = settings.config(), improvement.pretrained
    if improvement.few:
        config.anchor = max(config.anchor, settings.few_anchor)
    return env, HingeDDPG(env=env, config=config, predictor=start, device=device, seed=settings.seed, **changes)


class StartGuard(BaseCallback):
    """Sees that the actor learns from where nothing is lost: halves the offset where it begins, and at last drops it.

    Args:
        progress: Validates on the selection scenes, whose rule this is: no loss at a kernel width, and no guard broken.
    """

    model: HingeDDPG

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def _on_rollout_start(self) -> None:
        agent, selection, step = self.model, self.progress.selection, self.num_timesteps
        if agent._n_updates or not 0 < agent.config.constant_steps <= step:
            return
        self.progress.validate()
        for share in (0.5, 0.25, 0.0):
            if selection.fits:
                return
            agent.begin(agent.critic.offset * (0.5 if share else 0.0))
            gain = selection.consider(agent.predictor, step)
            self.progress.console.print(
                f"step {step}: that start is not taken; {share:g} of it gains {gain.mean():+.4g}", soft_wrap=True
            )

    def _on_step(self) -> bool:
        return True


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Attributes:
        agent: With the weights that were selected, in actor and average alike.
        path: The actor's file, for ``load_predictor``, ``blindsr upscale --predictor`` and the evaluations.
        kept: "step N", or "pretrained" where no actor was better.
        selection_gain: Its mean gain in reward over the pretrained actor on the held-out photos.
        test: The gain on the test photos and its standard error, ``gain`` and ``standard_error``, and the same over the
            best constant, ``gain_over_constant`` and ``standard_error_over_constant``; empty without a test.
    """

    agent: HingeDDPG
    path: Path
    kept: str
    selection_gain: float
    test: Mapping[str, float]


def train(
    settings: HingeDDPGSettings,
    *,
    photos: PhotoSource | Sequence[NDArray[np.uint8]] | None = None,
    callbacks: Sequence[BaseCallback] = (),
    console: Console | None = None,
) -> Trained:
    """Train, select, report, and write actor, card, curves and pictures to ``settings.out``.

    Args:
        settings: The run.
        photos: HR photos of your own, as ``open_photos`` takes them (a list of uint8 RGB arrays, say), to train on and
            to hold some out of; None takes ``settings.photos``.
        callbacks: Further callbacks of Stable-Baselines3.
        console: Where it is reported; None takes standard output.

    Raises:
        FileInTheWayError: ``out`` holds another run.
        UsageError: A setting is wrong, a file is missing, or there is nothing to resume or it is of other settings.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, with the state saved.
    """
    console = console or Console()
    begun, cpu = time.monotonic(), time.process_time()
    earlier = 0.0  # seconds of earlier sittings
    state_file = settings.out / STATE
    check_out(settings.out, STATE, (f"actor_x{settings.scale}.safetensors",), settings.resume)
    check_writable(settings.out)
    improvement = Improvement(settings, photos)
    env, model = build(settings, improvement, tensorboard_log=str(settings.out / "tb"))

    def save() -> None:
        model.save_state(
            state_file,
            {
                "watch": progress.state(),
                "episodes": env.env.state(),
                "settings": improvement.kept,
                "seconds": earlier + time.monotonic() - begun,
            },
        )

    with stop_requests() as stop, disk_errors_named(settings.out):
        progress = Progress(improvement, settings.steps, settings.patience, save, stop.is_set, console)
        if settings.resume:
            kept = model.load_state(state_file)
            earlier = kept.get("seconds", 0.0)
            progress.load_state(kept["watch"])
            env.load_state(kept["episodes"])
        console.print(
            f"HingeDDPG, loss {settings.loss}, reward {reward_title(settings.reward)} above the pretrained actor's; "
            f"{len(improvement.photos)} photos, {settings.envs} environments on {improvement.simulator.device}; "
            f"replay memory {settings.buffer_size} scenes, {model.memory.nbytes / 1e6:.0f} MB; steps "
            f"{model.num_timesteps} to {settings.steps}, at most {settings.minutes:g} minutes; "
            f"writing to {settings.out}",
            soft_wrap=True,
        )
        if (left := settings.steps - model.num_timesteps) > 0:
            with progress.bar:
                try:
                    model.learn(
                        left,
                        callback=[progress, StartGuard(progress), *callbacks],
                        log_interval=10**9,
                        reset_num_timesteps=False,
                    )
                except Ended as reason:
                    console.print(f"{reason} of {settings.steps}")
                progress.validate()
            save()

    actor = model.predictor
    chosen = improvement.choose(actor, console)
    model.actor.predictor.load_state_dict(actor.state_dict())
    draw_curves(settings.out / "curves.png", improvement.selection, progress.training)
    result: dict[str, float] = {}
    if settings.test_crops:
        constant = None
        if settings.constant_renderings:
            console.print(f"Fitting the best constant action, {settings.constant_renderings} renderings")
            constant = best_constant(improvement, settings.constant_renderings, settings.noise, settings.noise_limit)
        test = measure_test(improvement, actor, settings.test_crops, settings.test_widths, console, constant)
        draw_before_after(settings.out / "before_after.png", test)
        result = test.result
    card = {
        "method": "HingeDDPG",
        "kept": chosen,
        "steps": model.num_timesteps,
        "seconds": round(earlier + time.monotonic() - begun),
        **({"test": result} if result else {}),
    }
    weights = improvement.save(actor, card)
    written = ["curves.png", *(["before_after.png"] if result else []), weights.name]
    console.print(f"written to {settings.out}: {', '.join(written)}", soft_wrap=True)
    console.print(
        f"{time.monotonic() - begun:.0f} s, {time.process_time() - cpu:.0f} s of CPU time, "
        f"peak memory {peak_memory() / 1e9:.2f} GB"
    )
    return Trained(model, weights, chosen, improvement.selection.best_gain, result)
