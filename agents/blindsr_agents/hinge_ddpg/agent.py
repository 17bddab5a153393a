"""HingeDDPG: DDPG for one-step episodes that improves a pretrained actor without ruining it.

Algorithm 1 of "Learning the Non-differentiable Optimization for Blind Super-Resolution" (Hui, Li, Wang, Gao, CVPR 2021)
on Stable-Baselines3's DDPG: act with mu(LR) plus noise, keep (LR, action, reward), fit the critic to the reward, climb
the critic with the actor. What is added to the printed algorithm keeps the actor from exploiting the critic's errors:

* it acts with mu plus noise from the first step on, never uniformly at random; the first rewards say by which offset
  mu is best moved in all scenes alike (:mod:`blindsr_agents.hinge_ddpg.constant`), and the critics are trained alone
  before the actor learns what depends on the scene;
* the controls beside the code keep that offset: learned scene by scene from few photographs, they are worse on others;
* noise changes the picture alike in every direction of the action space (:mod:`blindsr_agents.exploration`), and
  the anchor to where the actor began is in its units; where several actions are scored on one scene
  (``actions_per_scene`` of the vector environment) they lie in opposite pairs;
* a critic says how much better an action is than the pretrained one, which is zero there by construction, and is
  fitted to the differences between the actions on one scene as well
  (:func:`~blindsr_agents.hinge_ddpg.losses.contrast`);
* the actor climbs the mean of several critics less their disagreement, which dropout keeps from learning the scenes by
  heart, by small clipped steps, and is averaged on the way;
* rewards are scaled per range of kernel widths and squashed, so that no width rules the mean, and shifted to be
  non-negative, since the hinge cannot tell small negative rewards from none
  (see :mod:`blindsr_agents.hinge_ddpg.losses`).

Rewards must be centred per scene (``reference="predictor"``): what is left then is what the action did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blindsr_agents.exploration import measured_noise_shape, opposite_pairs
from blindsr_agents.hinge_ddpg.config import HingeDDPGConfig
from blindsr_agents.hinge_ddpg.constant import ROUNDS, best_offset
from blindsr_agents.hinge_ddpg.environment import actions_per_scene, check_spaces, fitting_simulator, pretrained_actor
from blindsr_agents.hinge_ddpg.losses import contrast, critic_loss, squash
from blindsr_agents.hinge_ddpg.policy import KernelActor, KernelCritic, KernelPolicy
from blindsr_agents.hinge_ddpg.replay import SceneBatch, SceneBuffer
from blindsr_agents.training.state import (
    check_zip,
    load_weights,
    reading_state,
    save_actor,
    save_weights,
    set_torch_generators,
    write_state,
)
from sr_env.models import Checkpoint, KernelPredictor
from sr_env.utils import torchvision_compat as _torchvision  # noqa: F401  # before stable_baselines3, which reaches it
from sr_env.utils.checks import UsageError

from stable_baselines3 import DDPG  # isort: skip
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import polyak_update, update_learning_rate

#: Scenes over which the critics' correlation with rewards not yet trained on is logged.
_JUDGED = 512


class HingeDDPG(DDPG):
    """DDPG with Algorithm 1's hinge on one-step episodes, from a pretrained actor.

    Args:
        policy: "KernelPolicy", or a subclass of it.
        env: BlindSR-v0 with ``reference="predictor"``: a :class:`~sr_env.envs.sb3.BlindSRVecEnv`, or anything that
            Stable-Baselines3 wraps.
        config: How it learns; None takes the defaults.
        predictor: Name, path or checkpoint of the pretrained actor; None takes ``predictor_x{scale}`` of the
            environment's scale.
        policy_kwargs: Further arguments of the policy.
        **kwargs: Fields of the config, which go before it, and further arguments of SB3's DDPG: train_freq,
            tensorboard_log, verbose, seed, device. ``learning_rate`` may be a schedule of SB3's.

    Attributes:
        config: As given, with the changes.
        correlation: Between the critics' values and the latest rewards, before these were trained on.

    Raises:
        UsageError: A setting is wrong, no environment or one that is not BlindSR-v0's kind, or a predictor that does
            not fit it or does not exist.

    Warns:
        UserWarning: The environment's rewards are not centred (``reference`` is not "predictor").
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"KernelPolicy": KernelPolicy}
    policy: KernelPolicy
    actor: KernelActor  # type: ignore[assignment]
    actor_target: KernelActor  # type: ignore[assignment]
    critic: KernelCritic  # type: ignore[assignment]
    critic_target: KernelCritic  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[KernelPolicy] = "KernelPolicy",
        env: Any = None,
        *,
        config: HingeDDPGConfig | None = None,
        predictor: str | Path | Checkpoint[KernelPredictor] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        own = {field.name for field in fields(HingeDDPGConfig)} & kwargs.keys()
        self.config = replace(config or HingeDDPGConfig(), **{name: kwargs.pop(name) for name in own})
        self.actions_per_scene = 1
        if env is None and _init_setup_model:
            raise UsageError("HingeDDPG needs an environment: give env=BlindSRVecEnv(BlindSRVectorEnv(...))")
        super().__init__(
            policy,
            env,
            learning_rate=self.config.learning_rate,
            buffer_size=self.config.buffer_size,
            learning_starts=max(self.config.learning_starts, self.config.constant_steps),
            batch_size=self.config.batch_size,
            tau=self.config.tau,
            gamma=self.config.gamma,
            gradient_steps=self.config.gradient_steps,
            replay_buffer_class=SceneBuffer,
            policy_kwargs={
                "n_critics": self.config.critics,
                "train_features": self.config.train_features,
                **(policy_kwargs or {}),
            },
            _init_setup_model=False,
            **kwargs,
        )
        self.rng = np.random.default_rng(self.seed)
        self.correlation = float("nan")
        self._judged: deque[tuple[float, float]] = deque(maxlen=_JUDGED)
        if _init_setup_model:  # a saved agent brings its own predictor
            check_spaces(self.observation_space, self.action_space)
            start = self.policy_kwargs["predictor"] = pretrained_actor(self.env, predictor, self.device)
            if self.config.holds_controls and start.network.code_length > start.basis.code_length:
                self.policy_kwargs["learned"] = start.basis.code_length
            self._setup_model()

    def _setup_model(self) -> None:
        predictor = self.policy_kwargs["predictor"]
        network = predictor.network
        self.replay_buffer_kwargs = {
            "description_size": network.feature_size + network.code_length,
            "normalisation": self.config.normalisation,
            "widths": (0.0, 1.0),
        }
        if self.env is not None:
            simulator = fitting_simulator(self.env, predictor, stacklevel=3)
            self.replay_buffer_kwargs["widths"] = simulator.degradation.width_range
            self.actions_per_scene = actions_per_scene(self.env, self.config.normalisation)
            if "noise_shape" not in self.policy_kwargs:  # a saved agent brings its own, which takes seconds to measure
                self.policy_kwargs["noise_shape"] = measured_noise_shape(
                    simulator, self.config.noise, self.config.noise_limit, self.seed
                )
        self.replay_buffer_kwargs["actions_per_scene"] = self.actions_per_scene
        super()._setup_model()

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Go on in another environment with as many sub-environments.

        Raises:
            UsageError: It does not fit the agent, or its sub-environments share scenes otherwise than those that the
                memory's scenes came from.

        Warns:
            UserWarning: Its rewards are not centred.
        """
        env = self._wrap_env(env, self.verbose)
        if env.num_envs != self.n_envs:
            raise UsageError(
                f"the agent's memory is made for {self.n_envs} sub-environments and the environment has "
                f"{env.num_envs}: give as many, or make a new agent"
            )
        simulator = fitting_simulator(env, self.policy_kwargs["predictor"], stacklevel=2)
        times = actions_per_scene(env, self.config.normalisation)
        if self.memory.size() == 0:
            self.memory.share_scenes(times, simulator.degradation.width_range)
        elif times != self.actions_per_scene:
            raise UsageError(
                f"the memory holds scenes with {self.actions_per_scene} action(s) each and the environment gives "
                f"{times}: set actions_per_scene={self.actions_per_scene}, or make a new agent"
            )
        self.actions_per_scene = times
        super().set_env(env, force_reset)

    @property
    def memory(self) -> SceneBuffer:
        """The replay memory."""
        assert isinstance(self.replay_buffer, SceneBuffer)
        return self.replay_buffer

    @property
    def predictor(self) -> KernelPredictor:
        """The averaged actor: what is validated and exported."""
        return self.actor_target.predictor

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Algorithm 1's exploration: mu(LR) plus noise, from the first step on; every scene is looked at once."""
        assert isinstance(self._last_obs, np.ndarray)
        times = self.actions_per_scene
        scenes = torch.as_tensor(self._last_obs[::times], device=self.device)
        self.policy.set_training_mode(False)
        with torch.no_grad():
            seen = self.critic.describe(scenes)
            features = self.actor.features(scenes) if self.config.train_features else self.critic.split(seen)[0]
            means = torch.tanh(self.actor.logits(features)).repeat_interleave(times, 0).cpu().numpy()
        self.memory.announce(seen.repeat_interleave(times, 0).cpu().numpy())
        actions = np.clip(means + self._draw_noise(len(seen), times), -1, 1).astype(np.float32)
        return actions, actions

    def _draw_noise(self, scenes: int, times: int) -> np.ndarray:
        """Noise [scenes * times, L], in opposite pairs where several actions are tried on a scene."""
        shape = self.critic.noise_shape.cpu().numpy()
        now = self.config.last_noise + (self.config.noise - self.config.last_noise) * self._current_progress_remaining
        noise: np.ndarray = now / self.config.noise * opposite_pairs(self.rng, scenes, times, len(shape)) @ shape
        if self.actor.learned is not None and self.num_timesteps >= self.config.constant_steps:
            noise[:, self.actor.learned :] = 0
        return noise

    def _store_transition(self, *args: Any, **kwargs: Any) -> None:
        """Keep what was tried; while offsets are explored around, settle them anew in every round."""
        super()._store_transition(*args, **kwargs)
        steps, now = self.config.constant_steps, self.num_timesteps
        if self._n_updates == 0 and now <= steps and now * ROUNDS // steps > (now - self.n_envs) * ROUNDS // steps:
            self._settle()

    @torch.no_grad()
    def _settle(self) -> None:
        """Begin the actor where the rewards so far say."""
        self.memory.measure_scales()
        seen, critic = self.memory.everything(), self.critic
        moves, values = critic.moved(seen.descriptions, seen.actions), squash(seen.rewards, seen.scales)
        before = torch.linalg.solve(critic.noise_shape, critic.offset)  # the shape is symmetric
        self.begin(best_offset(moves.flatten(0, 1), values.flatten(), before) @ critic.noise_shape)

    @torch.no_grad()
    def begin(self, offset: Tensor) -> None:
        """Begin the actor at the pretrained one, moved by an offset before its tanh, float32 [L]."""
        self.critic.offset.copy_(offset)
        for actor in (self.actor, self.actor_target):
            actor.begin(self.critic.pretrained, self.critic.offset)

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """Algorithm 1's updates: critics to the reward, actor up the critics.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        self.memory.measure_scales()
        self._judge(self.memory.fresh())
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.critic.optimizer)
        update_learning_rate(self.actor.optimizer, self.config.actor_learning_rate)
        loss_function = critic_loss(self.config.loss)
        critics, moving = list(self.critic.q_networks.parameters()), self._moving(self.actor)
        logs: dict[str, Tensor] = {}
        for _ in range(gradient_steps):
            self._n_updates += 1
            batch = self.memory.draw(batch_size, self.rng, images=self.config.train_features)
            q = self.critic.score(batch.descriptions, batch.actions).flatten(1)
            target = squash(batch.rewards, batch.scales).flatten().expand_as(q)
            loss = loss_function(q + self.config.shift, target + self.config.shift, self.gamma)
            logs |= {"critic_loss": loss.detach(), "q": q.detach().mean(), "target": target.mean()}
            if self.config.contrast > 0 and self.actions_per_scene > 1:
                difference = contrast(q, target, self.actions_per_scene)
                logs["contrast"] = difference.detach()
                loss = loss + self.config.contrast * difference
            self._descend(self.critic.optimizer, critics, loss * len(q))
            if self._n_updates > self.config.warmup_updates:
                logs |= self._climb(batch, moving)
        for name, value in logs.items():
            self.logger.record(f"train/{name}", value.item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if not np.isfinite(logs["critic_loss"].item()):
            raise FloatingPointError(f"the critic loss is {logs['critic_loss'].item()}: lower the learning rate")

    def _climb(self, batch: SceneBatch, moving: list[Tensor]) -> dict[str, Tensor]:
        """Algorithm 1's actor update: one step of the actor up the critics, held by the anchor."""
        features, _ = self.critic.split(batch.descriptions)
        if batch.observations is not None:
            features = self.actor.features(batch.observations)
        logits = self.actor.logits(features)
        actions = torch.tanh(logits)
        values = self.critic.score(batch.descriptions, actions)
        value = (values.mean(0) - self.config.pessimism * values.std(0, correction=0)).mean()
        moved = (actions - self.critic.begun(batch.descriptions)) @ self.critic.into_units
        distance = moved.square().sum(1).mean()
        saturated = F.relu(logits.abs() - self.config.saturation).square().mean()
        self._descend(self.actor.optimizer, moving, self.config.anchor * distance + saturated - value)
        polyak_update(moving, self._moving(self.actor_target), self.tau)
        return {"actor_value": value.detach(), "distance": distance.detach(), "saturated": saturated.detach()}

    def _moving(self, actor: KernelActor) -> list[Tensor]:
        """The tensors of an actor that are trained; averaging the frozen ones would change them by rounding."""
        pairs = zip(self.actor.parameters(), actor.parameters(), strict=True)
        return [own for trained, own in pairs if trained.requires_grad]

    def _descend(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], loss: Tensor) -> None:
        """One step of these parameters down the loss, of which no other gradient is computed."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)
        nn.utils.clip_grad_norm_(parameters, self.config.clip)
        optimizer.step()

    @torch.no_grad()
    def _judge(self, fresh: SceneBatch | None) -> None:
        """Correlate the critics' values with rewards they have not been trained on."""
        if fresh is None:
            return
        self.policy.set_training_mode(False)
        q = self.critic.score(fresh.descriptions, fresh.actions).mean(0).flatten()
        target = squash(fresh.rewards, fresh.scales).flatten()
        self._judged.extend(zip(q.tolist(), target.tolist(), strict=True))
        values = self.judged
        if values.shape[1] > 2 and values.std(1).min() > 0:
            self.correlation = float(np.corrcoef(values)[0, 1])
            self.logger.record("train/correlation", self.correlation)

    @property
    def judged(self) -> np.ndarray:
        """Critics' mean advantages and squashed rewards of the latest scenes, before these were trained on, [2, N]."""
        return np.array(self._judged).T.reshape(2, -1)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_judged"]

    # ------------------------------------------------------------------------------------------------- save and load

    def save(self, path: Any, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """Write the whole agent, but for its memory, as SB3's zip.

        The zip holds pickles. What others shall load is better written by :meth:`save_weights` or :meth:`save_actor`,
        whose files hold numbers alone.

        Args:
            path: File to write; ``.zip`` is added.
            exclude: Attributes to leave out.
            include: Attributes to keep though they are left out by default.
        """
        super().save(path, exclude, include)

    @classmethod
    def load(cls, path: Any, env: Any = None, device: torch.device | str = "auto", **kwargs: Any) -> HingeDDPG:  # type: ignore[override]
        """Read what :meth:`save` wrote.

        **Loading runs whatever code the file holds**, as with every zip of SB3's: load only your own, and take those of
        others as safetensors (:meth:`load_weights`).

        Args:
            path: The zip.
            env: Where it goes on learning; None for an agent that only acts.
            device: Where it computes.
            **kwargs: Further arguments of SB3's.

        Raises:
            UsageError: No such file, it is damaged or of another agent, or the environment does not fit the agent.

        Warns:
            UserWarning: The environment's rewards are not centred.
        """
        if isinstance(path, str | Path):
            check_zip(path, "config")
        return super().load(path, env=env, device=device, **kwargs)

    def save_weights(self, path: str | Path) -> Path:
        """Write actor, critics and their averages as safetensors, which hold numbers alone; returns the path."""
        return save_weights(path, self.policy)

    def load_weights(self, path: str | Path) -> None:
        """Take up what :meth:`save_weights` wrote of an agent with the same settings; runs no code of the file's.

        Raises:
            UsageError: No such file, it is damaged, or of an agent with other settings.
        """
        load_weights(path, self.policy)

    def save_actor(self, path: str | Path, card: Mapping[str, Any] | None = None) -> Path:
        """Write the averaged actor as a kernel predictor, which ``load_predictor`` and ``blindsr upscale`` take.

        One of more controls than the code says so in its card: ``load_predictor`` takes it where the same ``controls``
        are given, and ``blindsr upscale`` where it does not blend.

        Args:
            path: Safetensors file to write; its card, a JSON file, goes beside it.
            card: What is known of the training.

        Returns:
            The path.
        """
        return save_actor(path, self.predictor, self.policy.pretrained_predictor, card or {})

    def save_state(self, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write everything that goes on after an interruption: networks, optimisers, memory, counters, generator.

        The file is read back without running any code in it.

        Args:
            path: File to write, atomically.
            extra: Tensors, numbers, strings and containers of them to keep beside.
        """
        state = {
            "policy": self.policy.state_dict(),
            "actor_optimizer": self.actor.optimizer.state_dict(),
            "critic_optimizer": self.critic.optimizer.state_dict(),
            "memory": self.memory.state(),
            "steps": self.num_timesteps,
            "updates": self._n_updates,
            "episodes": self._episode_num,
            "generator": self.rng.bit_generator.state,
            "judged": list(self._judged),
            "correlation": self.correlation,
            "extra": dict(extra or {}),
        }
        write_state(path, state)

    def load_state(self, path: str | Path) -> dict[str, Any]:
        """Take up what :meth:`save_state` wrote.

        Returns:
            Its ``extra``.

        Raises:
            UsageError: No such file, or it is damaged, or of an agent with other settings.
        """
        with reading_state(path) as state:
            self.policy.load_state_dict(state["policy"])
            self.actor.optimizer.load_state_dict(state["actor_optimizer"])
            self.critic.optimizer.load_state_dict(state["critic_optimizer"])
            self.memory.load_state(state["memory"])
            self.rng.bit_generator.state = state["generator"]
            set_torch_generators(state["torch_generators"])
            self.num_timesteps, self._n_updates = state["steps"], state["updates"]
            self._episode_num = state["episodes"]
            self._judged = deque(
                ((q, target) for q, target in state.get("judged", ())), maxlen=_JUDGED
            )  # states of before had none
            self.correlation = state.get("correlation", float("nan"))
            extra: dict[str, Any] = state["extra"]
        return extra
