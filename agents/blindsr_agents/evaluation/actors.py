"""What trained actors are worth: their reward over the pretrained actor's, beside every metric and the oracle's limit.

Every image of a set is scored whole at every kernel width, with one table per renderer, reward and set. A photo, seen
at every width, counts as one sample of the standard errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from blindsr_agents.evaluation.actor_rows import Comparison, finite, make_row, mean_scores, title_of
from blindsr_agents.evaluation.oracle import Oracle
from blindsr_agents.evaluation.scene_sets import (
    BICUBIC,
    PRETRAINED,
    TRUE_KERNEL,
    Method,
    WholeScenes,
    acting,
    true_kernel,
)
from blindsr_agents.evaluation.sets import create_metrics
from blindsr_agents.evaluation.tables import columns, progress_bar
from sr_env.models.checkpoint import available_checkpoints, load_predictor, read_card
from sr_env.photos import PhotoSource
from sr_env.simulator import CONSISTENCY, Result, Scenes, Simulator, SimulatorSettings
from sr_env.utils.checks import MIN_LR_SIZE, UsageError
from sr_env.utils.finished import Take, anew
from sr_env.utils.provenance import public_path

#: Rows beside those of every comparison.
MEAN_CODE, RANDOM_SEARCH, ORACLE = "mean code", "random code search", "oracle"
#: The reward where neither the user nor an actor names one.
_REWARD = {"lpips": 1.0}
Reward = Mapping[str, float]


@dataclass(frozen=True)
class Actor:
    """A trained actor.

    Attributes:
        label: Name of its row.
        predictors: Names or paths of its checkpoints, one per seed of its training.
        renderer: Name of the renderer it acts for; None where its card does not say, for any.
        reward: Metrics and weights it was paid by; None where its card does not say, for any.
        constant: Whether its card says that it is a best constant action, with which the others are compared.
    """

    label: str
    predictors: tuple[str, ...]
    renderer: str | None = None
    reward: Reward | None = None
    constant: bool = False

    def fits(self, renderer: str, reward: Reward) -> bool:
        """Whether it belongs into the table of this renderer and reward."""
        return self.renderer in (None, Path(renderer).stem) and self.reward in (None, dict(reward))


@dataclass(frozen=True)
class Task:
    """What is compared: methods for one renderer, of a scale, by one reward."""

    renderer: str
    reward: Reward
    scale: int

    @property
    def title(self) -> str:
        """For people."""
        return title_of(self.renderer, self.reward)


# ---------------------------------------------------------------------------------------------- what is to be compared


def released_actors(scale: int) -> list[Actor]:
    """The released actors for a scale: predictors whose card names renderer and reward, seeds together."""
    groups: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    for name in available_checkpoints("predictor"):
        card = read_card(name)
        if card["scale"] == scale and "renderer" in card and "reward" in card:
            seed = int(card.get("seed", 0))
            reward = json.dumps(card["reward"], sort_keys=True)
            groups.setdefault((name.removesuffix(f"_s{seed}"), card["renderer"], reward), []).append((seed, name))
    return [
        Actor(label, tuple(name for _, name in sorted(found)), renderer, json.loads(reward))
        for (label, renderer, reward), found in groups.items()
    ]


def parse_actor(text: str) -> Actor:
    """``LABEL=NAME,NAME`` -> an actor with one predictor checkpoint (name or path) per seed.

    Raises:
        UsageError: It is not of this form, or the seeds were trained for different renderers or rewards.
        MissingFileError: A checkpoint does not exist.
    """
    label, predictors = _split(text)
    if not label or not predictors:
        raise UsageError(f"{text!r} is not LABEL=FILE,FILE: write such as mine=runs/a/actor_x4.safetensors")
    # A predictor that was pretrained names a renderer too, but no reward: it belongs into any table.
    cards = [card if "reward" in (card := read_card(name)) else {} for name in predictors]
    for name, card in zip(predictors, cards, strict=True):
        if card and not (isinstance(card.get("renderer", ""), str) and _is_reward(card["reward"])):
            raise UsageError(f"the card of {name} names a renderer or a reward that is none: train it again")
    renderer, reward = ([card.get(key) for card in cards] for key in ("renderer", "reward"))
    for key, values in (("renderer", renderer), ("reward", reward)):
        if any(value != values[0] for value in values):
            raise UsageError(f"the seeds of {label!r} were trained for several {key}s, {values}: give them apart")
    constant = all(card.get("method") == "constant" for card in cards)
    return Actor(label, predictors, renderer[0], reward[0], constant)


def _is_reward(reward: Any) -> bool:
    """Whether an entry of a card is what a reward is: names and numbers."""
    return isinstance(reward, dict) and all(type(weight) in (int, float) for weight in reward.values())


def public_actor(text: str) -> str:
    """What :func:`parse_actor` takes, without what describes a machine."""
    label, predictors = _split(text)
    return f"{label}={','.join(map(public_path, predictors))}"


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    label, _, names = text.partition("=")
    return label, tuple(name for name in names.split(",") if name)


def plan(
    actors: Sequence[Actor],
    scale: int,
    renderers: Sequence[str] | None,
    rewards: Sequence[Reward] | None,
    default: tuple[str, Reward] | None = None,
) -> list[Task]:
    """The tables: renderers times rewards; those that are not given are the actors', or else a default.

    Args:
        actors: The actors that are compared.
        scale: Magnification.
        renderers: Names or paths of renderers.
        rewards: Metrics and weights.
        default: Renderer and reward where there is no actor; None takes ``amnet_l_x{scale}`` and LPIPS.
    """
    renderer, reward = default or (f"amnet_l_x{scale}", _REWARD)
    pairs = [(a.renderer, dict(a.reward)) for a in actors if a.renderer is not None and a.reward is not None]
    own_renderers = list(dict.fromkeys(renderer for renderer, _ in pairs)) or [renderer]
    own_rewards = [reward for i, (_, reward) in enumerate(pairs) if reward not in [r for _, r in pairs[:i]]]
    tasks = [Task(*pair, scale) for pair in product(renderers or own_renderers, rewards or own_rewards or [reward])]
    if pairs and renderers is None and rewards is None:
        return [task for task in tasks if (task.renderer, dict(task.reward)) in pairs]
    return tasks


def absent_actors(actors: Sequence[Actor], tasks: Sequence[Task], scale: int) -> list[str]:
    """A line where there is no trained actor at all, or none for one of the tables."""
    if not actors:
        return [f"trained actors: none is released for scale {scale}, train one and name it with --actors LABEL=FILE"]
    return [
        f"trained actors: none for {task.title}"
        for task in tasks
        if not any(actor.fits(task.renderer, task.reward) for actor in actors)
    ]


def fitting_metrics(
    names: Sequence[str],
    tasks: Sequence[Task],
    sets: Mapping[str, PhotoSource],
    max_side: int | None,
    device: torch.device,
    guards: Sequence[str] = (),
    enlarged: bool = False,
) -> tuple[list[str], list[str]]:
    """The metrics that can be measured on all images, and a line for each that cannot.

    Args:
        names: Of the metrics.
        tasks: What is compared.
        sets: The images, HR ones.
        max_side: Longest side in HR pixels that an image keeps; None keeps all.
        device: Where metrics are computed.
        guards: Metrics that a search is held to.
        enlarged: Whether the images are LR ones, whose SR is measured.

    Raises:
        UsageError: An unknown name, or a metric of a reward or a guard that cannot be measured.
    """
    needed_for = dict.fromkeys(guards, "guard") | {name: "reward" for task in tasks for name in task.reward}
    metrics, unavailable = create_metrics([*names, *needed_for], tasks[0].scale, device)
    scale = tasks[0].scale
    side = min(int(photos.shape_array.min()) for photos in sets.values()) * (scale if enlarged else 1)
    side = min(side, max_side or side) // scale * scale
    fitting = []
    for name, metric in metrics.items():
        needed = metric.min_size + 2 * scale
        if side >= needed:
            fitting.append(name)
        else:
            unavailable.append(f"{name}: needs images of {needed} pixels a side, the smallest has {side}")
    for line in unavailable:
        if (name := line.partition(":")[0]) in needed_for:
            raise UsageError(f"no comparison by the {needed_for[name]} {name}: {line}")
    return [name for name in (*fitting, CONSISTENCY) if name in names], unavailable


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Search:
    """How codes are searched for with HR known, by the oracle and at random.

    Attributes:
        evaluations: Renderings per scene.
        guards: Metric -> how much worse than with the pretrained actor a code may make it on a scene.
        seed: Of the searches.
    """

    evaluations: int
    guards: Reward = field(default_factory=dict)
    seed: int = 0


class Bench:
    """One task's simulators and methods, ready to be run on any set.

    Args:
        task: The renderer and the reward.
        actors: Those that fit the task are taken.
        settings: What all tasks share: scale, pretrained actor, controls, device, precision, and the metrics reported
            beside the reward's. Its photos are those of :meth:`run`, or any others.
        search: The oracle and random search; None leaves both out.

    Raises:
        MissingFileError: A checkpoint does not exist.
        UsageError: A checkpoint, the reward, a guard or the number of evaluations does not fit.
        WeightsUnavailable: The weights of a metric of the reward cannot be had.
    """

    def __init__(
        self, task: Task, actors: Sequence[Actor], settings: SimulatorSettings, search: Search | None = None
    ) -> None:
        self.task = task
        guards = tuple(search.guards) if search else ()
        settings = replace(
            settings,
            patch_size=MIN_LR_SIZE * settings.scale,  # whole images are scored, so that no patch is drawn
            renderer=task.renderer,
            reward=task.reward,
            reference="predictor",
            info_metrics=(*settings.info_metrics, *guards),
        )
        self.simulator = judge = Simulator(settings)
        assert judge.predictor is not None
        pretrained = judge.predictor.network
        self.methods: dict[str, list[Method]] = {
            BICUBIC: [judge.bicubic],
            MEAN_CODE: [self._mean_code],
            **({} if judge.without_hr else {TRUE_KERNEL: [true_kernel(judge)]}),
            PRETRAINED: [acting(judge, pretrained)],
        }
        actors = [actor for actor in actors if actor.fits(task.renderer, task.reward)]
        for label in [actor.label for actor in actors]:
            if label in (*self.methods, RANDOM_SEARCH, ORACLE) or [a.label for a in actors].count(label) > 1:
                raise UsageError(f"two rows would be called {label!r}: give the actor another label")
        self.trained = {actor.label: len(actor.predictors) for actor in actors}
        self.constant = next((actor.label for actor in actors if actor.constant), None)
        self.seeds: list[str] = []
        for actor in actors:
            seeds = [
                load_predictor(
                    name,
                    scale=settings.scale,
                    basis=judge.basis,
                    device=judge.device,
                    controls=judge.controls.names,
                )
                for name in actor.predictors
            ]
            self.methods[actor.label] = [acting(judge, seed.network) for seed in seeds]
            self.seeds += [f"{actor.label}={seed.identity}" for seed in seeds]
        if search:
            searcher = Simulator(replace(settings, info_metrics=guards))  # without metrics that only cost time
            for label, kind in ((RANDOM_SEARCH, "random"), (ORACLE, None)):
                oracle = Oracle(searcher, search.evaluations, kind, seed=search.seed, guards=search.guards)
                self.methods[label] = [oracle.method(pretrained, judge)]

    def run(
        self,
        name: str,
        photos: PhotoSource,
        widths: Sequence[float],
        max_side: int | None,
        console: Console,
        take: Take = anew,
    ) -> Comparison:
        """Measure a set at every width, or as it is.

        Args:
            name: The set's name.
            photos: Its images.
            widths: Kernel widths in HR pixels; none for photographs as they are.
            max_side: Longest side in HR pixels that an image keeps, around its centre; None keeps all.
            console: Where progress is shown.
            take: Scores a few images by a method, or gives what was found before.
        """
        scenes = WholeScenes(self.simulator, widths, photos, max_side=max_side, keep=False)
        runs = {(label, seed): run for label, each in self.methods.items() for seed, run in enumerate(each)}
        with progress_bar(console) as progress:
            bar = progress.add_task(f"{name}, {self.task.title}", total=scenes.part_count * len(runs))
            keyed = {f"{label}, {seed}": run for (label, seed), run in runs.items()}
            found = scenes.score_all(keyed, lambda: progress.advance(bar), take)
        scores = {label: [found[f"{label}, {i}"] for i in range(len(each))] for label, each in self.methods.items()}
        pretrained, oracle = scores[PRETRAINED][0], scores.get(ORACLE, [None])[0]
        rows = {label: make_row(each, pretrained, oracle, self.trained.get(label, 0)) for label, each in scores.items()}
        if self.constant is not None:
            constant = mean_scores(scores[self.constant])
            for label in self.trained.keys() - {self.constant}:
                own = mean_scores(scores[label])
                gain, error = float(own.gain(constant).mean()), finite(own.standard_error(constant))
                rows[label].over_constant = (self.constant, gain, error)
        shown = columns(rows[PRETRAINED].values, self.simulator.metrics)
        renderer = public_path(self.task.renderer)
        return Comparison(renderer, dict(self.task.reward), name, scenes.count, list(scenes.widths), rows, shown)

    def _mean_code(self, scenes: Scenes) -> Result:
        code = torch.zeros(len(scenes.lr), self.simulator.code_length, device=scenes.lr.device)
        return self.simulator.score(scenes, self.simulator.render(scenes.lr, code), code)


def identities(benches: Sequence[Bench]) -> dict[str, list[Any]]:
    """By the setting that asks for them: the rewards, and what tells the networks from others."""
    judges = [bench.simulator for bench in benches]
    found = {
        "renderers": [judge.renderer.identity for judge in judges],
        "predictor": [judge.predictor.identity for judge in judges if judge.predictor],
        "blend_renderer": [judge.controls.partner.identity for judge in judges if judge.controls.partner],
        "actors": [seed for bench in benches for seed in bench.seeds],
    }
    return {"rewards": [bench.task.reward for bench in benches], **{k: [*dict.fromkeys(v)] for k, v in found.items()}}
