"""Where things run and in which precision."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_env.utils.checks import UsageError, check_choice

Network = TypeVar("Network", bound=nn.Module)
Precision = Literal["auto", "fp32", "bf16"]
PRECISIONS: tuple[str, ...] = ("auto", "fp32", "bf16")
#: How a program chooses its CPU threads: see :func:`settle_threads`.
Threads = Literal["one", "fastest"]
#: Numbers of threads that are slower than the fastest by no more than this count as fast.
_AS_FAST = 1.1
#: Pixels that a convolutional network takes at once on a CPU in full precision, those of four LR patches of 48x48: the
#: activations of more leave the cache. In bf16 it is twice as many.
_AT_ONCE = 4 * 48**2


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Turn a setting into a device: ``"auto"`` takes CUDA where there is one, else the CPU.

    Raises:
        UsageError: Not a device torch knows, or one that this machine lacks, with the remedy.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N") from error
    if device.type == "meta":
        raise UsageError(f"device {str(name)!r} holds no numbers: choose auto, cpu, cuda or cuda:N")
    if device.type in ("cpu", "mps") and device.index:
        raise UsageError(f"device {str(name)!r}: there is one {device.type} device, which has no number: leave it out")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device {str(name)!r} asked for, but this machine has no Metal device: use 'cpu' or 'auto'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {str(name)!r} asked for, but torch sees {torch.cuda.device_count()} CUDA devices: "
            "use 'cpu' or 'auto'"
        )
    return device


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Mixed-precision context for a setting: ``"auto"`` takes bf16 where the device computes in it.

    Raises:
        UsageError: Unknown precision, naming the valid ones.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether a precision setting means bf16 on this device.

    Raises:
        UsageError: Unknown precision, naming the valid ones.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision == "auto":
        if device.type == "cuda":
            with torch.cuda.device(device):
                return torch.cuda.is_bf16_supported(including_emulation=False)
        return device.type == "cpu" and _fast_bf16(torch.cpu.get_capabilities())
    return precision == "bf16"


def settle_threads(threads: Threads, device: str | torch.device = "auto") -> int:
    """Choose the CPU threads that torch computes with from now on; returns their number.

    By itself torch takes one per core. Where other programs keep cores busy, every product then waits for the last of
    its threads, spinning: on two busy cores, two threads trained HingeDDPG a third as far in a CPU second as one did.

    Args:
        threads: "one", which suits small networks and small pictures, and with which a seed gives the same numbers on a
            busy machine as on an idle one; or "fastest", the fewest that are about the fastest in a short measurement.
        device: Where the program computes. On a GPU nothing is changed, and where ``OMP_NUM_THREADS`` is set neither.

    Raises:
        UsageError: As :func:`resolve_device`.
    """
    if resolve_device(device).type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        most = 1 if threads == "one" else torch.get_num_threads()
        counts = [most >> halvings for halvings in range(most.bit_length())]
        seconds = dict.fromkeys(counts, 0.0) if most == 1 else _measured(counts)
        torch.set_num_threads(min(count for count in counts if seconds[count] <= _AS_FAST * min(seconds.values())))
    return torch.get_num_threads()


@torch.inference_mode()
def _measured(counts: list[int], rounds: int = 7) -> dict[int, float]:
    """Median seconds of some convolutions of a renderer's size, by number of threads."""
    image, weight = torch.zeros(1, 48, 64, 64), torch.zeros(48, 48, 3, 3)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(rounds + 1):
        for count in counts:
            torch.set_num_threads(count)
            begun = time.perf_counter()
            for _ in range(4):
                F.conv2d(image, weight, padding=1)
            seconds[count].append(time.perf_counter() - begun)
    return {count: statistics.median(taken[1:]) for count, taken in seconds.items()}  # the first round starts threads


def in_portions(call: Callable[..., Tensor], images: Tensor, *others: Tensor) -> Tensor:
    """A call of a batch, which a CPU takes in portions that fit its cache, one after the other.

    Args:
        call: Works on each image by itself.
        images: [B, C, H, W], its first argument.
        *others: Its further arguments, each with B rows.
    """
    if images.device.type != "cpu":
        return call(images, *others)
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    count = max(1, math.ceil(images[:, 0].numel() / (_AT_ONCE * (2 if half else 1))))
    made = [call(*part) for part in zip(*(x.chunk(count) for x in (images, *others)), strict=True)]
    return made[0] if len(made) == 1 else torch.cat(made)


def channels_last(network: Network) -> Network:
    """Put a network's weights into the memory layout in which convolutions run fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this one


def _fast_bf16(capabilities: Mapping[str, object]) -> bool:
    """Whether a processor computes faster in bf16 than in fp32.

    With AMX's tiles AMNet trains several times faster, and with AVX-512 BF16 on an AMD EPYC 1.8 to 1.9 times; on an
    Intel Xeon that has AVX-512 BF16 but no AMX it was 1.5 times slower.
    """
    amd = str(capabilities.get("cpu_name", "")).startswith("AMD")
    return bool(capabilities.get("amx_bf16", False) or (amd and capabilities.get("avx512_bf16", False)))
