"""IterativeHinge: HingeDDPG's ideas for BlindSRIterative-v0, whose episodes correct the code over several steps.

What carries over from :mod:`blindsr_agents.hinge_ddpg.agent`: the start is the pretrained predictor (the first
correction is none),
noise comes in opposite pairs, critics are trained alone first and know that staying gains nothing, the actor climbs
their mean less their disagreement, is held by an anchor to the pretrained code and averaged on the way, and rewards are
scaled per range of kernel widths.

What is new is the return. Rewards of an episode add up to the total improvement, so that with ``gamma`` = 1 the return
of step t is the last score less the score before t. A critic is fitted to the n-step target

    h(r_t + gamma r_(t+1) + ... + gamma^(n-1) r_(t+n-1) + gamma^n h^-1(Q'(s_(t+n), mu'(s_(t+n)))))

with averaged critics and actor, and nothing bootstrapped where the episode ends: n = 1 is DDPG's target, n =
``max_steps`` the Monte Carlo return. h is :func:`~blindsr_agents.hinge_ddpg.agent.squash`, which must be undone
before rewards are
added (Pohlen et al., "Observe and Look Further", 2018). With two critics and ``pessimism`` 1 the value climbed and
bootstrapped is the smaller of the two, TD3's twin critics, since a mean of two less their standard deviation is that.
Returns are not corrected for the noise that later steps of a kept episode were made with, so a small n errs less.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from blindsr_agents.exploration import measured_noise_shape, opposite_pairs
from blindsr_agents.hinge_ddpg import (
    NORMALISATIONS,
    REWARD_CLIP,
    Normalisation,
    group_widths,
    reward_scales,
    squash,
)
from blindsr_agents.hinge_ddpg.losses import critic_loss
from blindsr_agents.hinge_ddpg.policy import QNetwork
from blindsr_agents.training.state import reading_state, set_torch_generators, torch_generators
from sr_env.degradation import bicubic_resize, quantize
from sr_env.envs.vector import BlindSRIterativeVectorEnv
from sr_env.models.checkpoint import Checkpoint
from sr_env.models.predictor import KernelPredictor
from sr_env.simulator import Simulator
from sr_env.utils.checks import check_choice
from sr_env.utils.files import atomic_write
from sr_env.utils.images import to_images

from stable_baselines3.common.utils import polyak_update  # isort: skip  # after blindsr_agents.hinge_ddpg.agent's torchvision

#: State-action pairs over which the critics' correlation with returns not yet trained on is told.
_JUDGED = 512


class Parts(NamedTuple):
    """What a state is made of, for B states.

    Attributes:
        lr: Pretrained features of LR, [B, F].
        start: The pretrained action mu0, [B, L].
        code: The code so far, in action units, [B, L].
        sr: Pretrained features of the SR thumbnail, [B, F].
        step: Which step of the episode it is, one-hot, [B, max_steps].
    """

    lr: Tensor
    start: Tensor
    code: Tensor
    sr: Tensor
    step: Tensor


class Corrector(nn.Module):
    """The policy: state -> correction of the code; untrained, it corrects nothing.

    A state is one row of numbers, float32 [B, D]: see :class:`Parts`. It is computed once and kept.

    Args:
        predictor: The pretrained predictor with its kernel basis (copied, frozen).
        correction: Largest change of a code component by one action, in action units: the environment's setting.
        max_steps: Steps of an episode.
        noise_shape: What turns unit normal numbers into exploration noise, [L, L]: see
        :mod:`blindsr_agents.exploration`. The
            networks see the code so far as a move from mu0 in its units. None makes a tenth of each component.
        hidden: Width of the hidden layer.

    Attributes:
        head: What is trained.
        state_size: D.
    """

    noise_shape: Tensor
    into_units: Tensor

    def __init__(
        self,
        predictor: Checkpoint[KernelPredictor],
        correction: float,
        max_steps: int,
        noise_shape: Tensor | None = None,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        network = predictor.network
        self.correction, self.max_steps, self.hidden = correction, max_steps, hidden
        self.pretrained = deepcopy(network).requires_grad_(False).eval()
        shape = 0.1 * torch.eye(network.code_length) if noise_shape is None else noise_shape.detach().clone()
        self.register_buffer("noise_shape", shape)
        self.register_buffer("into_units", torch.linalg.inv(shape))
        self._sizes = (network.feature_size, network.code_length, network.code_length, network.feature_size, max_steps)
        self.state_size = sum(self._sizes)
        last = nn.Linear(hidden, network.code_length)
        self.head = nn.Sequential(nn.Linear(self.state_size, hidden), nn.LayerNorm(hidden), nn.SiLU(), last)
        self.withdraw()

    def withdraw(self) -> None:
        """Correct nothing, as before any training."""
        _silence(self.head[-1])

    @torch.no_grad()
    def describe(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """LR images, float32 in [0, 1], [B, 3, h, w] -> pretrained features [B, F] and actions mu0 [B, L]."""
        features = self.pretrained.features(lr)
        return features, torch.tanh(self.pretrained.head(features).float())

    @torch.no_grad()
    def state(self, scene: tuple[Tensor, Tensor], code: Tensor, thumbnails: Tensor, step: int) -> Tensor:
        """States [B, D] at one step.

        Args:
            scene: What :meth:`describe` gave, for B scenes.
            code: The codes so far, in action units, [B, L].
            thumbnails: The SR images so far at the LR size, float32 in [0, 1], [B, 3, h, w].
            step: The step, from 0.
        """
        steps = F.one_hot(torch.full((len(code),), step, device=code.device), self.max_steps)
        return torch.cat((*scene, code, self.pretrained.features(thumbnails), steps.float()), dim=1)

    def split(self, states: Tensor) -> Parts:
        """States [B, D] -> their parts."""
        return Parts(*states.split(self._sizes, dim=1))

    def inputs(self, states: Tensor) -> Tensor:
        """States [B, D] as the networks see them, [B, D]: the code so far as a move from mu0 in units of the noise."""
        parts = self.split(states)
        return torch.cat(parts._replace(code=self.moved(states, parts.code)), dim=1)

    def moved(self, states: Tensor, codes: Tensor) -> Tensor:
        """Moves of codes [B, L] from mu0, in units of the exploration noise."""
        return (codes - self.split(states).start) @ self.into_units

    def correct(self, codes: Tensor, actions: Tensor) -> Tensor:
        """Codes [B, L] after the corrections [B, L] in [-1, 1], as the environment applies them."""
        return (codes + self.correction * actions).clamp(-1, 1)

    def logits(self, states: Tensor) -> Tensor:
        """States [B, D] -> corrections before their tanh, [B, L]."""
        logits: Tensor = self.head(self.inputs(states))
        return logits

    def forward(self, states: Tensor) -> Tensor:
        """States [B, D] -> corrections in (-1, 1), [B, L]."""
        return torch.tanh(self.logits(states))


def save_corrector(
    path: str | Path, corrector: Corrector, predictor: Checkpoint[KernelPredictor], card: Mapping[str, Any]
) -> None:
    """Write what was trained, and in the file's header what it needs to be used again.

    Args:
        path: ``.safetensors`` file to write, atomically.
        corrector: The policy.
        predictor: The pretrained actor that it corrects, which is not written.
        card: What is known of the training, JSON values only.
    """
    made = {"correction": corrector.correction, "max_steps": corrector.max_steps}
    about = {"predictor": predictor.path.stem, "basis": predictor.basis.digest}
    trained = {f"head.{name}": value for name, value in corrector.head.state_dict().items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in trained.items()}
    tensors["noise_shape"] = corrector.noise_shape.cpu()
    header = {"card": json.dumps({**card, **about}), "made": json.dumps({**made, "hidden": corrector.hidden})}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_corrector(path: str | Path, predictor: Checkpoint[KernelPredictor]) -> Corrector:
    """Read what :func:`save_corrector` wrote, around the pretrained actor that it was trained to correct.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not a corrector's file, or for another predictor.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no corrector at {path}: train one with agents/train_iterative.py")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            made, card = json.loads(header["made"]), json.loads(header["card"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        own = (predictor.path.stem, predictor.basis.digest)
        if (card["predictor"], card["basis"]) != own:
            raise ValueError(f"it corrects {card['predictor']} (kernel basis {card['basis']}), not {own[0]} ({own[1]})")
        corrector = Corrector(predictor, **made, noise_shape=tensors.pop("noise_shape"))
        corrector.head.load_state_dict({name.removeprefix("head."): value for name, value in tensors.items()})
    except Exception as error:  # safetensors and torch raise many types for a damaged or foreign file
        raise ValueError(f"{path} is no corrector for this predictor ({type(error).__name__}: {error})") from error
    return corrector.to(next(predictor.network.parameters()).device).eval()


class Player(nn.Module):
    """A corrector as an actor LR -> code that renders what it looks at, for
    :mod:`blindsr_agents.evaluation.scene_sets`.

    Args:
        corrector: The policy.
        simulator: Renders; its LR images are scored elsewhere.
        corrections: How many to make; None makes all of an episode.

    Raises:
        ValueError: There are not so many in an episode.
    """

    def __init__(self, corrector: Corrector, simulator: Simulator, corrections: int | None = None) -> None:
        super().__init__()
        corrections = corrector.max_steps if corrections is None else corrections
        if not 0 <= corrections <= corrector.max_steps:
            raise ValueError(f"{corrections} corrections are outside 0..{corrector.max_steps}, the policy's episode")
        self.corrector, self.simulator, self.corrections = corrector, simulator, corrections

    @torch.no_grad()
    def forward(self, lr: Tensor) -> Tensor:
        """LR images, float32 in [0, 1], [B, 3, h, w] -> the codes in the end, in action units, [B, L]."""
        scene = self.corrector.describe(lr)
        code = scene[1]
        for step in range(self.corrections):
            sr = self.simulator.render(lr, self.simulator.basis.to_code(code))
            thumbnails = quantize(bicubic_resize(sr, (lr.shape[-2], lr.shape[-1])))
            code = self.corrector.correct(code, self.corrector(self.corrector.state(scene, code, thumbnails, step)))
        return code


class CorrectionCritic(nn.Module):
    """An ensemble of critics of corrections.

    A critic's value is what the correction gains, plus what the steps after it are worth if nothing is corrected now.
    The first is a difference of one network's values at the code after the correction and at the code before, so that
    no correction gains nothing, as in the environment, and all steps share what is learned of the scene's landscape.
    The second is zero at the last step.

    Args:
        corrector: Whose states are judged.
        n_critics: Size of the ensemble.
        hidden: Width of the hidden layers.
        dropout: Share of the inputs and hidden units left out in training.
    """

    def __init__(self, corrector: Corrector, n_critics: int, hidden: int = 256, dropout: float = 0.2) -> None:
        super().__init__()
        size, length = corrector.state_size, corrector.pretrained.code_length
        self.landscapes = nn.ModuleList(QNetwork(size, length, hidden, dropout) for _ in range(n_critics))
        self.prospects = nn.ModuleList(_prospect(size, hidden, dropout) for _ in range(n_critics))

    def gain(self, corrector: Corrector, states: Tensor, actions: Tensor) -> Tensor:
        """Values of corrections [B, L] in states [B, D] above that of none, by every critic, [n_critics, B]."""
        code = corrector.split(states).code
        both = torch.stack([corrector.moved(states, c) for c in (code, corrector.correct(code, actions))], dim=1)
        inputs = corrector.inputs(states)
        values = torch.stack([landscape(inputs, both) for landscape in self.landscapes])
        return values[..., 1] - values[..., 0]

    def prospect(self, corrector: Corrector, states: Tensor) -> Tensor:
        """Values of correcting nothing in states [B, D], by every critic, [n_critics, B]."""
        inputs, last = corrector.inputs(states), corrector.split(states).step[:, -1]
        return torch.stack([prospect(inputs)[:, 0] for prospect in self.prospects]) * (1 - last)

    def forward(self, corrector: Corrector, states: Tensor, actions: Tensor) -> Tensor:
        """Values of corrections [B, L] in states [B, D], by every critic, [n_critics, B]."""
        return self.gain(corrector, states, actions) + self.prospect(corrector, states)


def _silence(layer: nn.Module) -> None:
    """Make a linear layer give zeros."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _prospect(size: int, hidden: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(hidden, 1)
    _silence(last)
    first = nn.Sequential(nn.Dropout(dropout), nn.Linear(size, hidden), nn.LayerNorm(hidden), nn.SiLU())
    return nn.Sequential(*first, nn.Dropout(dropout), last)


def n_step_returns(rewards: Tensor, starts: Tensor, n: int, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Discounted sums of up to n rewards.

    Args:
        rewards: Of whole episodes of T steps, [B, T].
        starts: Step at which each sum begins, int64 [B].
        n: Rewards added up, fewer where the episode ends.
        gamma: Discount.

    Returns:
        The sums [B]; the step after the last reward of each, int64 [B], T where the episode ended; and the discount
        of what would follow, [B], 0 where the episode ended.
    """
    length = rewards.shape[1]
    after = torch.arange(length, device=rewards.device) - starts[:, None]
    weights = torch.where((after >= 0) & (after < n), gamma ** after.clamp(min=0).to(rewards.dtype), 0.0)
    ends = (starts + n).clamp(max=length)
    discounts = torch.where(ends < length, gamma ** (ends - starts).to(rewards.dtype), 0.0)
    return (weights * rewards).sum(1), ends, discounts


class EpisodeBatch(NamedTuple):
    """Steps out of the memory.

    Attributes:
        states: Of their whole episodes, [B, T, D].
        actions: Corrections of the whole episodes, [B, T, L].
        rewards: As the environment gave them, [B, T].
        scales: What to divide them by, [B].
        steps: Which step was drawn, int64 [B].
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    scales: Tensor
    steps: Tensor

    def at(self, steps: Tensor) -> Tensor:
        """States [B, D] at steps [B] of the episodes."""
        return self.states[torch.arange(len(steps), device=steps.device), steps]


class EpisodeMemory:
    """Replay memory of whole episodes; the oldest give way.

    Args:
        episodes: Episodes kept.
        max_steps: Steps T of each.
        state_size: Length D of a state.
        action_size: Length L of an action.
        width_range: Range of the environment's kernel widths, in HR pixels.
        normalisation: As in :func:`~blindsr_agents.hinge_ddpg.agent.reward_scales`.

    Raises:
        ValueError: Nothing could be kept.
    """

    def __init__(
        self,
        episodes: int,
        max_steps: int,
        state_size: int,
        action_size: int,
        width_range: tuple[float, float],
        normalisation: Normalisation,
    ) -> None:
        if episodes < 1:
            raise ValueError(f"a memory of {episodes} episodes keeps nothing: give buffer_size at least an episode")
        self.columns = {
            "states": torch.zeros(episodes, max_steps, state_size),
            "actions": torch.zeros(episodes, max_steps, action_size),
            "rewards": torch.zeros(episodes, max_steps),
            "groups": torch.zeros(episodes, dtype=torch.uint8),
        }
        self.capacity, self._width_range, self._normalisation = episodes, width_range, normalisation
        self.position, self.size = 0, 0
        self.scales = torch.from_numpy(reward_scales(np.ones(1), np.zeros(1), "none"))

    def add(self, states: Tensor, actions: Tensor, rewards: Tensor, widths: np.ndarray) -> None:
        """Keep N episodes: states [N, T, D], actions [N, T, L], rewards [N, T], kernel widths [N]."""
        rows = torch.arange(self.position, self.position + len(rewards)) % self.capacity
        groups = torch.from_numpy(group_widths(widths, self._width_range))
        for name, value in zip(self.columns, (states, actions, rewards, groups), strict=True):
            self.columns[name][rows] = value.to("cpu", self.columns[name].dtype)
        self.position = (self.position + len(rewards)) % self.capacity
        self.size = min(self.size + len(rewards), self.capacity)

    def measure_scales(self) -> None:
        """Renew the scales of the rewards from what is kept."""
        rewards, groups = (self.columns[name][: self.size] for name in ("rewards", "groups"))
        alike = groups[:, None].expand_as(rewards)
        self.scales = torch.from_numpy(reward_scales(rewards.numpy(), alike.numpy(), self._normalisation))

    def draw(self, batch_size: int, rng: np.random.Generator, device: torch.device) -> EpisodeBatch:
        """Draw steps with replacement."""
        rows = torch.from_numpy(rng.integers(self.size, size=batch_size))
        steps = torch.from_numpy(rng.integers(self.columns["rewards"].shape[1], size=batch_size))
        states, actions, rewards, groups = (column[rows] for column in self.columns.values())
        parts = (states, actions, rewards, self.scales[groups.long()], steps)
        return EpisodeBatch(*(part.to(device) for part in parts))

    def state(self) -> dict[str, Any]:
        """The episodes kept, as tensors."""
        kept = {name: column[: self.size].clone() for name, column in self.columns.items()}
        return {"position": self.position, "size": self.size, "scales": self.scales, **kept}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            ValueError: The sizes differ.
        """
        for name, column in self.columns.items():
            if state[name].shape[1:] != column.shape[1:] or len(state[name]) > self.capacity:
                raise ValueError(f"the memory kept {name} of shape {list(state[name].shape)}, now {list(column.shape)}")
            column[: len(state[name])] = state[name]
        self.position, self.size, self.scales = state["position"], state["size"], state["scales"]


class IterativeHinge:
    """DDPG with Algorithm 1's hinge on BlindSRIterative-v0, from "no correction".

    Args:
        env: Its vector environment, best with several ``actions_per_scene`` and reference "predictor".
        predictor: The pretrained actor that describes the scenes; it must be the environment's reference.
        learning_rate: Of the critics.
        actor_learning_rate: Of the actor.
        buffer_size: SR images whose steps the memory keeps (1.6 kB each with the shipped predictor and 4 steps).
        learning_starts: SR images rendered before the first update; the actor acts, with noise, during them too.
        batch_size: Steps per update.
        gamma: Discount of later rewards; 1, since the episodes are short and the rewards add up.
        n_steps: Rewards that a target adds up before it bootstraps, 1 to the episode's length, which bootstraps
            nothing; None takes that.
        gradient_steps: Updates per step of all sub-environments.
        loss: Critic loss, one of ``printed``, ``hinge_l2``, ``hinge_l1``, ``hinge_margin``, ``mse``.
        hinge: Weight of the hinge in the critic loss (the gamma of Algorithm 1).
        noise: What exploration noise changes the picture by at each step in each direction of the action space, root
            mean square in grey levels of 255.
        noise_limit: Standard deviation of the noise in action units that no direction exceeds.
        warmup_updates: Updates of the critics alone before the actor moves.
        anchor: Weight of the squared total move from the pretrained code, in units of the noise.
        saturation: The actor's value before its tanh beyond which it is penalised.
        clip: Gradient norm above which gradients are scaled down.
        tau: Polyak rate of the averaged actor and critics.
        n_critics: Size of the ensemble; 2 are twin critics.
        pessimism: Values are the critics' mean less this many of their standard deviations.
        normalisation: Rewards are divided by their median magnitude per range of kernel widths ("width"), over "all"
            scenes, or not ("none").
        shift: Added to squashed returns and values before the critic loss, so that the hinge meets none that is
            negative.
        hidden: Width of the critics' hidden layers.
        dropout: Share of the critics' inputs and hidden units left out in training.
        seed: Seed of scenes, exploration, networks and batches (it seeds torch's global generator, as SB3 does).

    Attributes:
        actor: The policy that is trained.
        actor_target: Its average, which is validated and kept.
        steps: SR images rendered.
        updates: Updates made.
        correlation: Between the critics' values and the returns of the latest episodes, before these were trained on.
        returns: Mean total improvement of each round of episodes, noise included.

    Raises:
        ValueError: The environment is not iterative, its reference is not the predictor given, or a setting is wrong.
    """

    def __init__(
        self,
        env: BlindSRIterativeVectorEnv,
        predictor: Checkpoint[KernelPredictor],
        *,
        learning_rate: float = 1e-3,
        actor_learning_rate: float = 4e-4,
        buffer_size: int = 20_000,
        learning_starts: int = 512,
        batch_size: int = 256,
        gamma: float = 1.0,
        n_steps: int | None = 1,
        gradient_steps: int = 16,
        loss: str = "hinge_l2",
        hinge: float = 0.99,
        noise: float = 0.7,
        noise_limit: float = 0.3,
        warmup_updates: int = 200,
        anchor: float = 0.03,
        saturation: float = 2.0,
        clip: float = 1.0,
        tau: float = 0.005,
        n_critics: int = 4,
        pessimism: float = 1.0,
        normalisation: Normalisation = "width",
        shift: float = REWARD_CLIP,
        hidden: int = 256,
        dropout: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.loss_function = critic_loss(loss)
        check_choice("normalisation", normalisation, [name for name in NORMALISATIONS if name != "scene"])
        simulator = env.simulator
        if not simulator.iterative:
            raise ValueError("IterativeHinge corrects codes over several steps: use BlindSRIterative-v0, or HingeDDPG")
        told = simulator.predictor
        if told is None or any(
            not torch.equal(value, predictor.network.state_dict()[name].to(value.device))
            for name, value in told.network.state_dict().items()
        ):
            raise ValueError(
                f"episodes begin with reference {simulator.settings.reference!r}, not with the predictor that the "
                "agent starts from: make the environment with reference='predictor' and that predictor"
            )
        n_steps = simulator.horizon if n_steps is None else n_steps
        if not 1 <= n_steps <= simulator.horizon:
            raise ValueError(f"n_steps {n_steps} is outside 1..{simulator.horizon}, the episode's length")
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma {gamma} is outside [0, 1]: it is the discount of later rewards")
        if not (n_critics > 0 and batch_size > 0 and gradient_steps > 0):
            raise ValueError(
                f"n_critics {n_critics}, batch_size {batch_size} and gradient_steps {gradient_steps} must all be "
                "positive"
            )
        self.env, self.device = env, simulator.device
        self.gamma, self.n_steps, self.hinge, self.shift = gamma, n_steps, hinge, shift
        self.anchor, self.saturation, self.clip, self.tau = anchor, saturation, clip, tau
        self.pessimism, self.learning_starts, self.warmup_updates = pessimism, learning_starts, warmup_updates
        self.batch_size, self.gradient_steps, self.seed = batch_size, gradient_steps, seed
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        correction, horizon = simulator.settings.correction, simulator.horizon
        shape = measured_noise_shape(simulator, noise, noise_limit, seed)
        self.actor = Corrector(predictor, correction, horizon, shape).to(self.device)
        self.critic = CorrectionCritic(self.actor, n_critics, hidden, dropout).to(self.device)
        self.actor_target = deepcopy(self.actor).requires_grad_(False).eval()
        self.critic_target = deepcopy(self.critic).requires_grad_(False).eval()
        self.actor_optimizer = torch.optim.Adam(self.actor.head.parameters(), actor_learning_rate)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), learning_rate)
        self.memory = EpisodeMemory(
            buffer_size // horizon,
            horizon,
            self.actor.state_size,
            simulator.code_length,
            simulator.degradation.width_range,
            normalisation,
        )
        self.steps, self.updates = 0, 0
        self.correlation = float("nan")
        self.returns: list[float] = []
        self._judged: deque[tuple[float, float]] = deque(maxlen=_JUDGED)
        self._observation: dict[str, np.ndarray] | None = None

    # ----------------------------------------------------------------------------------------------------------- acting

    def learn(self, steps: int, between: Callable[[], bool] | None = None) -> None:
        """Act and learn until ``steps`` SR images are rendered in all.

        Args:
            steps: Their number; the round of episodes that reaches it is played to its end.
            between: Called before every round of episodes, where the state can be saved; training ends if it is False.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        while self.steps < steps and (between is None or between()):
            self.play()

    def play(self) -> None:
        """One episode in every sub-environment, with updates after each step."""
        if self._observation is None:
            self._observation, _ = self.env.reset(seed=self.seed if self.steps == 0 else None)
        times = self.env.actions_per_scene
        observation = self._observation
        leaders = to_images(observation["lr"][::times], self.device)
        features, start = (x.repeat_interleave(times, 0) for x in self.actor.describe(leaders))
        states, actions, rewards = [], [], []
        for step in range(self.actor.max_steps):
            code = torch.from_numpy(observation["code"]).to(self.device)
            thumbnails = to_images(observation["sr"], self.device)
            state = self.actor.state((features, start), code, thumbnails, step)
            action = self._explore(state)
            observation, reward, _, _, infos = self.env.step(action.cpu().numpy())
            states.append(state)
            actions.append(action)
            rewards.append(torch.from_numpy(reward).float())
            self.steps += self.env.num_envs
            if step == self.actor.max_steps - 1:
                widths = infos["final_info"]["kernel_width"].mean(1)
                episodes = (torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1))
                self.memory.add(*episodes, widths)
                self.memory.measure_scales()
                self._judge(*episodes, widths)
            if self.memory.size and self.steps >= self.learning_starts:
                for _ in range(self.gradient_steps):
                    self.update()
        self._observation = observation  # of the next episodes, which have begun
        self.returns.append(float(torch.stack(rewards, 1).sum(1).mean()))

    @torch.no_grad()
    def _explore(self, states: Tensor) -> Tensor:
        """The actor's corrections of states [N, D] plus noise, [N, L] in [-1, 1]."""
        times, length = self.env.actions_per_scene, len(self.actor.noise_shape)
        pairs = torch.from_numpy(opposite_pairs(self.rng, len(states) // times, times, length)).to(states)
        return (self.actor(states) + pairs @ self.actor.noise_shape / self.actor.correction).clamp(-1, 1)

    # --------------------------------------------------------------------------------------------------------- learning

    def value(self, values: Tensor) -> Tensor:
        """What an ensemble's values [n_critics, B] count as, [B]: the mean less ``pessimism`` standard deviations."""
        return values.mean(0) - self.pessimism * values.std(0, correction=0)

    @torch.no_grad()
    def targets(self, batch: EpisodeBatch) -> Tensor:
        """What the critics are fitted to, [B]: squashed n-step returns."""
        returns, ends, discounts = n_step_returns(batch.rewards, batch.steps, self.n_steps, self.gamma)
        if (discounts > 0).any():
            later = batch.at(ends.clamp(max=batch.rewards.shape[1] - 1))
            ahead = self.value(self.critic_target(self.actor_target, later, self.actor_target(later)))
            returns = returns + discounts * batch.scales * torch.sinh(ahead.clamp(-REWARD_CLIP, REWARD_CLIP))
        return squash(returns, batch.scales)

    def update(self) -> None:
        """One update of the critics and, after the warm-up, of the actor; then of their averages.

        Raises:
            FloatingPointError: The critic loss is not finite.
        """
        self.updates += 1
        batch = self.memory.draw(self.batch_size, self.rng, self.device)
        states = batch.at(batch.steps)
        actions = batch.actions[torch.arange(len(states), device=self.device), batch.steps]
        q = self.critic(self.actor, states, actions)
        wanted = self.targets(batch).expand_as(q)
        loss = self.loss_function(q + self.shift, wanted + self.shift, self.hinge) * len(q)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the critic loss is {loss.item()}: lower the learning rate")
        self._descend(self.critic_optimizer, self.critic, loss)
        if self.updates > self.warmup_updates:
            logits = self.actor.logits(states)
            actions = torch.tanh(logits)
            gain = self.value(self.critic.gain(self.actor, states, actions)).mean()
            codes = self.actor.correct(self.actor.split(states).code, actions)
            distance = self.actor.moved(states, codes).square().sum(1).mean()
            saturated = F.relu(logits.abs() - self.saturation).square().mean()
            self._descend(self.actor_optimizer, self.actor.head, self.anchor * distance + saturated - gain)
            polyak_update(self.actor.head.parameters(), self.actor_target.head.parameters(), self.tau)
        polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)

    def _descend(self, optimizer: torch.optim.Optimizer, module: nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), self.clip)
        optimizer.step()
        # The actor's loss reaches the critics' weights too; their own step clears those gradients first.

    @torch.no_grad()
    def _judge(self, states: Tensor, actions: Tensor, rewards: Tensor, widths: np.ndarray) -> None:
        """Correlate the critics' values with returns they have not been trained on."""
        groups = group_widths(widths, self.env.simulator.degradation.width_range)
        returns = rewards.flip(1).cumsum(1).flip(1)
        wanted = squash(returns, self.memory.scales[torch.from_numpy(groups).long()][:, None])
        with evaluating(self.critic):
            q = self.critic(self.actor, states.flatten(0, 1), actions.flatten(0, 1)).mean(0)
        self._judged.extend(zip(q.tolist(), wanted.flatten().tolist(), strict=True))
        values = np.array(self._judged).T
        if values.shape[1] > 2 and values.std(1).min() > 0:
            self.correlation = float(np.corrcoef(values)[0, 1])

    # ----------------------------------------------------------------------------------------------------------- resume

    def save_state(self, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write, between two rounds of episodes, everything that goes on after an interruption.

        Args:
            path: File to write, atomically.
            extra: Tensors, numbers, strings and containers of them to keep beside.
        """
        state = {
            **{name: getattr(self, name).state_dict() for name in self._stateful},
            "memory": self.memory.state(),
            "counters": [self.steps, self.updates],
            "returns": list(self.returns),
            "judged": list(self._judged),
            "correlation": self.correlation,
            "generator": self.rng.bit_generator.state,
            "torch_generators": torch_generators(),
            "episodes": self.env.state() if self._observation is not None else None,
            "extra": dict(extra or {}),
        }
        with atomic_write(path) as temporary:
            torch.save(state, temporary)

    def load_state(self, path: str | Path) -> dict[str, Any]:
        """Take up what :meth:`save_state` wrote.

        Returns:
            Its ``extra``.

        Raises:
            FileNotFoundError: No such file.
            ValueError: It is damaged, or of an agent with other settings.
        """
        with reading_state(path) as state:
            for name in self._stateful:
                getattr(self, name).load_state_dict(state[name])
            self.memory.load_state(state["memory"])
            self.steps, self.updates = state["counters"]
            self.returns, self.correlation = list(state["returns"]), state["correlation"]
            self._judged.extend((q, wanted) for q, wanted in state["judged"])
            self.rng.bit_generator.state = state["generator"]
            set_torch_generators(state["torch_generators"])
            if state["episodes"] is not None:
                self.env.load_state(state["episodes"])
                self._observation, _ = self.env.reset()
            extra: dict[str, Any] = state["extra"]
        return extra

    _stateful = ("actor", "actor_target", "critic", "critic_target", "actor_optimizer", "critic_optimizer")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout while in the block."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
