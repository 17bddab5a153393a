"""TorchRL's GymEnv and GymWrapper, whose specifications are checked against what the environments return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

pytest.importorskip("torchrl")

from torchrl.envs import GymEnv, GymWrapper
from torchrl.envs.utils import check_env_specs

from sr_env import BlindSREnv, BlindSRIterativeVectorEnv, BlindSRVectorEnv


@pytest.mark.parametrize("env_id", ["BlindSR-v0", "BlindSRIterative-v0"])
def test_specifications_hold(env_id: str, small: dict[str, Any]) -> None:
    env = GymEnv(env_id, **small)  # passes frameskip, and retries without it
    check_env_specs(env)
    rollout = env.rollout(3)
    steps = 1 if env_id == "BlindSR-v0" else 3
    assert rollout.shape == (steps,)
    assert bool(rollout["next", "terminated"][-1]) == (env_id == "BlindSR-v0")
    assert not rollout["next", "truncated"].any()


def test_rewards_are_the_environments(small: dict[str, Any]) -> None:
    env, plain = GymEnv("BlindSR-v0", **small), BlindSREnv(**small)
    env.set_seed(5)  # resets with the seed
    plain.reset(seed=5)
    first, _ = plain.reset()
    reset = env.reset()
    np.testing.assert_array_equal(next(iter(reset.exclude("done", "terminated", "truncated").values())), first)
    action = torch.full((10,), 0.2)
    after = env.step(reset.set("action", action))
    assert float(after["next", "reward"]) == pytest.approx(plain.step(action.numpy())[1], abs=1e-4)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("kind", [BlindSRVectorEnv, BlindSRIterativeVectorEnv])
def test_vector_environments_can_be_wrapped(kind: type[BlindSRVectorEnv], mode: AutoresetMode, small: Any) -> None:
    env = GymWrapper(kind(3, autoreset_mode=mode, **small | {"max_steps": 2}))
    assert env.batch_size == torch.Size([3])
    rollout = env.rollout(5, break_when_any_done=False)
    assert rollout.shape == (3, 5)
    ends = rollout["next", "terminated"][..., 0]
    expected = [True] * 5 if kind is BlindSRVectorEnv else [False, True, False, True, False]
    assert ends.tolist() == [expected] * 3
    assert rollout["next", "reward"].isfinite().all()
