"""What ``import sr_env`` does: it registers the environments, loads nothing heavy, and hands out the public names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

import sr_env


def test_importing_ours_first_registers_without_a_warning() -> None:
    code = "import sr_env, gymnasium as gym; print('BlindSR-v0' in gym.registry)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("True", "")


@pytest.mark.parametrize(
    ("first", "name"),
    [
        ("pass", "sr_env:BlindSR-v0"),
        ("import sr_env", "BlindSR-v0"),
        ("import sr_env; gym.register_envs(sr_env)", "BlindSRIterative-v0"),
    ],
)
def test_every_way_to_make_one_registers_without_torch(first: str, name: str, tiny_renderer: Path) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "import gymnasium as gym\n"
        f"{first}\n"
        "assert 'torch' not in sys.modules, 'registration must stay light'\n"
        "warnings.simplefilter('default')\n"
        f"env = gym.make({name!r}, device='cpu', renderer=sys.argv[1])\n"
        "env.reset(seed=0); print(env.step(env.action_space.sample())[4]['code'].shape)\n"
    )
    command = [sys.executable, "-c", code, str(tiny_renderer)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(10,)"


def test_public_names_exist() -> None:
    for name in sr_env.__all__:
        assert getattr(sr_env, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = sr_env.nothing_such


@pytest.mark.parametrize("env_id", ["BlindSR-v0", "BlindSRControls-v0", "BlindSRIterative-v0", "BlindSRReal-v0"])
def test_no_limit_of_steps_is_registered(env_id: str) -> None:
    assert gym.spec(env_id).max_episode_steps is None
