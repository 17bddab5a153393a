"""Devices and precisions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sr_env.utils.devices import autocast, channels_last, resolve_device, uses_bf16


def test_auto_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("cuda", "cuda:0", torch.device("cuda")):
        with pytest.raises(ValueError, match=r"asked for, but torch sees 0 CUDA devices: use 'cpu' or 'auto'"):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="torch sees 2"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CPU0"])
def test_unknown_device(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown device .* choose auto, cpu, cuda or cuda:N"):
        resolve_device(name)


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert uses_bf16("bf16", cpu)
    assert not uses_bf16("fp32", cpu)
    for capabilities, fast in (
        ({}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),
        ({"cpu_name": "AMD EPYC"}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=capabilities: told)
        assert uses_bf16("auto", cpu) == fast
    for call in (uses_bf16, autocast):
        with pytest.raises(ValueError, match=r"'fp16'.*auto, fp32, bf16"):
            call("fp16", cpu)  # type: ignore[operator]
    a = torch.ones(2, 2)
    with autocast("bf16", cpu):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("fp32", cpu):
        assert (a @ a).dtype == torch.float32


def test_channels_last_keeps_the_numbers() -> None:
    conv = nn.Conv2d(3, 8, 3)
    before = conv.weight.detach().clone()
    assert channels_last(conv) is conv
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv.weight, before)
