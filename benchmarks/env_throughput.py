"""Steps per second of the environments against the renderer they wrap, all measured in one run.

    python benchmarks/env_throughput.py

Per device and number N of sub-environments: Gymnasium's SyncVectorEnv over N scalar environments, our vector
environment, and the bare work of one step on the same batch (renderer forward, rounding, and scoring the result). The
two ratios are what counts: step time over bare time is the overhead, vector over Sync the gain from batching. Rounds of
the three are interleaved and the best of each is taken, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from rich.console import Console
from rich.table import Table

from sr_env.envs.vector import BlindSRVectorEnv
from sr_env.utils.devices import Precision
from sr_env.utils.script import Weights, run_script


@dataclass
class Settings:
    """Measure environment throughput.

    Attributes:
        sizes: Numbers of sub-environments.
        devices: Devices; None takes the CPU, and CUDA where there is one.
        precision: Precision of the renderer.
        reward: Metrics and weights of the reward.
        reference: Reference of the reward.
        rounds: Interleaved rounds, of which the best counts.
        seconds: Least time of one measurement.
        threads: CPU threads of torch; None leaves torch's choice.
    """

    sizes: tuple[int, ...] = (1, 16, 64)
    devices: tuple[str, ...] | None = None
    precision: Precision = "fp32"
    reward: Weights = field(default_factory=lambda: {"psnr": 1.0})
    reference: str = "bicubic"
    rounds: int = 5
    seconds: float = 0.5
    threads: int | None = None


def seconds_per_call(call: Callable[[], Any], device: str, least: float) -> float:
    """Mean seconds of a call, over as many calls as fill ``least`` seconds."""
    calls, begun = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - begun < least:
        call()
        calls += 1
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / calls


def measure(settings: Settings, device: str, size: int) -> tuple[float, float, float]:
    """Best seconds per batched step of SyncVectorEnv, of our vector environment, and of the bare work."""
    kwargs: dict[str, Any] = {
        "device": device,
        "precision": settings.precision,
        "reward": settings.reward,
        "reference": settings.reference,
    }
    # Gymnasium's default would spend every second step of these one-step episodes on a bare reset.
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
    sync = gym.make_vec("BlindSR-v0", size, vectorization_mode="sync", vector_kwargs=same_step, **kwargs)
    vector = BlindSRVectorEnv(size, **kwargs)
    sync.reset(seed=0)
    vector.reset(seed=0)
    actions = np.zeros((size, vector.simulator.code_length), dtype=np.float32)
    simulator = vector.simulator
    scenes, given = simulator.scenes, torch.from_numpy(actions).to(simulator.device)
    calls = (
        lambda: sync.step(actions),
        lambda: vector.step(actions),
        lambda: simulator.evaluate(scenes, given).score.cpu(),
    )
    for call in calls:
        call()
    rounds = [[seconds_per_call(call, device, settings.seconds) for call in calls] for _ in range(settings.rounds)]
    sync.close()
    vector.close()
    best = np.min(rounds, axis=0)
    return float(best[0]), float(best[1]), float(best[2])


def main(settings: Settings) -> None:
    """Measure and print the table."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    devices = settings.devices or (("cpu", "cuda") if torch.cuda.is_available() else ("cpu",))
    shown = Table(
        title=f"environment steps per second, {settings.precision}, reward {settings.reward}, "
        f"reference {settings.reference}, {torch.get_num_threads()} threads"
    )
    for column in ("device", "N", "Sync", "vector", "bare renderer + metric", "vector step / bare", "vector / Sync"):
        shown.add_column(column, justify="right")
    for device in devices:
        for size in settings.sizes:
            sync, vector, bare = measure(settings, device, size)
            rates = [f"{size / value:.1f}" for value in (sync, vector, bare)]
            shown.add_row(device, str(size), *rates, f"{vector / bare:.2f}x", f"{sync / vector:.2f}x")
    Console(width=140).print(shown)


if __name__ == "__main__":
    run_script(Settings, main)
