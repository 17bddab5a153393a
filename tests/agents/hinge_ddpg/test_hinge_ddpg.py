"""The agent: critic losses against hand-derived values, policy, memory, learning, selection, and the script."""

from __future__ import annotations

import math
import signal
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from blindsr_agents.evaluation.scene_sets import FixedScenes, Selection
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.hinge_ddpg import REWARD_CLIP, HingeDDPG, SceneBuffer, contrast, squash
from blindsr_agents.hinge_ddpg.losses import CRITIC_LOSSES, critic_loss
from blindsr_agents.hinge_ddpg.policy import KernelCritic
from blindsr_agents.training.report import verdict
from train_ddpg import Settings, main

from sr_env.degradation import load_basis
from sr_env.envs.sb3 import BlindSRVecEnv
from sr_env.envs.vector import BlindSRIterativeVectorEnv, BlindSRVectorEnv
from sr_env.models import AMNet
from sr_env.models.checkpoint import load_predictor, save_checkpoint
from sr_env.models.predictor import KernelPredictor
from sr_env.simulator import Simulator, SimulatorSettings

GAMMA = 0.9
PATCH = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Paths of a tiny random renderer and predictor."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    basis = load_basis()
    renderer = save_checkpoint(folder / "r.safetensors", AMNet(scale=4, channels=8, blocks=1), basis, 4, {})
    predictor = save_checkpoint(folder / "p.safetensors", KernelPredictor(channels=8, hidden=16), basis, 4, {})
    return str(renderer), str(predictor)


def photos(count: int = 3, size: tuple[int, int] = (96, 160)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def settings(weights: tuple[str, str], **changes: Any) -> dict[str, Any]:
    renderer, predictor = weights
    common = {"photos": photos(), "patch_size": PATCH, "renderer": renderer, "predictor": predictor, "device": "cpu"}
    return {**common, "reference": "predictor", **changes}


Make = Callable[..., HingeDDPG]


@pytest.fixture
def make(weights: tuple[str, str]) -> Make:
    """Builds a small agent on a vector environment of four."""

    def build(env_changes: dict[str, Any] | None = None, **changes: Any) -> HingeDDPG:
        env = BlindSRVecEnv(BlindSRVectorEnv(4, **settings(weights, **(env_changes or {}))))
        small: dict[str, Any] = {
            "predictor": weights[1],
            "buffer_size": 64,
            "learning_starts": 8,
            "batch_size": 16,
            "gradient_steps": 2,
            "warmup_updates": 2,
            "critics": 2,
            "policy_kwargs": {"hidden": 64, "dropout": 0.0},
            "seed": 0,
            "device": "cpu",
        }
        return HingeDDPG(env=env, **{**small, **changes})

    return build


# -------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Q = (2, -1), r = (1, -3), gamma = 0.9. Hinge terms max(0, -gamma Q) = (0, 0.9); r - Q = (-1, -2).
        ("printed", ((0 - 1) + (0.9 - 2)) / 2),
        ("hinge_l2", ((0 + 1) + (0.9 + 4)) / 2),
        ("hinge_l1", ((0 + 1) + (0.9 + 2)) / 2),
        ("hinge_margin", (0 + 0) / 2),  # 1 - 1.9 * 2 < 0; -3 + 1.9 < 0
        ("mse", (1 + 4) / 2),
    ],
)
def test_losses_by_hand(name: str, expected: float) -> None:
    q, r = torch.tensor([2.0, -1.0]), torch.tensor([1.0, -3.0])
    assert critic_loss(name)(q, r, GAMMA).item() == pytest.approx(expected, abs=1e-6)


def test_margin_by_hand() -> None:
    assert critic_loss("hinge_margin")(torch.tensor([0.5]), torch.tensor([2.0]), GAMMA).item() == pytest.approx(1.05)


@pytest.mark.parametrize("reward", [-5.0, 0.0, 7.0])
def test_printed_gradient_ignores_the_reward(reward: float) -> None:
    q = torch.tensor([-2.0, -0.1, 0.1, 3.0], requires_grad=True)
    (critic_loss("printed")(q, torch.full_like(q, reward), GAMMA) * len(q)).backward()
    assert q.grad is not None
    assert q.grad.tolist() == pytest.approx([-1 - GAMMA, -1 - GAMMA, -1, -1])


@pytest.mark.parametrize(
    ("reward", "minimum"), [(1.5, 1.5), (0.0, 0.0), (-0.2, 0.0), (-0.44, 0.0), (-1.0, -1.0 + GAMMA / 2)]
)
def test_hinge_l2_minimum(reward: float, minimum: float) -> None:
    grid = torch.linspace(-3, 3, 6001)
    values = torch.stack([critic_loss("hinge_l2")(q, torch.tensor(reward), GAMMA) for q in grid])
    assert grid[values.argmin()].item() == pytest.approx(minimum, abs=2e-3)


@pytest.mark.parametrize("reward", [2.0, -1.0])
def test_hinge_l1_minimum_is_the_reward(reward: float) -> None:
    grid = torch.linspace(-3, 3, 6001)
    values = torch.stack([critic_loss("hinge_l1")(q, torch.tensor(reward), GAMMA) for q in grid])
    assert grid[values.argmin()].item() == pytest.approx(reward, abs=2e-3)


def test_unknown_loss_lists_the_names(make: Make) -> None:
    with pytest.raises(ValueError, match=r"'huber'.*printed, hinge_l2, hinge_l1, hinge_margin, mse"):
        make(loss="huber")


# ----------------------------------------------------------------------------------------------------- policy, critics


def test_actor_starts_as_the_predictor_and_exports_as_one(make: Make, weights: tuple[str, str], tmp_path: Path) -> None:
    agent = make()
    original = load_predictor(weights[1])
    env = agent.get_env()
    assert env is not None
    observation = env.reset()  # channels first
    assert isinstance(observation, np.ndarray)
    images = torch.from_numpy(observation).float() / 255
    expected = original.network(images).numpy()
    np.testing.assert_allclose(agent.predict(observation)[0], expected, atol=1e-6)
    # Users hand over what gym.make's environment gives: one uint8 image, channels last.
    one, _ = agent.predict(observation[0].transpose(1, 2, 0))
    np.testing.assert_allclose(one, expected[0], atol=1e-6)
    path = save_checkpoint(tmp_path / "a.safetensors", agent.predictor, original.basis, 4, {})
    np.testing.assert_allclose(load_predictor(path, scale=4).network(images).numpy(), expected, atol=1e-6)


def test_critic_scores_many_actions_as_one_by_one(make: Make) -> None:
    critic: KernelCritic = make().critic
    critic.set_training_mode(False)
    observations = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    actions = torch.rand(3, 5, 10) * 2 - 1
    description = critic.describe(observations)
    many = critic.score(description, actions)
    assert many.shape == (2, 3, 5)
    one = torch.stack([torch.cat(critic(observations, actions[:, k]), dim=1).T for k in range(5)], dim=-1)
    torch.testing.assert_close(many, one, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(many[0], many[1])  # an ensemble, not copies


def test_the_pretrained_action_has_no_advantage(make: Make) -> None:
    agent = make()
    agent.learn(32)
    critic: KernelCritic = agent.critic
    description = critic.describe(torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8))
    _, start = critic.split(description)
    for training in (False, True):  # dropout leaves out the same units of an action and of the pretrained one
        critic.set_training_mode(training)
        assert critic.score(description, start).abs().max() < 1e-6
        assert critic.score(description, start + 0.1).abs().min() > 1e-6


# -------------------------------------------------------------------------------------------------------------- memory


def remember(
    memory: SceneBuffer,
    images: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    widths: Sequence[float] = (1.0,) * 4,
    descriptions: np.ndarray | None = None,
) -> None:
    memory.announce(memory.descriptions[0] if descriptions is None else descriptions)
    memory.add(images, images, actions, rewards, np.ones(4), [{"kernel_width": np.full(2, w)} for w in widths])


def test_memory_is_bounded_keeps_the_latest_and_no_next_observation(make: Make) -> None:
    memory = make(buffer_size=16).memory
    assert not hasattr(memory, "next_observations")
    image_bytes = 3 * 16 * 16
    assert memory.nbytes == 16 * (image_bytes + 4 * (memory.descriptions.shape[-1] + 10 + 1 + 1 + 1) + 1)
    for number in range(7):  # four scenes each: rows 0 to 2 are written twice
        remember(memory, np.full((4, 3, 16, 16), number, np.uint8), np.zeros((4, 10)), np.full(4, number))
    assert memory.rewards[:, 0].tolist() == [4, 5, 6, 3]
    fresh = memory.fresh()
    assert fresh is not None
    assert len(fresh.rewards) == 16
    assert memory.fresh() is None


@pytest.mark.parametrize(
    ("normalisation", "expected"), [("none", (1.0, 1.0)), ("all", (3.0, 3.0)), ("width", (1.0, 5.0))]
)
def test_rewards_are_scaled_per_width(make: Make, normalisation: str, expected: tuple[float, float]) -> None:
    memory = make(buffer_size=128, normalisation=normalisation).memory
    images = np.zeros((4, 3, 16, 16), np.uint8)
    for _ in range(32):  # widths 0.3 and 3.9 are in the first and last of eight ranges of 0.2 .. 4.0
        remember(memory, images, np.zeros((4, 10)), np.array([1.0, -1.0, 5.0, -5.0]), (0.3, 0.3, 3.9, 3.9))
    memory.measure_scales()
    assert (memory.scales[0], memory.scales[-1]) == expected
    batch = memory.draw(64, np.random.default_rng(0), images=False)
    assert torch.equal(batch.scales, torch.where(batch.rewards.abs() < 2, *expected))


def test_rewards_are_scaled_per_scene(make: Make) -> None:
    memory = make(buffer_size=128, normalisation="scene", env_changes={"actions_per_scene": 2}).memory
    images = np.zeros((4, 3, 16, 16), np.uint8)
    for _ in range(32):
        remember(memory, images, np.zeros((4, 10)), np.array([3.0, -3.0, 0.0, 0.01]), (1.0, 1.0, 3.9, 3.9))
    memory.measure_scales()
    batch = memory.draw(64, np.random.default_rng(0), images=False)
    floor = 0.1 * 0.005  # a tenth of the median magnitude at width 3.9, which is the mean of 0 and 0.01
    small = max(0.01 / math.sqrt(2), floor)
    expected = torch.where(batch.rewards.abs() > 1, 3.0, small)
    torch.testing.assert_close(batch.scales, expected)
    with pytest.raises(ValueError, match="several actions on a scene"):
        make(normalisation="scene")


def test_drawn_scenes_come_with_all_actions_tried_on_them(make: Make) -> None:
    memory = make(buffer_size=128, env_changes={"actions_per_scene": 2}).memory
    images = np.zeros((4, 3, 16, 16), np.uint8)
    for number in range(8):
        remember(memory, images, np.zeros((4, 10)), 4 * number + np.arange(4.0))
    drawn = memory.draw(64, np.random.default_rng(0), images=False).rewards.reshape(-1, 2)
    assert len(drawn) == 32
    assert torch.equal(drawn[:, 1], drawn[:, 0] + 1)
    assert set((drawn[:, 0] % 4).tolist()) == {0, 2}  # a scene is 0 and 1 or 2 and 3


def test_contrast_by_hand() -> None:
    # Two scenes with two actions. Differences from the scene's mean: wanted (1, -1) and (3, -3), of rms sqrt(5).
    wanted = torch.tensor([[6.0, 4.0, 0.0, -6.0]])
    assert contrast(wanted + torch.tensor([[5.0, 5.0, -7.0, -7.0]]), wanted, 2) == 0  # the scene's own level is free
    told = torch.tensor([[2.0, 2.0, 0.0, -6.0]])  # the first scene's difference is missed: off by 1 / sqrt(5)
    assert contrast(told, wanted, 2).item() == pytest.approx(0.5 * (2 * 0.2) / 4)


def test_memory_wants_descriptions_first(make: Make) -> None:
    memory = make().memory
    zeros = np.zeros((4, 3, 16, 16), np.uint8)
    with pytest.raises(RuntimeError, match="announce"):
        memory.add(zeros, zeros, np.zeros((4, 10)), np.zeros(4), np.ones(4), [{"kernel_width": 1.0}] * 4)


@pytest.mark.parametrize("actions_per_scene", [1, 2])
def test_memory_keeps_each_scene_with_its_description(make: Make, actions_per_scene: int) -> None:
    agent = make(env_changes={"actions_per_scene": actions_per_scene})
    agent.learn(16)
    memory = agent.memory
    batch = memory.draw(32, np.random.default_rng(0), images=True)
    assert batch.observations is not None
    torch.testing.assert_close(batch.descriptions, agent.critic.describe(batch.observations), atol=1e-5, rtol=1e-4)


def test_memory_refuses_longer_episodes(make: Make) -> None:
    memory = make().memory
    zeros = np.zeros((4, 3, 16, 16), np.uint8)
    memory.announce(memory.descriptions[0])
    with pytest.raises(ValueError, match="one step"):
        memory.add(zeros, zeros, np.zeros((4, 10)), np.zeros(4), np.zeros(4), [{}] * 4)


def test_targets_are_squashed_and_clipped() -> None:
    values = squash(torch.tensor([0.0, 2.0, -2.0, 1e9, -1e9]), 2.0)
    linear = math.log(1 + math.sqrt(2))  # asinh(1)
    expected = [0, linear, -linear, REWARD_CLIP, -REWARD_CLIP]
    assert values.tolist() == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------------------------------ learning


def test_acts_near_mu_from_the_first_step(make: Make) -> None:
    agent = make(learning_starts=1000, noise_limit=0.1)
    agent.learn(40)
    memory = agent.memory
    observations = torch.from_numpy(memory.observations[:10].reshape(-1, 3, 16, 16))
    noise = memory.actions[:10].reshape(-1, 10) - agent.actor(observations).detach().numpy()
    shape = agent.critic.noise_shape.numpy()
    expected = np.sqrt((shape**2).sum(0))
    assert 0.001 < expected.min() <= expected.max() < 0.1001
    np.testing.assert_allclose(noise.std(0), expected, rtol=0.45)
    assert np.abs(noise).max() < 0.5  # uniform actions would be up to 2 away


def test_several_actions_on_a_scene_lie_opposite_each_other(make: Make) -> None:
    agent = make(learning_starts=1000, noise=0.1, env_changes={"actions_per_scene": 4})
    agent.learn(40)
    memory = agent.memory
    observations, actions = memory.observations[:10], memory.actions[:10]
    assert (observations == observations[:, :1]).all()  # one scene for all four
    assert len(np.unique(observations.reshape(40, -1), axis=0)) == 10
    mean = agent.actor(torch.from_numpy(observations[:, 0])).detach().numpy()
    np.testing.assert_allclose(actions[:, 0] + actions[:, 1], 2 * mean, atol=1e-5)
    np.testing.assert_allclose(actions[:, 2] + actions[:, 3], 2 * mean, atol=1e-5)
    assert np.abs(actions[:, 0] - actions[:, 2]).min(0).max() > 1e-3


def test_noise_follows_its_schedule(make: Make) -> None:
    agent = make(noise=2.0, noise_final=0.0)
    sizes = {}
    for progress in (1.0, 0.5, 0.0):
        agent._current_progress_remaining = progress
        sizes[progress] = agent._draw_noise(2000, 1).std(0)
    expected = np.sqrt((agent.critic.noise_shape.numpy() ** 2).sum(0))
    np.testing.assert_allclose(sizes[1.0], expected, rtol=0.1)
    np.testing.assert_allclose(sizes[0.5], expected / 2, rtol=0.1)
    assert sizes[0.0].max() == 0


def test_warm_up_trains_the_critics_alone(make: Make) -> None:
    agent = make(warmup_updates=1000)
    actor = {name: value.clone() for name, value in agent.actor.state_dict().items()}
    critic = agent.critic.q_networks.state_dict()["0.scene.weight"].clone()
    agent.learn(32)
    assert agent._n_updates > 0
    assert all(torch.equal(value, actor[name]) for name, value in agent.actor.state_dict().items())
    assert not torch.equal(agent.critic.q_networks.state_dict()["0.scene.weight"], critic)


@pytest.mark.parametrize("train_features", [False, True])
def test_after_warm_up_the_actor_moves(make: Make, train_features: bool) -> None:
    agent = make(train_features=train_features, actor_learning_rate=1e-3)
    before = {name: value.clone() for name, value in agent.actor.predictor.state_dict().items()}
    frozen = {name: value.clone() for name, value in agent.critic.pretrained.state_dict().items()}
    agent.learn(32)
    after = agent.actor.predictor.state_dict()
    assert not torch.equal(after["head.0.weight"], before["head.0.weight"])
    averaged = agent.predictor.state_dict()
    for weights in (after, averaged):  # bit for bit: what is frozen must not drift by averaging either
        changed = {name for name in before if not torch.equal(weights[name], before[name])}
        assert any(not name.startswith("head") for name in changed) == train_features
    assert all(torch.equal(value, frozen[name]) for name, value in agent.critic.pretrained.state_dict().items())


def fill(agent: HingeDDPG, better: float) -> None:
    """Fill the memory with scenes whose reward is highest where the first component is ``better`` above mu0."""
    memory, rng = agent.memory, np.random.default_rng(0)
    for _ in range(memory.buffer_size):
        observations = rng.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
        start, _ = agent.predict(observations)
        actions = np.clip(start + 0.2 * rng.standard_normal((4, 10)), -1, 1).astype(np.float32)
        reward = better**2 - (actions[:, 0] - start[:, 0] - better) ** 2  # mu0 itself earns nothing
        described = agent.critic.describe(torch.from_numpy(observations)).numpy()
        remember(memory, observations, actions, reward, descriptions=described)


def even(size: float) -> dict[str, float]:
    """Settings of noise that is of one size in all components, whatever it does to the picture."""
    return {"noise": 1e9, "noise_limit": size}


def moved(agent: HingeDDPG) -> float:
    """How far the actor's first component is from the pretrained one's, on average."""
    observations = torch.from_numpy(agent.memory.observations.reshape(-1, 3, 16, 16))
    with torch.no_grad():
        return float((agent.actor(observations) - agent.critic.pretrained(observations / 255.0))[:, 0].mean())


def test_actor_climbs_to_the_reward_and_the_anchor_holds_it(make: Make) -> None:
    shifts = {}
    for anchor in (0.0, 100.0):
        agent = make(
            buffer_size=512, batch_size=64, warmup_updates=150, actor_learning_rate=1e-3, anchor=anchor, **even(0.2)
        )
        agent.learn(4)  # sets SB3's logger up
        fill(agent, better=0.2)
        agent.train(450, 64)
        shifts[anchor] = moved(agent)
    assert shifts[0.0] == pytest.approx(0.2, abs=0.1)
    assert abs(shifts[100.0]) < 0.03


def test_printed_loss_runs_away(make: Make) -> None:
    values = {}
    for loss in ("printed", "hinge_l2"):
        agent = make(loss=loss, buffer_size=256, warmup_updates=10_000, **even(0.1))
        agent.learn(4)
        fill(agent, better=0.0)
        agent.train(150, 64)
        batch = agent.memory.draw(64, np.random.default_rng(0), images=False)
        agent.policy.set_training_mode(False)
        values[loss] = agent.critic.score(batch.descriptions, batch.actions).abs().mean().item()
    assert 0 < values["hinge_l2"] < REWARD_CLIP
    assert values["printed"] > 3 * REWARD_CLIP


def test_two_runs_with_one_seed_agree(make: Make) -> None:
    first, second = make(), make()
    first.learn(32)
    second.learn(32)
    for name, value in first.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name]), name


# -------------------------------------------------------------------------------------------------- other environments


def test_learns_from_gym_make(weights: tuple[str, str], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gym.make("sr_env:BlindSR-v0", **settings(weights))
    agent = HingeDDPG(env=env, buffer_size=32, learning_starts=2, batch_size=4, gradient_steps=1, seed=0, device="cpu")
    agent.learn(6)
    assert agent.num_timesteps == 6
    agent.save(tmp_path / "agent.zip")
    loaded = HingeDDPG.load(tmp_path / "agent.zip", device="cpu")
    observation = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(loaded.predict(observation)[0], agent.predict(observation)[0])
    again = HingeDDPG.load(tmp_path / "agent.zip", env=env, device="cpu")
    again.learn(4, reset_num_timesteps=False)
    assert again.num_timesteps == 10


def test_refuses_the_iterative_environment(weights: tuple[str, str]) -> None:
    env = BlindSRVecEnv(BlindSRIterativeVectorEnv(2, **settings(weights)))
    with pytest.raises(ValueError, match=r"for BlindSRIterative-v0 IterativeHinge"):
        HingeDDPG(env=env)


def test_refuses_a_predictor_of_another_basis(weights: tuple[str, str], tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "o.safetensors", KernelPredictor(channels=8), load_basis("anisotropic"), 4, {})
    env = BlindSRVecEnv(BlindSRVectorEnv(2, **settings(weights)))
    with pytest.raises(ValueError, match="kernel basis"):
        HingeDDPG(env=env, predictor=path)


# ---------------------------------------------------------------------------------------------------------- resumption


def test_state_round_trip(make: Make, tmp_path: Path) -> None:
    agent = make()
    agent.learn(32)
    agent.save_state(tmp_path / "state.pt", {"best": 1.5, "none": None})
    other = make(seed=7)
    assert other.load_state(tmp_path / "state.pt") == {"best": 1.5, "none": None}
    assert (other.num_timesteps, other._n_updates) == (agent.num_timesteps, agent._n_updates)
    np.testing.assert_array_equal(other.memory.observations[:8], agent.memory.observations[:8])
    agent.train(3, 16)
    other.learn(0, reset_num_timesteps=False)  # sets SB3's logger up, and draws nothing
    other.train(3, 16)
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, other.policy.state_dict()[name]), name


def test_damaged_or_foreign_state_is_one_clear_error(make: Make, tmp_path: Path) -> None:
    agent = make()
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        agent.load_state(tmp_path / "absent.pt")
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(ValueError, match=r"cannot resume from .*state\.pt"):
        agent.load_state(tmp_path / "state.pt")
    agent.learn(8)
    agent.save_state(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="cannot resume"):
        make(critics=3).load_state(tmp_path / "state.pt")


# ----------------------------------------------------------------------------------------------------------- selection


def test_selection_takes_gains_only_where_no_width_loses(weights: tuple[str, str]) -> None:
    simulator = Simulator(SimulatorSettings.from_kwargs(settings(weights)))
    scenes = FixedScenes(simulator, 4, (0.2, 2.6), seed=0)
    assert scenes.batches[0.2][0].photo.tolist() == [0, 1, 2, 0]
    network = KernelPredictor(channels=8, hidden=16).eval()
    selection = Selection(scenes, network)
    assert selection.consider(network, 1).tolist() == [0, 0]
    assert selection.best is None
    base = selection.pretrained.values["score"]

    def pretend(gains: list[float]) -> None:
        scenes.score = lambda method: Scores({"score": base + np.array(gains)[:, None]})  # type: ignore[method-assign]

    pretend([1.0, -0.01])
    selection.consider(network, 2)
    assert selection.best is None
    pretend([0.2, 0.1])
    selection.consider(network, 3)
    assert selection.best is not None
    assert (selection.best_step, selection.best_gain) == (3, pytest.approx(0.15))
    pretend([0.1, 0.1])
    selection.consider(network, 4)
    assert selection.best_step == 3
    other = Selection.__new__(Selection)
    other.load_state(selection.state())
    assert other.best_step == 3
    assert len(other.history) == 5


@pytest.mark.parametrize(("gain", "said"), [(0.5, "is better"), (0.0, "not measurably"), (-0.5, "WORSE")])
def test_verdict_says_what_happened(gain: float, said: str) -> None:
    base = np.random.default_rng(0).normal(size=(3, 8))
    scatter = 0.01 * np.random.default_rng(1).normal(size=(3, 8))
    scatter -= scatter.mean()
    scores = {"pretrained actor": Scores({"score": base}), "trained actor": Scores({"score": base + gain + scatter})}
    assert said in verdict(scores)


# -------------------------------------------------------------------------------------------------------------- script


def script_settings(weights: tuple[str, str], out: Path, folder: Path, **changes: Any) -> Settings:
    import cv2

    folder.mkdir(exist_ok=True)
    for index, photo in enumerate(photos()):
        cv2.imwrite(str(folder / f"{index}.png"), photo)
    small: dict[str, Any] = {
        "out": out,
        "photos": str(folder),
        "reward": {"psnr": 1.0},
        "renderer": weights[0],
        "predictor": weights[1],
        "patch_size": PATCH,
        "steps": 24,
        "envs": 4,
        "learning_starts": 4,
        "warmup_updates": 1,
        "gradient_steps": 1,
        "batch_size": 8,
        "buffer_size": 64,
        "select_every": 12,
        "selection_side": 64,
        "actions_per_scene": 2,
        "selection_widths": (0.2, 2.6),
        "test_crops": 3,
        "device": "cpu",
    }
    return Settings(**{**small, **changes})


def test_script_trains_reports_and_resumes(
    weights: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(script_settings(weights, out, tmp_path / "photos"))
    told = capsys.readouterr().out
    assert "replay memory 64 scenes" in told
    assert "peak memory" in told
    for row in ("bicubic", "pretrained", "trained", "true"):
        assert row in told
    for name in ("curves.png", "before_after.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert name in told
    actor = load_predictor(out / "actor_x4.safetensors", scale=4)
    kept = actor.card["kept"]
    if kept == "pretrained":
        assert "PRETRAINED" in told
        original = load_predictor(weights[1]).network.state_dict()
        assert all(torch.equal(value, original[name]) for name, value in actor.network.state_dict().items())
    main(script_settings(weights, out, tmp_path / "photos", resume=True, steps=32))
    assert "steps 24 to 32" in capsys.readouterr().out


def test_script_stops_in_time(weights: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(script_settings(weights, tmp_path / "out", tmp_path / "photos", steps=100_000, minutes=1e-9))
    assert "minutes are over at step 0 of 100000" in capsys.readouterr().out.replace("\n", " ")


def test_script_stops_when_nothing_gets_better(
    weights: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"steps": 100_000, "patience": 2, "learning_starts": 100_000}  # never learns, so that nothing can
    main(script_settings(weights, tmp_path / "out", tmp_path / "photos", **changes))
    assert "no better actor in 2 validations, at step 24" in capsys.readouterr().out.replace("\n", " ")


def test_guards_are_told_when_broken(
    weights: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"guards": {"lpips": -1.0}}  # demands an LPIPS lower by one
    main(script_settings(weights, tmp_path / "out", tmp_path / "photos", **changes))
    told = capsys.readouterr().out.replace("\n", " ")
    assert "guard broken: lpips" in told
    assert "PRETRAINED" in told


def test_resumed_run_is_the_uninterrupted_one(weights: tuple[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    common = {"steps": 48, "actions_per_scene": 2, "test_crops": 0, "envs": 4}
    main(script_settings(weights, tmp_path / "whole", folder, **common))
    state = tmp_path / "cut" / "state.pt"
    main(script_settings(weights, tmp_path / "cut", folder, **common | {"steps": 24}))
    assert state.is_file()
    main(script_settings(weights, tmp_path / "cut", folder, **common, resume=True))
    whole, cut = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "cut"))
    assert whole["updates"] == cut["updates"] > 0
    for name, value in whole["policy"].items():
        assert torch.equal(value, cut["policy"][name]), name
    assert torch.equal(whole["memory"]["actions"], cut["memory"]["actions"])
    assert whole["extra"]["watch"]["selection"]["history"][-1] == cut["extra"]["watch"]["selection"]["history"][-1]


def test_interrupt_saves_and_says_how_to_go_on(
    weights: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = HingeDDPG.train

    def interrupted(self: HingeDDPG, gradient_steps: int, batch_size: int = 256) -> None:
        train(self, gradient_steps, batch_size)
        if self.num_timesteps == 12:
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C in the middle of a round

    monkeypatch.setattr(HingeDDPG, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(script_settings(weights, tmp_path / "out", tmp_path / "photos"))
    assert "--resume" in capsys.readouterr().out
    monkeypatch.setattr(HingeDDPG, "train", train)
    main(script_settings(weights, tmp_path / "out", tmp_path / "photos", resume=True))
    assert "steps 12 to 24" in capsys.readouterr().out


def test_script_has_nothing_to_resume(weights: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        main(script_settings(weights, tmp_path / "out", tmp_path / "photos", resume=True))


def test_every_loss_has_a_name() -> None:
    assert tuple(CRITIC_LOSSES) == ("printed", "hinge_l2", "hinge_l1", "hinge_margin", "mse")
