"""An actor-critic in one file, plain torch on Gymnasium's vector interface, in the manner of CleanRL.

    python examples/actor_critic_torch.py --steps 4000

Episodes have one step, so that the return is the reward and the critic estimates what a scene is worth on average.
The actor is a Gaussian over kernel codes whose mean and spread are trained; rewards are used for several epochs under
PPO's clipped objective ("Proximal Policy Optimization Algorithms", Schulman et al., 2017, equation 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import gymnasium as gym
import numpy as np
import torch
from blindsr_agents.stock import BeforeAfter, LearningSettings, SceneFeatures
from torch import Tensor, nn
from torch.distributions import Normal

from sr_env.envs.vector import BlindSRVectorEnv
from sr_env.utils.script import run_script


@dataclass
class Settings(LearningSettings):
    """Train an actor-critic in plain torch.

    Attributes:
        envs: Sub-environments in one batch.
        rollout: Batches of scenes between two trainings.
        epochs: Passes over them.
        minibatch: Scenes per update.
        hidden: Width of the hidden layers.
        learning_rate: Of both networks, at the start; it falls to zero.
        spread: Standard deviation of the actions at the start.
        clip: Clipping range of the probability ratio.
        max_gradient: Norm that gradients are clipped to.
    """

    envs: int = 16
    rollout: int = 8
    epochs: int = 8
    minibatch: int = 32
    hidden: int = 64
    learning_rate: float = 1e-3
    spread: float = 0.3
    clip: float = 0.2
    max_gradient: float = 0.5


class ActorCritic(nn.Module):
    """Two small networks on the description of a scene, and the spread of the actions.

    Args:
        features: Length F of a description.
        actions: Length L of an action.
        hidden: Width of the hidden layers.
        spread: Standard deviation of the actions at the start.
    """

    def __init__(self, features: int, actions: int, hidden: int, spread: float) -> None:
        super().__init__()
        last = nn.Linear(hidden, actions)
        self.actor = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), last)
        self.critic = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.log_spread = nn.Parameter(torch.full((actions,), float(np.log(spread))))
        # The first actor names the mean kernel, whatever it sees.
        nn.init.orthogonal_(last.weight, 0.01)
        nn.init.zeros_(last.bias)

    def policy(self, scenes: Tensor) -> Normal:
        """Descriptions [B, F] -> distributions of actions [B, L]."""
        return Normal(self.actor(scenes), self.log_spread.exp())

    def value(self, scenes: Tensor) -> Tensor:
        """Descriptions [B, F] -> values [B]."""
        values: Tensor = self.critic(scenes).squeeze(-1)
        return values


def learn(agent: ActorCritic, envs: gym.vector.VectorEnv, describe: SceneFeatures, settings: Settings) -> int:
    """Train for ``settings.steps`` environment steps, in whole rollouts; returns the steps taken."""
    device = agent.log_spread.device
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate, eps=1e-5)
    rounds = -(-settings.steps // (settings.envs * settings.rollout))

    def see(images: np.ndarray) -> Tensor:
        return torch.from_numpy(describe(images)).to(device)

    scene = see(envs.reset(seed=settings.seed)[0])
    for number in range(rounds):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - number / rounds)
        seen, acted, paid = [], [], []
        for _ in range(settings.rollout):
            with torch.no_grad():
                action = agent.policy(scene).sample()
            # Only what the environment gets is clipped: the probabilities are those of what was drawn.
            images, reward, *_ = envs.step(action.clamp(-1, 1).cpu().numpy())
            seen.append(scene)
            acted.append(action)
            paid.append(torch.as_tensor(reward, dtype=torch.float32, device=device))
            scene = see(images)  # the next episode's: every episode has ended
        update(agent, optimizer, torch.cat(seen), torch.cat(acted), torch.cat(paid), settings)
    return rounds * settings.envs * settings.rollout


def update(
    agent: ActorCritic,
    optimizer: torch.optim.Optimizer,
    scenes: Tensor,
    actions: Tensor,
    rewards: Tensor,
    settings: Settings,
) -> None:
    """Several epochs on descriptions [B, F], actions [B, L] and rewards [B]."""
    with torch.no_grad():
        old = agent.policy(scenes).log_prob(actions).sum(1)
        advantages = rewards - agent.value(scenes)
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(scenes), device=scenes.device).split(settings.minibatch):
            ratio = (agent.policy(scenes[rows]).log_prob(actions[rows]).sum(1) - old[rows]).exp()
            clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            actor_loss = -torch.min(ratio * advantages[rows], clipped * advantages[rows]).mean()
            critic_loss = (agent.value(scenes[rows]) - rewards[rows]).square().mean()
            optimizer.zero_grad()
            (actor_loss + 0.5 * critic_loss).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), settings.max_gradient)
            optimizer.step()


def main(settings: Settings) -> BeforeAfter:
    """Train, test and print."""
    torch.manual_seed(settings.seed)
    held_out = settings.held_out()
    envs = gym.make_vec(
        "BlindSR-v0",
        num_envs=settings.envs,
        vectorization_mode="vector_entry_point",
        **settings.environment(),
    )
    simulator = cast(BlindSRVectorEnv, envs.unwrapped).simulator
    describe = SceneFeatures.of(simulator, settings.predictor)
    agent = ActorCritic(describe.space.shape[0], simulator.controls.length, settings.hidden, settings.spread)
    agent.to(simulator.device)

    @torch.no_grad()
    def act(images: np.ndarray) -> np.ndarray:
        scenes = torch.from_numpy(describe(images)).to(simulator.device)
        return agent.policy(scenes).mean.clamp(-1, 1).cpu().numpy()

    outcome = BeforeAfter.of(held_out, act, lambda: learn(agent, envs, describe, settings))
    print(outcome.sentence(f"actor-critic in torch, seed {settings.seed}"))
    envs.close()
    return outcome


if __name__ == "__main__":
    run_script(Settings, main, threads="one")
