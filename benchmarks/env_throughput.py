"""Steps per second of the environments against the renderer they wrap, all measured in one run.

    python benchmarks/env_throughput.py

Per device and number N of sub-environments: Gymnasium's SyncVectorEnv over N scalar environments, our vector
environment, and the bare work of one step on the same batch: renderer forward, rounding, and scoring the result. That
is counted twice, since a metric with a reference looks at two pictures: given what it needs of HR, which the
environment computes once per scene, or given HR alone, as whoever calls a metric gives it. The ratios are what counts:
step time over bare time is the overhead, vector over Sync the gain from batching. A step of a one-step episode with
reference "predictor" renders and scores twice, looks at HR, and asks the predictor. Rounds of the four are interleaved,
and the medians over the rounds are shown of CPU times and of their ratios, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
        rounds: Interleaved rounds, of which the median counts.
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


class Seconds(NamedTuple):
    """Seconds per batched step in every round, [R]: SyncVectorEnv, our vector environment, and the two bare works."""

    sync: np.ndarray
    vector: np.ndarray
    bare: np.ndarray
    bare_with_hr: np.ndarray


def seconds_per_call(call: Callable[[], Any], device: str, least: float) -> float:
    """Mean seconds of a call, over as many calls as fill ``least`` seconds; of CPU time on a CPU with one thread."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    calls, begun, first = 0, time.perf_counter(), clock()
    while calls == 0 or time.perf_counter() - begun < least:
        call()
        calls += 1
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (clock() - first) / calls


def measure(settings: Settings, device: str, size: int) -> Seconds:
    """Measure one number of sub-environments."""
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

    def bare_with_hr() -> None:
        with torch.no_grad(), simulator.measuring():
            simulator.objective(simulator.render(scenes.lr, simulator.basis.to_code(given)), scenes.hr)[0].cpu()

    calls = (
        lambda: sync.step(actions),
        lambda: vector.step(actions),
        lambda: simulator.evaluate(scenes, given).score.cpu(),
        bare_with_hr,
    )
    for call in calls:
        call()
    rounds = [[seconds_per_call(call, device, settings.seconds) for call in calls] for _ in range(settings.rounds)]
    sync.close()
    vector.close()
    return Seconds(*np.array(rounds).T)


def main(settings: Settings) -> None:
    """Measure and print the table."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    devices = settings.devices or (("cpu", "cuda") if torch.cuda.is_available() else ("cpu",))
    shown = Table(
        title=f"environment steps per second, ratios of step times; {settings.precision}, reward {settings.reward}, "
        f"reference {settings.reference}, {torch.get_num_threads()} threads"
    )
    rates = ("Sync", "vector", "bare renderer + metric", "the same given HR")
    columns = ("device", "N", *rates, "vector / bare", "vector / given HR", "Sync / vector")
    for column in columns:
        shown.add_column(column, justify="right")
    for device in devices:
        for size in settings.sizes:
            taken = measure(settings, device, size)
            per_second = [f"{size / np.median(seconds):.1f}" for seconds in taken]
            ratios = (taken.vector / taken.bare, taken.vector / taken.bare_with_hr, taken.sync / taken.vector)
            shown.add_row(device, str(size), *per_second, *(f"{np.median(ratio):.2f}x" for ratio in ratios))
    Console(width=140).print(shown)


if __name__ == "__main__":
    run_script(Settings, main)
