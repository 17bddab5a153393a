"""Renderers of users' own: modules at hand, registered architectures, models that spandrel loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sr_env.utils.torchvision_compat  # noqa: F401  (before spandrel, which imports torchvision)
from sr_env.degradation import Degradation, load_basis
from sr_env.models import AMNet, Renderer, load_renderer, read_card, register_renderer, save_checkpoint
from sr_env.models import base as base_module
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError


class Tinted(nn.Module):
    """Bilinear enlargement whose red channel is moved by the first code component."""

    receptive_radius = 1

    def __init__(self, scale: int = 4, strength: float = 0.1) -> None:
        super().__init__()
        self.scale, self.code_length, self.strength = scale, 10, strength
        self.gain = nn.Parameter(torch.ones(3))

    @property
    def architecture(self) -> dict[str, Any]:
        return {"scale": self.scale, "strength": self.strength}

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        tint = F.pad(self.strength * code[:, :1], (0, 2))[:, :, None, None]
        return F.interpolate(lr, scale_factor=self.scale, mode="bilinear") * self.gain[:, None, None] + tint


class Plain(nn.Module):
    """Bilinear enlargement, blind to the code."""

    scale, code_length = 4, 0

    def forward(self, lr: Tensor) -> Tensor:
        return F.interpolate(lr, scale_factor=4, mode="bilinear")


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_module, "_RENDERERS", dict(base_module._RENDERERS))


def inputs(scale: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 12, 9, generator=generator), torch.randn(2, 10, generator=generator)


def test_amnet_fits_the_protocol() -> None:
    network = AMNet(scale=3, channels=4, blocks=2, smooth=True)
    assert isinstance(network, Renderer)
    assert (network.scale, network.code_length, network.receptive_radius) == (3, 10, 7)
    assert AMNet(channels=4, blocks=2).receptive_radius == 6


def test_a_module_is_taken_as_a_frozen_copy() -> None:
    network = Tinted()
    lr, code = inputs()
    checkpoint = load_renderer(network, scale=4)
    torch.testing.assert_close(checkpoint.network(lr, code), network(lr, code))
    assert isinstance(checkpoint.network, Renderer)
    assert (checkpoint.scale, checkpoint.network.receptive_radius, checkpoint.path) == (4, 1, Path("Tinted"))
    assert checkpoint.basis.digest == load_basis("isotropic", 4).digest
    assert network.gain.requires_grad
    assert network.training
    assert not checkpoint.network.training
    with torch.no_grad():
        network.gain.fill_(0.0)
    assert not torch.equal(checkpoint.network(lr, code), network(lr, code))


def test_a_module_gets_the_codes_of_the_family_it_is_loaded_for() -> None:
    assert load_renderer(Tinted(), family="anisotropic").basis.digest == load_basis("anisotropic").digest


def test_a_module_in_the_simulator(tiny_settings: dict[str, Any]) -> None:
    simulator = Simulator(SimulatorSettings.from_kwargs(tiny_settings | {"renderer": Tinted(strength=0.02)}))
    scenes = simulator.draw(np.random.default_rng(0).random((2, 6)))
    expected = Tinted(strength=0.02)(scenes.lr, scenes.code).detach().clamp(0, 1)
    assert (simulator.render(scenes.lr, scenes.code) - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_a_network_without_a_code_is_called_with_the_picture_alone() -> None:
    lr, code = inputs()
    torch.testing.assert_close(load_renderer(Plain()).network(lr, code), Plain()(lr))
    unnamed = nn.Upsample(scale_factor=2)
    torch.testing.assert_close(load_renderer(unnamed, scale=2, code_length=0).network(lr, code), unnamed(lr))


def test_a_network_that_does_not_say_how_far_it_sees_is_asked_only_for_tiles() -> None:
    with pytest.raises(UsageError, match="renderer Plain has no whole number receptive_radius"):
        _ = load_renderer(Plain()).network.receptive_radius


@pytest.mark.parametrize(
    ("spec", "options", "told"),
    [
        (3, {}, "renderer 3 is no renderer.*amnet_l_x4.*nn.Module"),
        (None, {}, "renderer None is no renderer"),
        (nn.Identity(), {}, "renderer Identity has no attribute scale"),
        (nn.Identity(), {"scale": 4}, "renderer Identity has code_length None.*10.*or to 0"),
        (nn.Identity(), {"scale": 4, "code_length": 7}, "renderer Identity has code_length 7"),
        (Tinted(2), {"scale": 4}, "renderer Tinted is for scale 2, not 4"),
        (Tinted(7), {}, "unknown scale of renderer Tinted 7"),
        (Tinted(4.0), {}, "renderer Tinted has scale 4.0: set this attribute to a whole number"),  # type: ignore[arg-type]
        (Plain(), {"family": "nope"}, "unknown kernel family 'nope'"),
    ],
)
def test_what_is_no_renderer_is_named(spec: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_renderer(spec, **options)


def test_a_wrong_output_is_named() -> None:
    checkpoint = load_renderer(nn.Identity(), scale=2, code_length=0)
    with pytest.raises(UsageError, match=r"renderer Identity makes \[2, 3, 12, 9\].*not \[2, 3, 24, 18\]"):
        checkpoint.network(*inputs())


# -------------------------------------------------------------------------------------------------------- registered


def test_a_registered_renderer_is_loaded_by_name_at_the_scale_needed(tiny_settings: dict[str, Any]) -> None:
    register_renderer("tinted")(Tinted)
    checkpoint = load_renderer("tinted", scale=2)
    lr, code = inputs()
    torch.testing.assert_close(checkpoint.network(lr, code), Tinted(2)(lr, code))
    assert checkpoint.path.stem == "tinted"
    simulator = Simulator(SimulatorSettings.from_kwargs(tiny_settings | {"renderer": "tinted"}))
    assert simulator.renderer.network.scale == 4


def test_a_registered_function_brings_its_own_weights() -> None:
    @register_renderer("gray")
    def make(scale: int) -> nn.Module:
        network = Tinted(scale)
        nn.init.constant_(network.gain, 0.5)
        return network

    lr, code = inputs()
    torch.testing.assert_close(load_renderer("gray").network(lr, code), make(4)(lr, code))


def test_a_registered_class_is_saved_and_loaded(tmp_path: Path) -> None:
    register_renderer("tinted")(Tinted)
    network = Tinted(3, strength=0.25)
    nn.init.uniform_(network.gain)
    path = save_checkpoint(tmp_path / "t.safetensors", network, load_basis("isotropic", 3), 3, {"seed": 1})
    card = read_card(path)
    assert (card["network"], card["architecture"]) == ("tinted", {"scale": 3, "strength": 0.25})
    loaded = load_renderer(path, scale=3)
    assert isinstance(loaded.network, Tinted)
    lr, code = inputs()
    torch.testing.assert_close(loaded.network(lr, code), network(lr, code))
    del base_module._RENDERERS["tinted"]
    with pytest.raises(UsageError, match=r"holds a 'tinted', which is not registered.*AMNet"):
        load_renderer(path)


def test_a_class_that_looks_at_its_weights_while_it_is_built_is_loaded(tmp_path: Path) -> None:
    """Its shapes cannot be had without memory; the file's are still compared."""

    class Looking(Tinted):
        def __init__(self, scale: int = 4, strength: float = 0.5) -> None:
            super().__init__(scale, strength)
            self.seen = self.gain.detach().numpy().sum().item()

    register_renderer("looking")(Looking)
    try:
        network = Looking(4)
        nn.init.uniform_(network.gain)
        path = save_checkpoint(tmp_path / "l.safetensors", network, load_basis("isotropic", 4), 4, {})
        lr, code = inputs()
        torch.testing.assert_close(load_renderer(path).network(lr, code), network(lr, code))
    finally:
        del base_module._RENDERERS["looking"]


def test_our_own_architecture_is_no_renderer_by_its_name() -> None:
    with pytest.raises(UsageError, match=r"'AMNet' is an architecture without weights: give one of .*amnet_l_x4"):
        load_renderer("AMNet")
    with pytest.raises(UsageError, match="no renderer 'nope'") as caught:
        load_renderer("nope")
    assert "AMNet" not in str(caught.value)


def test_what_cannot_be_registered() -> None:
    register_renderer("tinted")(Tinted)
    register_renderer("tinted")(Tinted)  # a notebook's cell, run again
    with pytest.raises(UsageError, match=r"'tinted' is registered already, .*Tinted"):
        register_renderer("tinted")(Plain)
    with pytest.raises(UsageError, match="'AMNet' is registered already"):
        register_renderer("AMNet")(Plain)
    with pytest.raises(UsageError, match="'amnet_l_x4' is the name of released weights"):
        register_renderer("amnet_l_x4")(Plain)
    with pytest.raises(UsageError, match="is no name"):
        register_renderer(Tinted)  # type: ignore[arg-type]  # @register_renderer without a name


def test_unknown_names_list_registered_ones() -> None:
    register_renderer("tinted")(Tinted)
    with pytest.raises(FileNotFoundError, match=r"no renderer 'tined'.*amnet_l_x4.*tinted"):
        load_renderer("tined")


# ---------------------------------------------------------------------------------------------------------- families


def test_a_renderer_of_another_family_is_refused_naming_both(tmp_path: Path) -> None:
    network = AMNet(channels=4, blocks=1)
    path = save_checkpoint(tmp_path / "a.safetensors", network, load_basis("anisotropic"), 4, {})
    assert load_renderer(path, family="anisotropic").basis.digest == load_basis("anisotropic").digest
    with pytest.raises(UsageError, match="takes the codes of anisotropic kernels, not of the family 'isotropic'"):
        load_renderer(path, family="isotropic")
    with pytest.raises(UsageError, match="isotropic kernels, not of the family 'anisotropic': set kernels='isotropic'"):
        load_renderer("amnet_l_x4", family="anisotropic")
    assert load_renderer("amnet_l_x4", family="isotropic").scale == 4


# ---------------------------------------------------------------------------------------------------------- spandrel


def test_a_model_of_spandrel_is_taken_as_a_network_without_a_code() -> None:
    spandrel = pytest.importorskip("spandrel")
    generator = torch.Generator().manual_seed(0)
    shapes = {"body.0": (8, 3), "body.2": (8, 8), "body.4": (48, 8)}  # Real-ESRGAN's compact network with one block
    state = {f"{name}.weight": torch.randn(*shape, 3, 3, generator=generator) / 20 for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    state |= {f"body.{index}.weight": torch.full((8,), 0.2) for index in (1, 3)}
    found = spandrel.ModelLoader(device="cpu").load_from_state_dict(state)
    checkpoint = load_renderer(found, scale=4)
    lr, code = inputs()
    torch.testing.assert_close(checkpoint.network(lr, code), found(lr))
    assert checkpoint.card["network"] == "ImageModelDescriptor"
    with pytest.raises(UsageError, match="is for scale 4, not 2"):
        load_renderer(found, scale=2)
    hr = torch.rand(1, 3, 48, 48)
    degradation = Degradation(4)
    lr = degradation(hr, degradation.build(np.array([1.0])))
    assert checkpoint.network(lr, code[:1]).shape == hr.shape
