"""Train IterativeHinge on BlindSRIterative-v0, and show what one, two, ... corrections of the code gain in all.

    python agents/train_iterative.py --photos my_photos --reward lpips=1 --max-steps 4

Correctors are selected on photos that are not trained on, as by ``agents/train_ddpg.py``: where none beats the
pretrained predictor without losing at some kernel width, "no correction" is kept, and the output says so. The table is
measured on whole photos that neither training nor selection sees. ``--max-steps 1`` is the same agent with a single
correction; ``--one-step`` adds the actor that ``agents/train_ddpg.py`` wrote.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blindsr_agents.evaluation.scene_sets import PRETRAINED, TRUE_KERNEL, Method, WholeScenes, true_kernel
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.evaluation.tables import score_table
from blindsr_agents.iterative.agent import IterativeHinge, Player, save_corrector
from blindsr_agents.training import Improvement, ImprovementSettings
from rich.console import Console

from sr_env.degradation import REPORTED_WIDTHS
from sr_env.envs.vector import BlindSRIterativeVectorEnv
from sr_env.models.checkpoint import load_predictor
from sr_env.photos import open_photos
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.files import atomic_write, check_writable
from sr_env.utils.provenance import command_line, commit, hardware
from sr_env.utils.script import run_script, stop_requests


@dataclass
class Settings(ImprovementSettings):
    """Train IterativeHinge.

    Attributes:
        steps: SR images rendered in all, whatever the episodes' length; training also ends after ``minutes``.
        max_steps: Corrections in an episode.
        correction: Largest change of a code component by one correction, in action units.
        envs: Sub-environments in one batch.
        actions_per_scene: Sub-environments that share a scene.
        n_steps: Rewards that the critics' targets add up before they bootstrap; 0 takes all of the episode's.
        discount: Discount of later rewards.
        loss: Critic loss: printed, hinge_l2, hinge_l1, hinge_margin or mse.
        noise: What exploration noise changes the picture by at each step in each direction of the action space, in grey
            levels.
        noise_limit: The largest noise of any direction in action units.
        anchor: Weight of the squared total move from the pretrained code in units of the noise.
        learning_rate: Of the critics.
        actor_learning_rate: Of the actor.
        critics: Size of the ensemble; 2 are twin critics.
        pessimism: The actor climbs the critics' mean less this many of their standard deviations.
        learning_starts: SR images before the first update.
        warmup_updates: Updates of the critics alone.
        gradient_steps: Updates per step of all sub-environments.
        batch_size: Steps per update.
        keep_last: Report and write the corrector that training ends with, whatever it loses, as comparisons of settings
            want it; else the one selected.
        one_step: Actor of ``agents/train_ddpg.py`` to measure beside, such as runs/ddpg/actor_x4.safetensors.
        test_photos: Folder of photos that the table is measured on; "bundled" takes the scikit-image photographs that
            are not trained on.
        test_count: The first so many of them; None takes all.
        test_side: Longest side in HR pixels of what is taken of them; None takes them whole.
        resume: Continue from the state in ``out``.
    """

    out: Path = Path("runs/iterative")
    steps: int = 8000
    max_steps: int = 4
    correction: float = 0.5
    envs: int = 32
    actions_per_scene: int = 8
    n_steps: int = 1
    discount: float = 1.0
    loss: str = "hinge_l2"
    noise: float = 0.7
    noise_limit: float = 0.3
    anchor: float = 0.03
    learning_rate: float = 1e-3
    actor_learning_rate: float = 4e-4
    critics: int = 4
    pessimism: float = 1.0
    learning_starts: int = 512
    warmup_updates: int = 200
    gradient_steps: int = 16
    batch_size: int = 256
    keep_last: bool = False
    one_step: Path | None = None
    test_photos: str = "bundled"
    test_count: int | None = None
    test_side: int | None = 384
    resume: bool = False

    def agent(self) -> dict[str, Any]:
        """Keywords of :class:`~blindsr_agents.iterative.agent.IterativeHinge`."""
        names = (
            *("learning_rate", "actor_learning_rate", "learning_starts", "batch_size", "gradient_steps", "loss"),
            *("noise", "noise_limit", "warmup_updates", "anchor", "pessimism", "seed"),
        )
        return {name: getattr(self, name) for name in names} | {
            "n_critics": self.critics,
            "gamma": self.discount,
            "n_steps": self.n_steps or None,
        }


class Watch:
    """Between rounds of episodes: validates, saves, and says when training ends early."""

    def __init__(self, settings: Settings, improvement: Improvement, agent: IterativeHinge, console: Console) -> None:
        self.settings, self.selection, self.agent, self.console = settings, improvement.selection, agent, console
        self.player = Player(agent.actor_target, improvement.simulator)
        self.last = 0
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
        extra = {"selection": self.selection.state(), "last": self.last}
        self.agent.save_state(self.settings.out / "state.pt", extra)

    def load(self) -> None:
        """Take up what :meth:`save` wrote."""
        kept = self.agent.load_state(self.settings.out / "state.pt")
        self.selection.load_state(kept["selection"])
        self.last = kept["last"]


def build(settings: Settings, improvement: Improvement) -> IterativeHinge:
    """An agent in the environment that the settings describe."""
    env = BlindSRIterativeVectorEnv(
        settings.envs,
        actions_per_scene=settings.actions_per_scene,
        photos=improvement.photos,
        max_steps=settings.max_steps,
        correction=settings.correction,
        **settings.environment(),
    )
    return IterativeHinge(env, improvement.pretrained, **settings.agent())


def report_scenes(settings: Settings) -> WholeScenes:
    """The photos of the table."""
    bundled = settings.test_photos == "bundled"
    photos = open_photos(settings.test_photos, split="test" if bundled else "all", min_size=settings.patch_size)
    simulator = Simulator(SimulatorSettings(photos=photos, **settings.reporting()))
    widths = REPORTED_WIDTHS[settings.scale]
    return WholeScenes(simulator, widths, max_photos=settings.test_count, max_side=settings.test_side, keep=False)


def methods(settings: Settings, scenes: WholeScenes, agent: IterativeHinge) -> dict[str, Method]:
    """The rows of the table: the averaged corrector after each number of corrections, and what it is compared with."""
    simulator = scenes.simulator
    assert simulator.predictor is not None
    rows = {PRETRAINED: scenes.acting(simulator.predictor.network)}
    if settings.one_step is not None:
        one_step = load_predictor(settings.one_step, scale=settings.scale, basis=simulator.basis, device=agent.device)
        rows["one-step agent"] = scenes.acting(one_step.network)
    for count in range(1, settings.max_steps + 1):
        name = f"{count} correction{'s' * (count > 1)}"
        rows[name] = scenes.acting(Player(agent.actor_target, simulator, count))
    return rows | {TRUE_KERNEL: true_kernel(simulator)}


def tell(scores: Mapping[str, Scores], widths: tuple[float, ...]) -> dict[str, Any]:
    """The table as JSON values: improvement of the score over the pretrained actor, and the metrics' values."""
    told: dict[str, Any] = {}
    for name, own in scores.items():
        gain = own.gain(scores[PRETRAINED])
        told[name] = {
            "improvement": float(gain.mean()),
            "standard_error": own.standard_error(scores[PRETRAINED]),
            "per_width": {f"{width:g}": float(value) for width, value in zip(widths, gain, strict=True)},
            "metrics": {metric: float(own.per_width(metric).mean()) for metric in own.values if metric != "score"},
        }
    return told


def choose(settings: Settings, improvement: Improvement, watch: Watch, console: Console) -> str:
    """Give the averaged corrector the weights that are kept, say which, and return that for the card."""
    selection = improvement.selection
    if settings.keep_last:
        console.print(f"Kept the corrector of step {watch.last}, the last one, unselected.")
        return f"step {watch.last}, unselected"
    if selection.best is None:
        watch.agent.actor_target.withdraw()
        console.print(
            "No corrector beat the pretrained actor on the selection scenes without losing at some kernel width"
            + (" or breaking a guard" if settings.guards else "")
            + ": NO CORRECTION is kept."
        )
        return "no correction"
    watch.player.load_state_dict(selection.best)
    console.print(f"Kept the corrector of step {selection.best_step}, {selection.best_gain:+.4f} on selection scenes.")
    return f"step {selection.best_step}"


def main(settings: Settings) -> dict[str, Any]:
    """Train, select, and report; returns the table."""
    console, begun = Console(), time.monotonic()
    check_writable(settings.out)
    improvement = Improvement(settings)
    scenes = report_scenes(settings)  # a mistake in what is reported on shows before the training
    agent = build(settings, improvement)
    rows = methods(settings, scenes, agent)
    watch = Watch(settings, improvement, agent, console)
    if settings.resume:
        watch.load()
    told = ", ".join(f"{weight:g} {name}" for name, weight in settings.reward.items())
    console.print(
        f"IterativeHinge, {settings.max_steps} correction(s), {agent.n_steps}-step returns, loss {settings.loss}, "
        f"reward {told} above the pretrained actor's; {len(improvement.photos)} photos, {settings.envs} environments "
        f"on {agent.device}; steps {agent.steps} to {settings.steps}, at most {settings.minutes:g} minutes",
        soft_wrap=True,
    )
    with stop_requests() as stop:
        agent.learn(settings.steps, lambda: not stop.is_set() and watch())
        if stop.is_set():
            watch.save()
            console.print(f"stopped at step {agent.steps}, saved; add --resume to go on")
            raise KeyboardInterrupt
    watch.validate()
    watch.save()
    trained = time.monotonic() - begun
    kept = choose(settings, improvement, watch, console)
    scores = scenes.score_all(rows)
    title = f"{scenes.count} photos of {settings.test_photos}, each at {len(scenes.widths)} kernel widths"
    console.print(score_table(scores, PRETRAINED, scenes.widths, scenes.simulator.metrics, title))
    card = {
        "method": "IterativeHinge",
        "kept": kept,
        "reward": dict(settings.reward),
        "renderer": improvement.simulator.renderer.path.stem,
        "steps": agent.steps,
        "seconds": round(trained),
        "seed": settings.seed,
        "hardware": hardware(agent.device),
        "command": command_line(),
        "commit": commit(),
    }
    save_corrector(
        settings.out / f"corrector_x{settings.scale}.safetensors", agent.actor_target, improvement.pretrained, card
    )
    table = tell(scores, scenes.widths)
    selection = [{"step": step, "improvement": gain} for step, gain in improvement.selection.history]
    with atomic_write(settings.out / "iterative.json") as temporary:
        text = json.dumps({**card, "table": table, "selection": selection, "returns": agent.returns}, indent=2)
        temporary.write_text(text + "\n")
    console.print(f"written to {settings.out}: iterative.json, corrector_x{settings.scale}.safetensors")
    return table


if __name__ == "__main__":
    run_script(Settings, main)
