"""Train HingeDDPG in variants that differ in one thing, over several seeds, and compare them on held-out photos.

    python agents/ablation.py --photos my_photos --reward lpips=1 --out runs/ablation

Nothing is selected here: what counts is the actor that training ends with, good or bad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blindsr_agents.hinge_ddpg import HingeDDPGSettings, build
from blindsr_agents.training import Improvement
from matplotlib.figure import Figure
from rich.console import Console

from sr_env.simulator import reward_title
from sr_env.utils.checks import UsageError, check_choice
from sr_env.utils.devices import Precision
from sr_env.utils.files import atomic_write, write_json
from sr_env.utils.finished import Finished, open_run
from sr_env.utils.provenance import command_line, commit, hardware
from sr_env.utils.resume import kept_settings
from sr_env.utils.script import Weights, run_script

from stable_baselines3.common.callbacks import BaseCallback  # isort: skip

#: What each variant changes in the agent's settings.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "hinge_l2": {"loss": "hinge_l2"},
    "hinge_l2, rewards not shifted": {"loss": "hinge_l2", "shift": 0.0},
    "hinge_l1": {"loss": "hinge_l1"},
    "hinge_margin": {"loss": "hinge_margin"},
    "mse": {"loss": "mse"},
    "printed": {"loss": "printed"},
    "no anchor": {"anchor": 0.0},
    "anchor 0.1": {"anchor": 0.1},
    "no warm-up": {"warmup_updates": 0},
    "noise 0.2": {"noise": 0.2},
    "noise 2": {"noise": 2.0},
    "noise of one size in all components": {"noise": 1e9, "noise_limit": 0.1},
    "no contrast": {"contrast": 0.0},
    "one critic": {"critics": 1},
    "one action per scene": {"actions_per_scene": 1},
    "one reward scale for all widths": {"normalisation": "all"},
}
LOSSES: tuple[str, ...] = tuple(VARIANTS)[:6]
#: Settings that a resumed ablation may change: where it runs, and what is trained beside the finished.
_CHANGEABLE = frozenset({"out", "resume", "device", "variants", "seeds", "other_seeds"})


@dataclass
class Settings:
    """Compare variants of HingeDDPG.

    Attributes:
        out: Folder for ablation.json, ablation.md and ablation.png, written anew after every run, and for the state to
            resume from.
        resume: Go on from the state in ``out``, with as many variants and seeds as are asked for now: what is finished
            there is not trained again.
        variants: Names out of ``VARIANTS``; None takes all.
        seeds: Number of seeds of the variants of the critic loss.
        other_seeds: Number of seeds of the other variants.
        photos: Folder of HR photos, or "bundled".
        reward: Metrics and weights that the agent is paid by.
        renderer: Name or path of the frozen renderer; None takes ``amnet_l_x{scale}``.
        scale: Magnification.
        steps: Environment steps of a run.
        points: Points of each curve.
        selection_photos: Held-out photos.
        selection_side: Longest side in HR pixels of what is taken of them.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Of the renderer.
    """

    out: Path = Path("runs/ablation")
    resume: bool = False
    variants: tuple[str, ...] | None = None
    seeds: int = 3
    other_seeds: int = 1
    photos: str = "bundled"
    reward: Weights = field(default_factory=lambda: {"lpips": 1.0})
    renderer: str | None = None
    scale: int = 4
    steps: int = 1024
    points: int = 4
    selection_photos: int = 8
    selection_side: int = 192
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name in self.variants or ():
            check_choice("variant", name, VARIANTS)
        for name in ("seeds", "other_seeds", "steps", "points"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is not positive: give 1 or more")


@dataclass
class Outcome:
    """One run.

    Attributes:
        variant: Its name.
        seed: Its seed.
        curve: Environment steps and the gain over the pretrained actor per kernel width on the held-out photos.
        advantage: Mean magnitude of the critics' advantages at the end, in units of the squashed rewards.
        correlation: Of the critics' advantages with the latest rewards, before these were trained on.
        diverged: The error that ended the run early, if one did.
    """

    variant: str
    seed: int
    curve: list[tuple[int, list[float]]]
    advantage: float = float("nan")
    correlation: float = float("nan")
    diverged: str | None = None

    @property
    def gain(self) -> float:
        """Mean gain over the widths at the end."""
        return float(np.mean(self.curve[-1][1]))

    @property
    def worst(self) -> float:
        """Gain at the width that gained least."""
        return min(self.curve[-1][1])


class _Curve(BaseCallback):
    """Scores the averaged actor at equal distances."""

    def __init__(self, improvement: Improvement, every: int) -> None:
        super().__init__()
        self.improvement, self.every = improvement, every
        self.curve: list[tuple[int, list[float]]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps // self.every > (self.curve[-1][0] if self.curve else 0) // self.every:
            self.measure()

    def measure(self) -> None:
        """Add a point."""
        selection, scenes = self.improvement.selection, self.improvement.selection.scenes
        actor: Any = self.model
        gain = scenes.score(scenes.acting(actor.predictor)).gain(selection.pretrained)
        self.curve.append((self.num_timesteps, gain.tolist()))


def run(settings: HingeDDPGSettings, improvement: Improvement, variant: str, every: int) -> Outcome:
    """Train one agent."""
    _, model = build(replace(settings, **VARIANTS[variant]), improvement)
    curve = _Curve(improvement, every)
    diverged = None
    try:
        model.learn(settings.steps, callback=curve, log_interval=10**9)
    except FloatingPointError as error:
        diverged = str(error)
    curve.measure()
    batch = model.memory.draw(512, np.random.default_rng(0), images=False)
    model.policy.set_training_mode(False)
    with torch.no_grad():
        advantage = float(model.critic.score(batch.descriptions, batch.actions).abs().mean())
    return Outcome(variant, settings.seed, curve.curve, advantage, model.correlation, diverged)


def _run(*arguments: Any) -> dict[str, Any]:
    """What :func:`run` gives, as JSON values."""
    return asdict(run(*arguments))


def to_markdown(outcomes: Sequence[Outcome]) -> str:
    """The table: per variant the mean over seeds and its standard deviation."""
    lines = [
        "| variant | seeds | gain | at the worst width | size of the advantages | correlation |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for variant in dict.fromkeys(outcome.variant for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.variant == variant]
        cells = []
        for name, digits in (("gain", 4), ("worst", 4), ("advantage", 2), ("correlation", 2)):
            values = np.array([getattr(outcome, name) for outcome in own])
            scatter = f" ± {values.std(ddof=1):.{digits}f}" if len(own) > 1 else ""
            cells.append(f"{values.mean():+.{digits}f}{scatter}" if digits == 4 else f"{values.mean():.3g}{scatter}")
        lost = sum(outcome.diverged is not None for outcome in own)
        lines.append(
            f"| {variant}{f' ({lost} stopped: not finite)' if lost else ''} | {len(own)} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def draw(path: Path, outcomes: Sequence[Outcome], reward: str) -> None:
    """The curves of the critic losses, mean and range over the seeds, and the gains of all variants."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(outcome.variant for outcome in outcomes))
    for name in names:
        own = [outcome for outcome in outcomes if outcome.variant == name]
        if name in LOSSES and len({len(outcome.curve) for outcome in own}) == 1:
            steps = [0, *(step for step, _ in own[0].curve)]
            gains = np.array([[0.0, *(np.mean(gain) for _, gain in outcome.curve)] for outcome in own])
            (line,) = left.plot(steps, gains.mean(0), label=name)
            left.fill_between(steps, gains.min(0), gains.max(0), color=line.get_color(), alpha=0.15)
    left.axhline(0, color="gray", lw=0.8)
    left.set(title="Critic losses", xlabel="environment steps", ylabel=f"held-out gain in {reward}")
    if left.get_legend_handles_labels()[0]:
        left.legend(fontsize=8)
    for row, name in enumerate(names):
        values = [outcome.gain for outcome in outcomes if outcome.variant == name]
        right.barh(row, np.mean(values), color="C0" if name in LOSSES else "C1")
        right.plot(values, [row] * len(values), "k.", ms=4)
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.invert_yaxis()
    right.axvline(0, color="gray", lw=0.8)
    right.set(title="All variants, at the end", xlabel=f"held-out gain in {reward}")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def main(settings: Settings) -> list[Outcome]:
    """Run every variant with every seed, and report after each.

    Raises:
        FileInTheWayError: ``out`` holds another ablation.
        UsageError: A setting does not fit, or there is nothing to resume or it is of other settings.
    """
    console = Console()
    open_run(settings.out, ("ablation.json",), settings.resume)
    shared = ({field.name for field in fields(Settings)} & {field.name for field in fields(HingeDDPGSettings)}) - {
        "resume"  # a run of a variant is finished or begins anew
    }
    given = {name: getattr(settings, name) for name in shared}
    plain: dict[str, Any] = {"controls": ("code",), "constant_steps": 0, "few_anchor": 0.0}
    base = HingeDDPGSettings(learning_starts=256, **plain, **given)
    improvement = Improvement(base)
    about: dict[str, Any] = {
        "command": command_line(),
        "commit": commit(),
        "hardware": hardware(improvement.simulator.device),
        "torch": torch.__version__,
        "agent": {k: v for k, v in asdict(base).items() if isinstance(v, int | float | str | bool)},
    }
    kept = kept_settings(settings, _CHANGEABLE) | improvement.kept
    outcomes: list[Outcome] = []
    chosen = settings.variants or tuple(VARIANTS)
    every = max(1, settings.steps // settings.points)
    with Finished(settings.out, kept, settings.resume, about) as finished:
        if finished.earlier:
            about["earlier"] = finished.earlier
        for seed in range(max(settings.seeds, settings.other_seeds)):
            for variant in chosen:
                if seed >= (settings.seeds if variant in LOSSES else settings.other_seeds):
                    continue
                train = partial(_run, replace(base, seed=seed), improvement, variant, every)
                outcome = Outcome(**finished.take(f"{variant}/{seed}", train))
                outcomes.append(outcome)
                console.print(
                    f"{variant}, seed {seed}: gain {outcome.gain:+.4g}, worst width {outcome.worst:+.4g}, advantages "
                    f"{outcome.advantage:.3g}, correlation {outcome.correlation:.2f}"
                    + (f"; {outcome.diverged}" if outcome.diverged else ""),
                    soft_wrap=True,
                )
                write_json(settings.out / "ablation.json", {**about, "runs": [asdict(o) for o in outcomes]})
                with atomic_write(settings.out / "ablation.md") as temporary:
                    temporary.write_text(to_markdown(outcomes))
                draw(settings.out / "ablation.png", outcomes, reward_title(settings.reward))
    console.print(to_markdown(outcomes))
    return outcomes


if __name__ == "__main__":
    run_script(Settings, main, threads="one")
