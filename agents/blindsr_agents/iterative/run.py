"""A run of IterativeHinge from settings to table: what ``agents/train_iterative.py`` puts together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from blindsr_agents.evaluation.scene_sets import PRETRAINED, TRUE_KERNEL, Method, SceneSet, WholeScenes, true_kernel
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.iterative.agent import IterativeHinge
from blindsr_agents.iterative.config import IterativeHingeConfig
from blindsr_agents.iterative.corrector import Player
from blindsr_agents.training import STATE, Improvement, ImprovementSettings
from sr_env.degradation import REPORTED_WIDTHS
from sr_env.envs.vector import BlindSRIterativeVectorEnv
from sr_env.models import load_predictor
from sr_env.photos import PhotoSource, open_photos
from sr_env.simulator import Simulator, SimulatorSettings


@dataclass
class IterativeSettings(IterativeHingeConfig, ImprovementSettings):
    """Train IterativeHinge.

    Attributes:
        steps: SR images rendered in all, whatever the episodes' length; training also ends after ``minutes``.
        max_steps: Corrections in an episode.
        correction: Largest change of a code component by one correction, in action units.
        envs: Sub-environments in one batch.
        actions_per_scene: Sub-environments that share a scene.
        keep_last: Report and write the corrector that training ends with, whatever it loses, as comparisons of settings
            want it; else the one selected.
        one_step: Actor of ``agents/train_ddpg.py`` to measure beside, such as runs/ddpg/actor_x4.safetensors.
        earlier: Corrector of an earlier run to measure beside, such as runs/iterative/corrector_x4.safetensors.
        test_photos: Folder of photos that the table is measured on; "bundled" takes the scikit-image photographs that
            are not trained on, or with ``lr_photos`` those of them that are neither trained on nor selected by.
        test_count: The first so many of them; None takes all.
        test_side: Longest side in HR pixels of what is taken of them; None takes them whole.
    """

    out: Path = Path("runs/iterative")
    steps: int = 8000
    max_steps: int = 4
    correction: float = 0.5
    envs: int = 32
    actions_per_scene: int = 8
    keep_last: bool = False
    one_step: Path | None = None
    earlier: Path | None = None
    test_photos: str = "bundled"
    test_count: int | None = None
    test_side: int | None = 384

    def __post_init__(self) -> None:
        IterativeHingeConfig.__post_init__(self)
        ImprovementSettings.__post_init__(self)

    def scenes(self, improvement: Improvement) -> WholeScenes:
        """The photos of the table."""
        photos: PhotoSource = improvement.reported
        if self.test_photos != "bundled":
            photos = open_photos(self.test_photos, min_size=self.patch_size // (self.scale if self.without_hr else 1))
        simulator = Simulator(SimulatorSettings(**self.reporting(photos)))
        widths = () if self.without_hr else REPORTED_WIDTHS[self.scale]
        return WholeScenes(simulator, widths, max_photos=self.test_count, max_side=self.test_side, keep=False)


def build(settings: IterativeSettings, improvement: Improvement) -> IterativeHinge:
    """An agent in the environment that the settings describe."""
    env = BlindSRIterativeVectorEnv(
        settings.envs,
        actions_per_scene=settings.actions_per_scene,
        max_steps=settings.max_steps,
        correction=settings.correction,
        **settings.environment(improvement.photos),
    )
    return IterativeHinge(env, improvement.pretrained, settings)


def methods(settings: IterativeSettings, scenes: WholeScenes, agent: IterativeHinge) -> dict[str, Method]:
    """The rows of the table: the averaged corrector after each number of corrections, and what it is compared with."""
    simulator = scenes.simulator
    assert simulator.predictor is not None
    rows = {PRETRAINED: scenes.acting(simulator.predictor.network)}
    if settings.one_step is not None:
        one_step = load_predictor(
            settings.one_step,
            scale=settings.scale,
            basis=simulator.basis,
            device=agent.device,
            controls=simulator.controls.names,
        )
        rows["one-step agent"] = scenes.acting(one_step.network)
    if settings.earlier is not None:
        rows["earlier corrector"] = scenes.acting(Player.load(settings.earlier, simulator))
    for count in range(1, settings.max_steps + 1):
        name = f"{count} correction{'s' * (count > 1)}"
        rows[name] = scenes.acting(Player(agent.actor_target, simulator, count))
    return rows if simulator.without_hr else rows | {TRUE_KERNEL: true_kernel(simulator)}


def as_json(scores: Mapping[str, Scores], scenes: SceneSet) -> dict[str, Any]:
    """The table as JSON values: improvement of the score over the pretrained actor, and the metrics' values."""
    table: dict[str, Any] = {}
    for name, own in scores.items():
        gain = own.gain(scores[PRETRAINED])
        table[name] = {
            "improvement": float(gain.mean()),
            "standard_error": own.standard_error(scores[PRETRAINED]),
            "per_width": scenes.by_width(gain),
            "metrics": {metric: float(own.per_width(metric).mean()) for metric in own.values if metric != "score"},
        }
    return table


class IterativeProgress:
    """Between rounds of episodes: validates, saves, and ends training early where the time is over.

    Args:
        settings: The run's.
        improvement: Whose selection validates and keeps the best corrector.
        agent: What learns.
        console: Where progress is shown.

    Attributes:
        last: Step of the latest validation.
        earlier: Seconds of earlier sittings.
    """

    def __init__(
        self, settings: IterativeSettings, improvement: Improvement, agent: IterativeHinge, console: Console
    ) -> None:
        self.settings, self.selection, self.agent, self.console = settings, improvement.selection, agent, console
        self.kept = improvement.kept
        self.player = Player(agent.actor_target, improvement.simulator)
        self.last, self.earlier = 0, 0.0
        self._begun = time.monotonic()

    def __call__(self) -> bool:
        """Whether training goes on."""
        if self.agent.steps // self.settings.select_every > self.last // self.settings.select_every:
            self.validate()
            self.save()
        if time.monotonic() - self._begun <= 60 * self.settings.minutes:
            return True
        self.console.print(f"{self.settings.minutes:g} minutes are over at step {self.agent.steps}")
        return False

    def validate(self) -> None:
        """Score the averaged corrector on the selection scenes, once a step."""
        if self.agent.steps == self.last:
            return
        self.last = self.agent.steps
        gain = self.selection.consider(self.player, self.last)
        each = " / ".join(f"{value:+.4g}" for value in gain)
        kept = "kept" if self.selection.best_step == self.last else "not kept"
        recent = self.agent.returns[-8:]
        self.console.print(
            f"step {self.last}: selection scenes {gain.mean():+.4g} over the pretrained actor ({each}), {kept}; "
            f"training return {sum(recent) / len(recent):+.3g}, critics' correlation {self.agent.correlation:.2f}",
            soft_wrap=True,
        )

    def save(self) -> None:
        """Write the state that ``--resume`` goes on from."""
        extra = {
            "selection": self.selection.state(),
            "last": self.last,
            "settings": self.kept,
            "seconds": self.earlier + time.monotonic() - self._begun,
        }
        self.agent.save_state(self.settings.out / STATE, extra)

    def load(self) -> None:
        """Take up what :meth:`save` wrote."""
        kept = self.agent.load_state(self.settings.out / STATE)
        self.selection.load_state(kept["selection"])
        self.last, self.earlier = kept["last"], kept.get("seconds", 0.0)

    def choose(self) -> str:
        """Give the averaged corrector the weights that are kept, say which, and return that for the card."""
        if self.settings.keep_last:
            self.console.print(f"Kept the corrector of step {self.last}, the last one, unselected.")
            return f"step {self.last}, unselected"
        if self.selection.best is None:
            self.agent.actor_target.withdraw()
            self.console.print(
                "No corrector beat the pretrained actor on the selection scenes"
                f"{self.selection.conditions}: NO CORRECTION is kept."
            )
            return "no correction"
        self.player.load_state_dict(self.selection.best)
        step, gain = self.selection.best_step, self.selection.best_gain
        self.console.print(f"Kept the corrector of step {step}, {gain:+.4f} on selection scenes.")
        return f"step {step}"
