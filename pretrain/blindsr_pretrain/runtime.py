"""Where training runs and how fast: device and processes, compilation, precision, copies that nobody waits for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from blindsr_pretrain.settings import TrainingSettings
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import resolve_device


def training_device(settings: TrainingSettings) -> torch.device:
    """Device of this process: the settings' own, or under ``accelerate launch`` the one that it was given.

    Raises:
        UsageError: This machine has no such device, one device was named for several processes, or several were asked
            for and one started.
    """
    device = resolve_device(settings.device)
    state = PartialState(cpu=device.type == "cpu")
    if state.num_processes == 1:
        if state.device.type != device.type:  # an earlier run of this process (a notebook) was elsewhere
            PartialState._reset_state()
            PartialState(cpu=device.type == "cpu")
        # Accelerate's launcher only starts several processes for several GPUs, and says nothing otherwise.
        if {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ:
            raise UsageError(
                "accelerate launch was asked for several processes and started one: add --multi_gpu before the script "
                "(with --device cpu after it that starts them on CPUs too)"
            )
        return device
    if device.index is not None:
        raise UsageError(
            f"device {settings.device!r} names one device for {state.num_processes} processes: "
            f"give {device.type!r}, each takes its own"
        )
    return state.device


def make_accelerator(precision: str) -> Accelerator:
    """Accelerate's view of this process; networks are on their device already."""
    AcceleratorState._reset_state()  # else a second run in one process (a notebook) could not change the precision
    return Accelerator(mixed_precision=precision, device_placement=False)


def compile_where_possible(network: nn.Module, settings: TrainingSettings, device: torch.device) -> nn.Module:
    """torch.compile the network if the settings ask for it and the machine can; on a CPU that takes a C++ compiler."""
    return cast(nn.Module, torch.compile(network)) if settings.compile and compiles(device.type) else network


@cache
def compiles(device_type: str) -> bool:
    """Whether torch.compile works here, tried on one line of code; where it does not, a warning says why."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device_type))
    except Exception as error:  # a missing or broken compiler shows as one of many types
        warnings.warn(f"training runs uncompiled, torch.compile fails here: {first_line(error)}", stacklevel=2)
        return False
    return True


def first_line(error: BaseException) -> str:
    """Type and first line of an error whose message torch spreads over many."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to the device without waiting for what the device is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 matrix products in full inside, whatever shortcut (TF32, bf16) is set outside: LR is exact to 8 bit."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def tried_convolutions() -> Iterator[None]:
    """Let cuDNN try its algorithms on the first step, since patches keep their size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
