"""HingeDDPG: DDPG for one-step episodes that improves a pretrained actor without ruining it.

Algorithm 1 of "Learning the Non-differentiable Optimization for Blind Super-Resolution" (Hui, Li, Wang, Gao, CVPR 2021)
on Stable-Baselines3's DDPG: act with mu(LR) plus noise, keep (LR, action, reward), fit the critic to the reward, climb
the critic with the actor. What is added to the printed algorithm keeps the actor from exploiting the critic's errors:

* it acts with mu plus noise from the first step on, never uniformly at random, and the critics are trained alone first;
* noise changes the picture alike in every direction of the action space (:mod:`blindsr_agents.exploration`), and the
  anchor to
  the pretrained code is in its units; where several actions are scored on one scene (``actions_per_scene`` of the
  vector environment) they lie in opposite pairs;
* a critic says how much better an action is than the pretrained one, which is zero there by construction, and is
  fitted to the differences between the actions on one scene as well (:func:`contrast`);
* the actor climbs the mean of several critics less their disagreement, which dropout keeps from learning the scenes by
  heart, by small clipped steps, and is averaged on the way;
* rewards are scaled per range of kernel widths and squashed, so that no width rules the mean, and shifted to be
  non-negative, since the hinge cannot tell small negative rewards from none (see :func:`squash` and
  :mod:`blindsr_agents.hinge_ddpg.losses`).

Rewards must be centred per scene (``reference="predictor"``): what is left then is what the action did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from blindsr_agents.exploration import measured_noise_shape, opposite_pairs
from blindsr_agents.hinge_ddpg.losses import critic_loss
from blindsr_agents.hinge_ddpg.policy import KernelActor, KernelCritic, KernelPolicy
from sr_env.utils import torchvision_compat as _torchvision  # noqa: F401  # before stable_baselines3, whose imports reach torchvision

from stable_baselines3 import DDPG  # isort: skip
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update, update_learning_rate

from sr_env.models.checkpoint import Checkpoint, load_predictor
from sr_env.models.predictor import KernelPredictor
from sr_env.utils.checks import check_choice
from sr_env.utils.files import atomic_write

#: Squashed rewards are clipped to this magnitude, and shifted by it.
REWARD_CLIP = 3.0
Normalisation = Literal["scene", "width", "all", "none"]
NORMALISATIONS: tuple[str, ...] = ("scene", "width", "all", "none")
#: Ranges of kernel widths whose rewards have a scale of their own.
_GROUPS = 8
#: Scenes over which the critics' correlation with rewards not yet trained on is told.
_JUDGED = 512


class SceneBatch(NamedTuple):
    """A batch from the memory.

    Attributes:
        observations: LR images, uint8 [B, 3, h, w], or None where they were not asked for.
        descriptions: [B, D].
        actions: [B, L].
        rewards: As the environment gave them, [B].
        scales: What to divide them by, [B].
    """

    observations: Tensor | None
    descriptions: Tensor
    actions: Tensor
    rewards: Tensor
    scales: Tensor


def squash(rewards: Tensor, scale: Tensor | float) -> Tensor:
    """What the critics are fitted to: ``asinh(r / scale)``, clipped to [-REWARD_CLIP, REWARD_CLIP].

    In a one-step episode any increasing function of the reward has the same best action in every scene. This one, about
    linear up to ``scale`` and logarithmic beyond, keeps the scenes with the largest rewards (in practice those of one
    kernel width) from ruling the mean, and a reward of zero, which is the pretrained actor's, apart from small ones.
    """
    return torch.asinh(rewards / scale).clamp(-REWARD_CLIP, REWARD_CLIP)


def contrast(q: Tensor, wanted: Tensor, times: int) -> Tensor:
    """How badly critics tell the actions on one scene apart: mean Huber loss of their differences, in units of these.

    Once the actor has moved, most of the reward's variance is how well the move suits a scene, much of which no critic
    can see in the LR image. It is the same for all actions on that scene, and the actor climbs differences.

    Args:
        q: Advantages by every critic, [n_critics, B].
        wanted: What they should be, of the same shape.
        times: Neighbours that share a scene, a divisor of B.
    """
    told, true = (x.unflatten(-1, (-1, times)) - x.unflatten(-1, (-1, times)).mean(-1, True) for x in (q, wanted))
    size = true.square().mean().sqrt().clamp_min(1e-6)
    return F.smooth_l1_loss(told / size, true / size)


def group_widths(widths: np.ndarray, width_range: tuple[float, float]) -> np.ndarray:
    """Which of the equal ranges of ``width_range`` that have a reward scale each kernel width lies in, uint8."""
    return np.digitize(widths, np.linspace(*width_range, _GROUPS + 1)[1:-1]).astype(np.uint8)


def reward_scales(rewards: np.ndarray, groups: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """Median magnitude of the rewards per group of widths; a group seen rarely takes the median over all.

    Args:
        rewards: Any shape.
        groups: Of the same shape: see :func:`group_widths`.
        normalisation: "width" or "scene"; "all" gives the median over all everywhere, "none" ones.

    Returns:
        float32, one per group.
    """
    if normalisation == "none":
        return np.ones(_GROUPS, dtype=np.float32)
    sizes = np.abs(rewards).ravel()
    scales = np.full(_GROUPS, max(float(np.median(sizes)), 1e-8), dtype=np.float32)
    if normalisation in ("width", "scene"):
        for group in range(_GROUPS):
            own = sizes[groups.ravel() == group]
            if len(own) >= 32:
                scales[group] = max(float(np.median(own)), 1e-8)
    return scales


@contextmanager
def reading_state(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read what ``save_state`` wrote, and tell a failure to take it up as a mistake of the file's.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is damaged, or of an agent with other settings.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"nothing to resume: {path} does not exist; start without --resume")
    try:
        yield torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged or foreign file
        raise ValueError(
            f"cannot resume from {path} ({type(error).__name__}: {error}): it is damaged or of other settings; "
            "delete it to start anew"
        ) from error


def torch_generators() -> list[Tensor]:
    """States of torch's global generators, which dropout draws from."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def set_torch_generators(states: Sequence[Tensor]) -> None:
    """Take up what :func:`torch_generators` gave; those of GPUs only where there are as many."""
    own, *others = states
    torch.set_rng_state(own)
    if len(others) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(others)


class SceneBuffer(ReplayBuffer):
    """Replay memory of one-step episodes: LR, its description, action, reward, and no next observation.

    Args:
        buffer_size: Scenes kept; the oldest give way.
        observation_space: uint8 images, channels first.
        action_space: Actions.
        device: Where samples go.
        n_envs: Sub-environments, which add their scenes together.
        description_size: Length D of a scene's description.
        widths: Range of the environment's kernel widths, in HR pixels.
        normalisation: Whether rewards are scaled by their median magnitude per range of widths ("width"), over "all"
            scenes, or not at all ("none"); or by the root mean square of those on the same scene ("scene"), but by no
            less than a tenth of the median of its range of widths.
        actions_per_scene: Neighbouring sub-environments that share a scene.
        **kwargs: SB3's further arguments, which have no meaning here.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        *,
        description_size: int,
        widths: tuple[float, float],
        normalisation: Normalisation = "width",
        actions_per_scene: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs,
            optimize_memory_usage=True,  # in SB3's class this means: no array of next observations
            handle_timeout_termination=False,
        )
        self.descriptions = np.zeros((self.buffer_size, n_envs, description_size), dtype=np.float32)
        self.groups = np.zeros((self.buffer_size, n_envs), dtype=np.uint8)
        self.scales = np.ones(_GROUPS, dtype=np.float32)
        self._widths = widths
        self._normalisation, self._times = normalisation, actions_per_scene
        self._upcoming: np.ndarray | None = None
        self._fresh: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes taken when full."""
        return sum(getattr(self, name).nbytes for name in ("observations", *self._columns))

    _columns: ClassVar[tuple[str, ...]] = ("descriptions", "groups", "actions", "rewards", "dones", "timeouts")

    def announce(self, descriptions: np.ndarray) -> None:
        """Tell the descriptions, float32 [n_envs, D], of the scenes that the next :meth:`add` brings."""
        self._upcoming = descriptions

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Keep one scene per sub-environment.

        Raises:
            ValueError: An episode goes on after the step.
            RuntimeError: The scenes' descriptions were not announced.
        """
        if self._upcoming is None:
            raise RuntimeError("scenes are kept with their descriptions: announce() them first")
        if not np.all(done):
            raise ValueError("HingeDDPG learns episodes of one step, and one went on: use BlindSR-v0")
        self.observations[self.pos] = obs
        self.actions[self.pos] = action
        self.rewards[self.pos] = reward
        self.dones[self.pos] = done
        self.descriptions[self.pos], self._upcoming = self._upcoming, None
        widths = np.array([np.mean(info["kernel_width"]) for info in infos])
        self.groups[self.pos] = group_widths(widths, self._widths)
        self._fresh.append(self.pos)
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def fresh(self) -> SceneBatch | None:
        """The scenes added since the last call, without their images."""
        if not self._fresh:
            return None
        rows = np.unique(np.array(self._fresh))
        self._fresh.clear()
        return self._batch(np.repeat(rows, self.n_envs), np.tile(np.arange(self.n_envs), len(rows)), images=False)

    def draw(self, batch_size: int, rng: np.random.Generator, images: bool) -> SceneBatch:
        """Draw scenes with replacement, each with all actions tried on it in a row; their LR images where asked for."""
        scenes = max(1, batch_size // self._times)
        rows = rng.integers(self.size(), size=scenes).repeat(self._times)
        first = rng.integers(self.n_envs // self._times, size=scenes) * self._times
        return self._batch(rows, (first[:, None] + np.arange(self._times)).ravel(), images)

    def measure_scales(self) -> None:
        """Renew the scales of the rewards from what is kept; a group seen rarely takes the median over all."""
        kept = slice(self.size())
        self.scales = reward_scales(self.rewards[kept], self.groups[kept], self._normalisation)

    def _batch(self, rows: np.ndarray, columns: np.ndarray, images: bool) -> SceneBatch:
        return SceneBatch(
            self.to_torch(self.observations[rows, columns]) if images else None,
            self.to_torch(self.descriptions[rows, columns]),
            self.to_torch(self.actions[rows, columns]),
            self.to_torch(self.rewards[rows, columns]),
            self.to_torch(self._scales(rows, columns)),
        )

    def _scales(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """What to divide rewards by, float32 [B]."""
        scales: np.ndarray = self.scales[self.groups[rows, columns]]
        if self._normalisation != "scene":
            return scales
        first = columns // self._times * self._times
        together = self.rewards[rows[:, None], first[:, None] + np.arange(self._times)]
        return np.maximum(np.sqrt(np.square(together).mean(1)), 0.1 * scales)

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        """SB3's interface: the next observation is the observation, since every episode ended."""
        columns = np.random.randint(0, self.n_envs, size=len(batch_inds))  # noqa: NPY002  # as SB3 draws
        observations = self.to_torch(self.observations[batch_inds, columns])
        done, reward = (self.to_torch(a[batch_inds, columns].reshape(-1, 1)) for a in (self.dones, self.rewards))
        return ReplayBufferSamples(
            observations, self.to_torch(self.actions[batch_inds, columns]), observations, done, reward
        )

    def state(self) -> dict[str, Any]:
        """The scenes kept, as tensors."""
        kept = {name: torch.from_numpy(getattr(self, name)[: self.size()]) for name in ("observations", *self._columns)}
        return {"pos": self.pos, "full": self.full, "fresh": list(self._fresh), **kept}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            ValueError: The sizes differ.
        """
        self.pos, self.full, self._fresh = state["pos"], state["full"], list(state["fresh"])
        for name in ("observations", *self._columns):
            own, kept = getattr(self, name), state[name].numpy()
            if own.shape[1:] != kept.shape[1:] or len(kept) != self.size():
                raise ValueError(
                    f"the memory kept {name} of shape {list(kept.shape)}, now {list(own.shape)}: resume with the "
                    "number of environments, patch size and buffer size it was begun with"
                )
            own[: len(kept)] = kept


class HingeDDPG(DDPG):
    """DDPG with Algorithm 1's hinge on one-step episodes, from a pretrained actor.

    Args:
        policy: "KernelPolicy", or a subclass of it.
        env: BlindSR-v0: a :class:`~sr_env.envs.sb3.BlindSRVecEnv`, or anything Stable-Baselines3 wraps. None where a
            saved agent is only to predict.
        predictor: Name, path or checkpoint of the pretrained actor; None takes ``predictor_x{scale}`` of the
            environment's scale.
        learning_rate: Of the critics, a number or SB3 schedule.
        actor_learning_rate: Of the actor.
        buffer_size: Scenes in the replay memory (7 kB each at LR 48).
        learning_starts: Environment steps before the first update; unlike in stock SB3, mu acts during them too.
        batch_size: Scenes per update.
        gamma: Weight of the hinge in the critic loss; nothing is discounted in one step.
        gradient_steps: Updates per ``train_freq`` environment steps.
        loss: Critic loss, one of ``printed``, ``hinge_l2``, ``hinge_l1``, ``hinge_margin``, ``mse``.
        noise: What exploration noise changes the picture by in each direction of the action space, root mean square in
            grey levels of 255.
        noise_final: The same at the end of training; it changes linearly. None keeps it constant.
        noise_limit: Standard deviation of the noise in action units that no direction exceeds at first, however little
            it changes the picture.
        warmup_updates: Updates of the critics alone before the actor moves.
        anchor: Weight of the squared distance from the pretrained code, in units of the noise.
        saturation: The actor's value before its tanh beyond which it is penalised.
        clip: Gradient norm above which gradients are scaled down.
        tau: Polyak rate of the averaged actor (``actor_target``).
        train_features: Train the actor's convolutions too, not only the layers after its pooling. Much slower: the
            latter works on descriptions computed once per scene.
        n_critics: Size of the ensemble.
        pessimism: The actor climbs the critics' mean less this many of their standard deviations.
        normalisation: Rewards are divided by their median magnitude per range of kernel widths ("width"), over "all"
            scenes, or not ("none"), or by the root mean square of those on the same scene ("scene"), which needs
            several actions on each.
        contrast: Weight of :func:`contrast` in the critic loss, where several actions are tried on each scene.
        shift: What is added to the squashed rewards and to the critics' advantages before the critic loss;
            ``REWARD_CLIP`` makes both non-negative, 0 leaves the hinge to act on what is negative.
        policy_kwargs: Further arguments of the policy.
        **kwargs: Further arguments of SB3's DDPG: train_freq, tensorboard_log, verbose, seed, device.

    Attributes:
        correlation: Between the critics' values and the latest rewards, before these were trained on.

    Raises:
        ValueError: An unknown loss or normalisation, noise that is not positive, an environment that is not
            BlindSR-v0's kind, or a predictor that does not fit it.
        FileNotFoundError: No such predictor.
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
        predictor: str | Path | Checkpoint[KernelPredictor] | None = None,
        learning_rate: Any = 1e-3,
        actor_learning_rate: float = 5e-5,
        buffer_size: int = 20_000,
        learning_starts: int = 512,
        batch_size: int = 256,
        gamma: float = 0.99,
        gradient_steps: int = 8,
        loss: str = "hinge_l2",
        noise: float = 0.7,
        noise_final: float | None = None,
        noise_limit: float = 0.3,
        warmup_updates: int = 500,
        anchor: float = 0.05,
        saturation: float = 2.0,
        clip: float = 1.0,
        tau: float = 0.005,
        train_features: bool = False,
        n_critics: int = 4,
        pessimism: float = 1.0,
        normalisation: Normalisation = "width",
        contrast: float = 3.0,
        shift: float = REWARD_CLIP,
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        critic_loss(loss)  # an unknown name shows here
        check_choice("normalisation", normalisation, NORMALISATIONS)
        self.noise_final, self.noise_limit = noise if noise_final is None else noise_final, noise_limit
        self.pessimism, self.normalisation, self.contrast, self.shift = pessimism, normalisation, contrast, shift
        self.actions_per_scene = 1
        self.loss, self.noise, self.anchor, self.saturation, self.clip = loss, noise, anchor, saturation, clip
        self.actor_learning_rate, self.warmup_updates, self.train_features = (
            actor_learning_rate,
            warmup_updates,
            train_features,
        )
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            gradient_steps=gradient_steps,
            replay_buffer_class=SceneBuffer,
            policy_kwargs={
                "n_critics": n_critics,
                "train_features": train_features,
                **(policy_kwargs or {}),
            },
            _init_setup_model=False,
            **kwargs,
        )
        self.rng = np.random.default_rng(self.seed)
        self.correlation = float("nan")
        self._judged: deque[tuple[float, float]] = deque(maxlen=_JUDGED)
        if self.env is not None:
            self.policy_kwargs["predictor"] = self._fitting_predictor(predictor)
            simulator = self.env.get_attr("simulator")[0]
            self.policy_kwargs["noise_shape"] = measured_noise_shape(simulator, noise, noise_limit, self.seed)
        if _init_setup_model:
            self._setup_model()

    def _fitting_predictor(
        self, predictor: str | Path | Checkpoint[KernelPredictor] | None
    ) -> Checkpoint[KernelPredictor]:
        """Load the pretrained actor and check it, and the spaces, against the environment."""
        assert self.env is not None
        if not isinstance(self.observation_space, spaces.Box) or len(self.observation_space.shape) != 3:
            raise ValueError(
                "HingeDDPG takes one-step episodes with an image to look at, not "
                f"{type(self.observation_space).__name__} observations: use BlindSR-v0, or for BlindSRIterative-v0 "
                "IterativeHinge (agents/blindsr_agents/iterative/agent.py)"
            )
        box = self.action_space
        if not isinstance(box, spaces.Box) or not (np.all(box.low == -1) and np.all(box.high == 1)):
            raise ValueError(f"HingeDDPG takes actions in [-1, 1], not {box}: use BlindSR-v0")
        simulator = self.env.get_attr("simulator")[0]
        if isinstance(predictor, Checkpoint):
            if predictor.basis.digest != simulator.basis.digest:
                raise ValueError(
                    f"the predictor speaks kernel basis {predictor.basis.digest}, the environment's renderer "
                    f"{simulator.basis.digest}: use a predictor trained for this renderer's basis"
                )
            return predictor
        name = predictor or simulator.settings.predictor or f"predictor_x{simulator.scale}"
        return load_predictor(name, scale=simulator.scale, basis=simulator.basis, device=self.device)

    def _setup_model(self) -> None:
        network = self.policy_kwargs["predictor"].network
        self.replay_buffer_kwargs = {
            "description_size": network.feature_size + network.code_length,
            "normalisation": self.normalisation,
            "widths": (0.0, 1.0),
        }
        if self.env is not None:
            self.replay_buffer_kwargs["widths"] = self.env.get_attr("simulator")[0].degradation.width_range
            if self.env.has_attr("actions_per_scene"):
                self.actions_per_scene = int(self.env.get_attr("actions_per_scene")[0])
            if self.normalisation == "scene" and self.actions_per_scene == 1:
                raise ValueError(
                    'normalisation "scene" compares several actions on a scene and the environment has one: '
                    "give BlindSRVectorEnv(actions_per_scene=...), or another normalisation"
                )
            self.replay_buffer_kwargs["actions_per_scene"] = self.actions_per_scene
        super()._setup_model()

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
            told = self.critic.describe(scenes)
            features = self.actor.features(scenes) if self.train_features else self.critic.split(told)[0]
            means = torch.tanh(self.actor.logits(features)).repeat_interleave(times, 0).cpu().numpy()
        self.memory.announce(told.repeat_interleave(times, 0).cpu().numpy())
        actions = np.clip(means + self._draw_noise(len(told), times), -1, 1).astype(np.float32)
        return actions, actions

    def _draw_noise(self, scenes: int, times: int) -> np.ndarray:
        """Noise [scenes * times, L], in opposite pairs where several actions are tried on a scene."""
        shape = self.critic.noise_shape.cpu().numpy()
        now = self.noise_final + (self.noise - self.noise_final) * self._current_progress_remaining
        noise: np.ndarray = now / self.noise * opposite_pairs(self.rng, scenes, times, len(shape)) @ shape
        return noise

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """Algorithm 1's updates: critics to the reward, actor up the critics.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        self.memory.measure_scales()
        self._judge(self.memory.fresh())
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.critic.optimizer)
        update_learning_rate(self.actor.optimizer, self.actor_learning_rate)
        loss_function = critic_loss(self.loss)
        logs: dict[str, Tensor] = {}
        for _ in range(gradient_steps):
            self._n_updates += 1
            batch = self.memory.draw(batch_size, self.rng, images=self.train_features)
            q = self.critic.score(batch.descriptions, batch.actions)
            wanted = squash(batch.rewards, batch.scales).expand_as(q)
            loss = loss_function(q + self.shift, wanted + self.shift, self.gamma)
            logs |= {"critic_loss": loss, "q": q.mean(), "target": wanted.mean()}
            if self.contrast > 0 and self.actions_per_scene > 1:
                logs["contrast"] = contrast(q, wanted, self.actions_per_scene)
                loss = loss + self.contrast * logs["contrast"]
            self._descend(self.critic, loss * len(q))
            if self._n_updates > self.warmup_updates:
                logs |= self._climb(batch)
        for name, value in logs.items():
            self.logger.record(f"train/{name}", value.item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if not np.isfinite(logs["critic_loss"].item()):
            raise FloatingPointError(f"the critic loss is {logs['critic_loss'].item()}: lower the learning rate")

    def _climb(self, batch: SceneBatch) -> dict[str, Tensor]:
        """Algorithm 1's actor update: one step of the actor up the critics, held by the anchor."""
        features, _ = self.critic.split(batch.descriptions)
        if batch.observations is not None:
            features = self.actor.features(batch.observations)
        logits = self.actor.logits(features)
        actions = torch.tanh(logits)
        values = self.critic.score(batch.descriptions, actions)
        value = (values.mean(0) - self.pessimism * values.std(0, correction=0)).mean()
        distance = self.critic.moved(batch.descriptions, actions).square().sum(1).mean()
        saturated = F.relu(logits.abs() - self.saturation).square().mean()
        self._descend(self.actor, self.anchor * distance + saturated - value)
        pairs = zip(self.actor.parameters(), self.actor_target.parameters(), strict=True)
        # Averaging what is frozen would change it by rounding.
        moving, averages = zip(*[pair for pair in pairs if pair[0].requires_grad], strict=True)
        polyak_update(moving, averages, self.tau)
        return {"actor_value": value, "distance": distance, "saturated": saturated}

    def _descend(self, module: KernelActor | KernelCritic, loss: Tensor) -> None:
        module.optimizer.zero_grad(set_to_none=True)
        # The actor's loss also reaches the critics' weights, whose gradients are cleared before their own step.
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), self.clip)
        module.optimizer.step()

    @torch.no_grad()
    def _judge(self, fresh: SceneBatch | None) -> None:
        """Correlate the critics' values with rewards they have not been trained on."""
        if fresh is None:
            return
        self.policy.set_training_mode(False)
        q = self.critic.score(fresh.descriptions, fresh.actions).mean(0)
        wanted = squash(fresh.rewards, fresh.scales)
        self._judged.extend(zip(q.tolist(), wanted.tolist(), strict=True))
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

    # --------------------------------------------------------------------------------------------------------- resume

    def save_state(self, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write everything that goes on after an interruption: networks, optimisers, memory, counters, generator.

        Unlike :meth:`save`, whose zip holds pickled settings, the file is read back without running any code in it.

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
            "torch_generators": torch_generators(),  # the critics' dropout
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
            self.policy.load_state_dict(state["policy"])
            self.actor.optimizer.load_state_dict(state["actor_optimizer"])
            self.critic.optimizer.load_state_dict(state["critic_optimizer"])
            self.memory.load_state(state["memory"])
            self.rng.bit_generator.state = state["generator"]
            set_torch_generators(state["torch_generators"])
            self.num_timesteps, self._n_updates = state["steps"], state["updates"]
            self._episode_num = state["episodes"]
            extra: dict[str, Any] = state["extra"]
        return extra
