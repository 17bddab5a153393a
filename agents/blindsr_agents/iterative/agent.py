"""IterativeHinge: HingeDDPG's ideas for BlindSRIterative-v0, whose episodes correct the code over several steps.

What carries over from :mod:`blindsr_agents.hinge_ddpg.agent`: the start is the pretrained predictor (the first
correction is none), noise comes in opposite pairs, critics are trained alone first and know that staying gains nothing,
the actor climbs their mean less their disagreement, is held by an anchor to the pretrained code and averaged on the
way, and rewards are scaled per range of kernel widths.

What is new is the return. Rewards of an episode add up to the total improvement, so that with a discount gamma of 1 the
return of step t is the last score less the score before t. A critic is fitted to the n-step target

    h(r_t + gamma r_(t+1) + ... + gamma^(n-1) r_(t+n-1) + gamma^n h^-1(Q'(s_(t+n), mu'(s_(t+n)))))

with averaged critics and actor, and nothing bootstrapped where the episode ends: n = 1 is DDPG's target, n =
``max_steps`` the Monte Carlo return. h is :func:`~blindsr_agents.hinge_ddpg.losses.squash`, which must be undone before
rewards are added (Pohlen et al., "Observe and Look Further", 2018). With two critics and ``pessimism`` 1 the value
climbed and bootstrapped is the smaller of the two, TD3's twin critics, since a mean of two less their standard
deviation is that. Returns are not corrected for the noise that later steps of a kept episode were made with, so a small
n errs less.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blindsr_agents.exploration import measured_noise_shape, opposite_pairs
from blindsr_agents.hinge_ddpg import REWARD_CLIP, critic_loss, group_widths, squash
from blindsr_agents.iterative.config import IterativeHingeConfig
from blindsr_agents.iterative.corrector import Corrector
from blindsr_agents.iterative.critic import CorrectionCritic
from blindsr_agents.iterative.replay import EpisodeBatch, EpisodeMemory, n_step_returns
from blindsr_agents.training import reading_state, set_torch_generators, write_state
from sr_env.envs.vector import BlindSRIterativeVectorEnv
from sr_env.models import Checkpoint, KernelPredictor, widened
from sr_env.utils.checks import UsageError
from sr_env.utils.images import to_images

from stable_baselines3.common.utils import polyak_update  # isort: skip  # after blindsr_agents.hinge_ddpg's torchvision

#: State-action pairs over which the critics' correlation with returns not yet trained on is measured.
_JUDGED = 512


class IterativeHinge:
    """DDPG with Algorithm 1's hinge on BlindSRIterative-v0, from "no correction".

    Args:
        env: Its vector environment, best with several ``actions_per_scene`` and reference "predictor".
        predictor: The pretrained actor that describes the scenes; it must be the environment's reference.
        config: How it learns; None takes the defaults.
        **changes: Fields of :class:`~blindsr_agents.iterative.config.IterativeHingeConfig` to take in place of those.

    Attributes:
        config: As it learns.
        n_steps: Rewards that a target adds up before it bootstraps.
        actor: The policy that is trained.
        actor_target: Its average, which is validated and kept.
        steps: SR images rendered.
        updates: Updates made.
        correlation: Between the critics' values and the returns of the latest episodes, before these were trained on.
        returns: Mean total improvement of each round of episodes, noise included.

    Raises:
        UsageError: The environment is not iterative, its reference is not the predictor given, or a setting is wrong.
    """

    def __init__(
        self,
        env: BlindSRIterativeVectorEnv,
        predictor: Checkpoint[KernelPredictor],
        config: IterativeHingeConfig | None = None,
        **changes: Any,
    ) -> None:
        self.config = config = replace(config or IterativeHingeConfig(), **changes)
        self.loss_function = critic_loss(config.loss)
        simulator = env.simulator
        if not simulator.iterative:
            raise UsageError("IterativeHinge corrects codes over several steps: use BlindSRIterative-v0, or HingeDDPG")
        names = simulator.controls.names
        predictor, given = widened(predictor, names), simulator.predictor and widened(simulator.predictor, names)
        if given is None or any(
            not torch.equal(value, predictor.network.state_dict()[name].to(value.device))
            for name, value in given.network.state_dict().items()
        ):
            raise UsageError(
                f"episodes begin with reference {simulator.settings.reference!r}, not with the predictor that the "
                "agent starts from: make the environment with reference='predictor' and that predictor"
            )
        self.n_steps = simulator.horizon if config.n_steps is None else config.n_steps
        if not 1 <= self.n_steps <= simulator.horizon:
            raise UsageError(f"n_steps {self.n_steps} is outside 1..{simulator.horizon}, the episode's length")
        self.env, self.device = env, simulator.device
        torch.manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        correction, horizon = simulator.settings.correction, simulator.horizon
        shape = measured_noise_shape(simulator, config.noise, config.noise_limit, config.seed)
        self.actor = Corrector(predictor, correction, horizon, shape).to(self.device)
        self.critic = CorrectionCritic(self.actor, config.critics, config.hidden, config.dropout).to(self.device)
        self.actor_target = deepcopy(self.actor).requires_grad_(False).eval()
        self.critic_target = deepcopy(self.critic).requires_grad_(False).eval()
        self.actor_optimizer = torch.optim.Adam(self.actor.head.parameters(), config.actor_learning_rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), config.learning_rate, fused=True)
        self.memory = EpisodeMemory(
            config.buffer_size // horizon,
            horizon,
            self.actor.state_size,
            simulator.controls.length,
            simulator.degradation.width_range,
            config.normalisation,
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
            self._observation, _ = self.env.reset(seed=self.config.seed if self.steps == 0 else None)
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
                # Photographs as they are have no widths that anybody knows: they all lie in one range.
                widths = infos["final_info"].get("kernel_width", np.zeros((self.env.num_envs, 1))).mean(1)
                episodes = (torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1))
                self.memory.add(*episodes, widths)
                self.memory.measure_scales()
                self._judge(*episodes, widths)
            if self.memory.size and self.steps >= self.config.learning_starts:
                for _ in range(self.config.gradient_steps):
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
        return values.mean(0) - self.config.pessimism * values.std(0, correction=0)

    @torch.no_grad()
    def targets(self, batch: EpisodeBatch) -> Tensor:
        """What the critics are fitted to, [B]: squashed n-step returns."""
        returns, ends, discounts = n_step_returns(batch.rewards, batch.steps, self.n_steps, self.config.discount)
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
        batch = self.memory.draw(self.config.batch_size, self.rng, self.device)
        states = batch.at(batch.steps)
        actions = batch.actions[torch.arange(len(states), device=self.device), batch.steps]
        q = self.critic(self.actor, states, actions)
        target = self.targets(batch).expand_as(q)
        loss = self.loss_function(q + self.config.shift, target + self.config.shift, self.config.hinge) * len(q)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the critic loss is {loss.item()}: lower the learning rate")
        self._descend(self.critic_optimizer, self.critic, loss)
        if self.updates > self.config.warmup_updates:
            logits = self.actor.logits(states)
            actions = torch.tanh(logits)
            gain = self.value(self.critic.gain(self.actor, states, actions)).mean()
            codes = self.actor.correct(self.actor.split(states).code, actions)
            distance = self.actor.moved(states, codes).square().sum(1).mean()
            saturated = F.relu(logits.abs() - self.config.saturation).square().mean()
            self._descend(self.actor_optimizer, self.actor.head, self.config.anchor * distance + saturated - gain)
            polyak_update(self.actor.head.parameters(), self.actor_target.head.parameters(), self.config.tau)
        polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.config.tau)

    def _descend(self, optimizer: torch.optim.Optimizer, module: nn.Module, loss: Tensor) -> None:
        """One step of a module's parameters down the loss, of which no other gradient is computed."""
        parameters = list(module.parameters())
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)
        nn.utils.clip_grad_norm_(parameters, self.config.clip)
        optimizer.step()

    @torch.no_grad()
    def _judge(self, states: Tensor, actions: Tensor, rewards: Tensor, widths: np.ndarray) -> None:
        """Correlate the critics' values with returns they have not been trained on."""
        groups = group_widths(widths, self.env.simulator.degradation.width_range)
        returns = rewards.flip(1).cumsum(1).flip(1)
        target = squash(returns, self.memory.scales[torch.from_numpy(groups).long()][:, None])
        with evaluating(self.critic):
            q = self.critic(self.actor, states.flatten(0, 1), actions.flatten(0, 1)).mean(0)
        self._judged.extend(zip(q.tolist(), target.flatten().tolist(), strict=True))
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
            "episodes": self.env.state() if self._observation is not None else None,
            "extra": dict(extra or {}),
        }
        write_state(path, state)

    def load_state(self, path: str | Path) -> dict[str, Any]:
        """Take up what :meth:`save_state` wrote.

        Returns:
            Its ``extra``.

        Raises:
            MissingFileError: No such file.
            UsageError: It is damaged, or of an agent with other settings.
        """
        with reading_state(path) as state:
            for name in self._stateful:
                getattr(self, name).load_state_dict(state[name])
            self.memory.load_state(state["memory"])
            self.steps, self.updates = state["counters"]
            self.returns, self.correlation = list(state["returns"]), state["correlation"]
            self._judged = deque(((q, target) for q, target in state["judged"]), maxlen=_JUDGED)
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
