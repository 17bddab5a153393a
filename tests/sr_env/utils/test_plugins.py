"""Names of users' own modules on command lines: metrics, renderers and kernel families alike."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sr_env.degradation import Degradation, families, kernel_family
from sr_env.metrics import WeightedScore, base, describe
from sr_env.models import base as renderers
from sr_env.models import load_renderer
from sr_env.utils.checks import UsageError
from sr_env.utils.plugins import import_named

MODULE = """
import numpy as np
from torch import nn

from sr_env.degradation import KernelFamily, isotropic_kernels, register_family
from sr_env.metrics import register_function
from sr_env.models import register_renderer

register_function("gap", lambda sr, hr: np.abs(sr - 1.0 * hr).mean((1, 2, 3)), higher_is_better=False)


@register_renderer("nearest")
class Nearest(nn.Upsample):
    code_length = 0

    def __init__(self, scale):
        super().__init__(scale_factor=scale)
        self.scale = scale


@register_family
class Narrow(KernelFamily):
    name = "narrow"

    def width_range(self, scale):
        return 0.2, 0.8

    def kernels(self, widths, angles):
        return isotropic_kernels(widths[:, 0])
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for home, name in ((base, "_REGISTRY"), (base, "_ORIGINS"), (families, "_FAMILIES"), (renderers, "_RENDERERS")):
        monkeypatch.setattr(home, name, dict(getattr(home, name)))
    (tmp_path / "own_parts.py").write_text(MODULE)
    (tmp_path / "broken_parts.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return "own_parts"


def test_a_module_is_imported_for_what_it_registers(module: str) -> None:
    score = WeightedScore({f"{module}:gap": 1})
    pictures = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    assert list(score(*pictures)[1]) == ["gap"]
    assert describe(f"{module}:gap").name == "gap"
    checkpoint = load_renderer(f"{module}:nearest", scale=2)
    lr = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(checkpoint.network(lr, torch.zeros(1, 10))[..., ::2, ::2], lr)
    assert kernel_family(f"{module}:narrow").name == "narrow"
    assert Degradation(4, f"{module}:narrow").width_range == (0.2, 0.8)


def test_what_no_module_has_is_named(module: str) -> None:
    for make in (load_renderer, describe, kernel_family):
        with pytest.raises(UsageError, match=r"'no_parts:x': no module 'no_parts' can be imported.*PYTHONPATH"):
            make("no_parts:x")
        with pytest.raises(UsageError, match=r"unknown .*other"):
            make(f"{module}:other")
        with pytest.raises(UsageError, match="is not of the form module:name"):
            make(":x")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):  # a bug in the user's module stays one
        import_named("metric", "broken_parts:x")
    assert import_named("metric", "psnr") == "psnr"
