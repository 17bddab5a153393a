"""Held-out reward of other algorithms before and after equal environment steps, as Markdown and JSON.

    python benchmarks/algorithms.py --steps 3000 --seeds 0 1 2

Runs ``agents/train_sb3.py``'s algorithms and the programs of examples/ one after the other. After each run the table is
written anew; ``--resume`` adds what is missing to a table begun before with the same settings, be it from another
Python environment, which RLlib needs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from blindsr_agents.evaluation.scene_sets import true_kernel
from blindsr_agents.evaluation.scores import Scores, reward_title
from blindsr_agents.stock import (
    ALGORITHMS,
    BeforeAfter,
    Features,
    HeldOutScenes,
    LearningSettings,
    StockSettings,
    algorithm_class,
    load_hyperparameters,
    train,
)

from sr_env.models import default_predictor, load_predictor
from sr_env.utils.checks import UsageError, check_choice
from sr_env.utils.files import atomic_write, check_writable
from sr_env.utils.provenance import command_line, commit, hardware, public_path
from sr_env.utils.script import run_script

#: Where the programs lie that are no algorithms of Stable-Baselines3's.
_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ACTOR_CRITIC, RLLIB = "actor_critic_torch", "rllib_ppo"
#: Rows of the table.
TITLES = {
    "ppo": "PPO (Stable-Baselines3)",
    "a2c": "A2C (Stable-Baselines3)",
    "trpo": "TRPO (sb3-contrib)",
    "sac": "SAC (Stable-Baselines3)",
    "tqc": "TQC (sb3-contrib)",
    "crossq": "CrossQ (sb3-contrib)",
    "td3": "TD3 (Stable-Baselines3)",
    "ddpg": "DDPG (Stable-Baselines3)",
    ACTOR_CRITIC: "actor-critic (plain torch)",
    RLLIB: "PPO (RLlib)",
}


@dataclass
class Settings(LearningSettings):
    """Compare algorithms.

    Attributes:
        algorithms: Which ones: those of ``agents/train_sb3.py``, actor_critic_torch and rllib_ppo.
        seeds: A training run of each algorithm per seed; ``seed`` is not used.
        features: What Stable-Baselines3's actors see; the other two always see the pretrained features.
        out: Folder for algorithms.md and algorithms.json.
        resume: Add to the results in ``out``.
    """

    algorithms: tuple[str, ...] = ("ppo", "sac", "td3", "tqc", ACTOR_CRITIC)
    seeds: tuple[int, ...] = (0, 1, 2)
    features: Features = "pretrained"
    out: Path = Path("runs/algorithms")
    resume: bool = False


def example(name: str) -> ModuleType:
    """A program of examples/, as a module."""
    spec = spec_from_file_location(name, _EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(settings: Settings, algorithm: str, seed: int) -> BeforeAfter:
    """Train once."""
    shared = {field.name: getattr(settings, field.name) for field in fields(LearningSettings)} | {"seed": seed}
    if algorithm in ALGORITHMS:
        return train(StockSettings(**shared, algorithm=algorithm, features=settings.features))  # type: ignore[arg-type]
    module = example(algorithm)
    result: BeforeAfter = module.main(module.Settings(**shared))
    return result


def bounds(settings: Settings, held_out: HeldOutScenes) -> dict[str, float]:
    """Held-out rewards of what is not learned by reward here."""
    simulator = held_out.scenes.simulator
    name = settings.predictor or default_predictor(simulator.renderer)
    predictor = load_predictor(name, scale=settings.scale, basis=simulator.basis, device=simulator.device).network
    scores = {
        "the supervised predictor": held_out.score(predictor.act),
        "the true kernel": held_out.scenes.score(true_kernel(simulator)),
    }
    return {name: held_out.reward(value) for name, value in scores.items()}


def conditions(settings: Settings) -> dict[str, Any]:
    """What runs in one table must have in common, as JSON has it."""
    own = {"algorithms", "seeds", "seed", "out", "resume"}
    kept = {name: value for name, value in asdict(settings).items() if name not in own}
    text = json.dumps({name: public_path(value) if isinstance(value, str) else value for name, value in kept.items()})
    found: dict[str, Any] = json.loads(text)
    return found


def as_row(algorithm: str, seed: int, outcome: BeforeAfter) -> dict[str, Any]:
    """One run for the JSON file; ``before`` and ``after`` are scores [widths, crops].

    The programs that have no block among the hyperparameters hold theirs as defaults of their settings.
    """
    return {
        "algorithm": algorithm,
        "seed": seed,
        "hyperparameters": load_hyperparameters(algorithm) if algorithm in ALGORITHMS else None,
        "before": outcome.before.values["score"].tolist(),
        "after": outcome.after.values["score"].tolist(),
        "reward_before": outcome.reward_before,
        "reward_after": outcome.reward_after,
        "gain": outcome.gain,
        "standard_error": outcome.standard_error,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
    }


def pooled(runs: list[dict[str, Any]]) -> BeforeAfter:
    """The mean of an algorithm's runs; a crop, averaged over seeds, counts as one sample."""

    def mean(name: str) -> float:
        return float(np.mean([run[name] for run in runs]))

    before, after = (Scores({"score": np.mean([run[name] for run in runs], axis=0)}) for name in ("before", "after"))
    steps = round(mean("steps"))
    return BeforeAfter(before, after, mean("reward_before"), mean("reward_after"), steps, mean("seconds"))


def markdown(results: dict[str, Any]) -> str:
    """The table."""
    about = results["conditions"]
    reward = reward_title(about["reward"])
    lines = [
        "| algorithm | seeds | steps | reward before | reward after | gain | standard error | gain of each seed | "
        "seconds | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for algorithm, title in TITLES.items():
        runs = [run for run in results["runs"] if run["algorithm"] == algorithm]
        if not runs:
            continue
        outcome = pooled(runs)
        cells = [
            title,
            ", ".join(str(run["seed"]) for run in runs),
            str(outcome.steps),
            f"{outcome.reward_before:+.3f}",
            f"{outcome.reward_after:+.3f}",
            f"{outcome.gain:+.3f}",
            f"{outcome.standard_error:.3f}",
            ", ".join(f"{run['gain']:+.3f}" for run in runs),
            f"{outcome.seconds:.0f}",
            outcome.verdict,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    bounds = "; ".join(f"{name} {value:+.3f}" for name, value in results["bounds"].items())
    lines += [
        "",
        f"Reward: {reward} above the {about['reference']} reference, x{about['scale']}, mean of {about['test_crops']} "
        f"held-out crops at {len(results['widths'])} kernel widths ({', '.join(f'{w:g}' for w in results['widths'])}). "
        f"On the same scenes: {bounds}. Standard errors are over crops, each averaged over widths and seeds. "
        f"{results['hardware']}.",
    ]
    return "\n".join(lines) + "\n"


def main(settings: Settings) -> None:
    """Run what is missing, and write the table after each run."""
    for algorithm in settings.algorithms:
        check_choice("algorithm", algorithm, TITLES)
        if algorithm in ALGORITHMS:
            algorithm_class(algorithm)  # sb3-contrib may be missing
    check_writable(settings.out)
    path = settings.out / "algorithms.json"
    about = conditions(settings)
    if settings.resume and path.is_file():
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["conditions"] != about:
            raise UsageError(f"{path} was made with other settings: give the same, or another --out")
    else:
        held_out = settings.held_out()
        results = {
            "conditions": about,
            "widths": held_out.scenes.widths,
            "hardware": hardware(held_out.scenes.simulator.device),
            "bounds": bounds(settings, held_out),
            "runs": [],
        }
    done = {(run["algorithm"], run["seed"]) for run in results["runs"]}
    # Seed by seed, so that a table that is stopped has every algorithm in it.
    todo = [(algorithm, seed) for seed in settings.seeds for algorithm in settings.algorithms]
    for algorithm, seed in todo:
        if (algorithm, seed) in done:
            continue
        results["runs"].append(as_row(algorithm, seed, run(settings, algorithm, seed)))
        results |= {"command": command_line(), "commit": commit()}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
        with atomic_write(settings.out / "algorithms.md") as temporary:
            temporary.write_text(markdown(results), encoding="utf-8")
    print(markdown(results))


if __name__ == "__main__":
    run_script(Settings, main, threads="one")
