"""Devices and precisions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from sr_env.utils import devices
from sr_env.utils.devices import autocast, channels_last, in_portions, resolve_device, settle_threads, uses_bf16


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


@pytest.mark.parametrize("name", ["cpu:3", torch.device("cpu", 1), "mps:1"])
def test_a_device_of_which_there_is_one_has_no_number(name: str | torch.device) -> None:
    with pytest.raises(ValueError, match=r"there is one .* device, which has no number: leave it out"):
        resolve_device(name)
    assert resolve_device("cpu:0").type == "cpu"


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


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch with four threads, and nobody who asked for a number."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [({4: 1.0, 2: 2.0, 1: 4.0}, 4), ({4: 1.0, 2: 1.05, 1: 2.0}, 2), ({4: 9.0, 2: 3.0, 1: 1.0}, 1)],
)
def test_the_fewest_threads_that_are_about_the_fastest(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], chosen: int
) -> None:
    monkeypatch.setattr(devices, "_measured", lambda counts: {count: seconds[count] for count in counts})
    assert settle_threads("fastest", "cpu") == torch.get_num_threads() == chosen


@pytest.mark.usefixtures("four_threads")
def test_threads_are_measured() -> None:
    measured = devices._measured([2, 1])
    assert list(measured) == [2, 1]
    assert all(seconds > 0 for seconds in measured.values())
    assert settle_threads("one", "cpu") == torch.get_num_threads() == 1


@pytest.mark.usefixtures("four_threads")
def test_a_gpu_and_who_asked_for_threads_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(devices, "resolve_device", lambda name: torch.device("cuda"))
        assert settle_threads("one") == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert settle_threads("one", "cpu") == torch.get_num_threads() == 4


def test_a_cpu_takes_a_batch_in_portions_and_nothing_changes() -> None:
    images, factors = torch.rand(10, 3, 48, 48), torch.rand(10)
    sizes: list[int] = []

    def call(part: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        return part * factor[:, None, None, None]

    assert torch.equal(in_portions(call, images, factors), images * factors[:, None, None, None])
    assert sizes == [4, 4, 2]
    with torch.autocast("cpu", torch.bfloat16):
        in_portions(call, images, factors)
    in_portions(call, images[:1, :, :8, :8], factors[:1])
    in_portions(call, torch.rand(1, 3, 200, 200), factors[:1])
    assert sizes[3:] == [5, 5, 1, 1]
