"""Controls beside the code: where they lie in an action, and that each does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr_env.degradation import load_basis, quantize, unsharp
from sr_env.models import (
    CONTROLS,
    AMNet,
    available_checkpoints,
    load_predictor,
    load_renderer,
    save_checkpoint,
    widened,
)
from sr_env.models.controls import PARTNERS, RANGES, SHARPEN_SIGMA
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError

UNIFORMS = np.random.default_rng(1).random((3, 6))


def make_perceptual(path: Path, **card: Any) -> Path:
    """Another tiny renderer."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = AMNet(scale=4, channels=8, blocks=1)
    return save_checkpoint(path, network, load_basis("isotropic", 4), 4, card)


@pytest.fixture(scope="session")
def perceptual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_perceptual(tmp_path_factory.mktemp("renderers") / "perceptual.safetensors", adversarial="realness")


@pytest.fixture
def settings(tiny_settings: dict[str, Any], perceptual: Path) -> dict[str, Any]:
    return tiny_settings | {"controls": CONTROLS, "blend_renderer": str(perceptual), "reference": "predictor"}


def make(settings: dict[str, Any], **changes: Any) -> Simulator:
    return Simulator(SimulatorSettings.from_kwargs(settings | changes))


@pytest.mark.parametrize(
    "controls",
    [
        "code",
        [],
        ("sharpen",),
        ("sharpen", "code"),
        ("code", "blend", "sharpen"),
        ("code", "code"),
        ("code", "glow"),
        3,
    ],
)
def test_wrong_controls_get_one_error(controls: Any) -> None:
    with pytest.raises(UsageError, match="give a list of 'code' and then any of 'sharpen', 'blend'") as caught:
        SimulatorSettings(controls=controls)
    assert repr(controls) in str(caught.value)


def test_the_default_action_is_the_code_alone(tiny_settings: dict[str, Any]) -> None:
    simulator = make(tiny_settings)
    simulator.reset(UNIFORMS)
    actions = np.random.default_rng(2).uniform(-1, 1, (3, 10)).astype(np.float32)
    simulator.step(actions)
    with torch.no_grad():
        code = simulator.basis.to_code(torch.from_numpy(actions))
        plain = quantize(simulator.renderer.network(simulator.scenes.lr, code))
    assert torch.equal(simulator.episode.current.sr, plain)
    assert simulator.controls.length == 10
    assert simulator.info().keys().isdisjoint(RANGES)
    with pytest.raises(UsageError, match=r"give \(3, 10\), one kernel code per environment"):
        simulator.check_actions(np.zeros((3, 12), np.float32))


def test_zeros_beside_the_code_are_the_reference_bit_for_bit(settings: dict[str, Any]) -> None:
    simulator = make(settings)
    simulator.reset(UNIFORMS)
    action = simulator.episode.action.numpy()
    assert action.shape == (3, 12)
    np.testing.assert_array_equal(action[:, 10:], 0)
    np.testing.assert_array_equal(simulator.step(action), 0)
    assert torch.equal(simulator.episode.current.sr, simulator.episode.reference.sr)
    info = simulator.info()
    np.testing.assert_array_equal(info["action_true"][:, 10:], 0)
    assert info["code_true"].shape == info["code"].shape == (3, 10)
    for name in ("sharpen", "blend"):
        np.testing.assert_array_equal(info[name], np.zeros(3, np.float32))


def test_information_tells_the_values_of_both_sides(settings: dict[str, Any]) -> None:
    simulator = make(settings)
    simulator.reset(UNIFORMS)
    actions = np.zeros((3, 12), np.float32)
    actions[:, 10] = (-1, 0.5, 1)
    actions[:, 11] = (1, -0.5, -1)
    simulator.step(actions)
    np.testing.assert_allclose(simulator.info()["sharpen"], (-1, 2, 4))
    np.testing.assert_allclose(simulator.info()["blend"], (1.25, -0.125, -0.25))


def test_actions_of_more_than_is_controlled_are_no_codes(settings: dict[str, Any]) -> None:
    simulator = make(settings, controls=("code", "sharpen"))
    with pytest.raises(UsageError, match="actions of 12 numbers do not fit: give 11, one kernel code, one num"):
        simulator.evaluate(simulator.draw(UNIFORMS), torch.zeros(3, 12))


def test_sharpening_adds_the_known_amount_of_contrast() -> None:
    """A wave's amplitude changes by what the Gaussian takes of it; its mean, and what is flat, stay."""
    cycles, length = 8, 64
    wave = 0.1 * torch.cos(2 * torch.pi * cycles * torch.arange(length) / length)
    images = (0.5 + wave).expand(4, 3, 16, length).clone()
    images[3] = 0.25
    strength = torch.tensor([-1.0, 0.0, 2.0, 2.0])
    changed = unsharp(images, strength, SHARPEN_SIGMA)
    kept = np.exp(-0.5 * (2 * np.pi * cycles / length * SHARPEN_SIGMA) ** 2)  # the Gaussian's transfer function
    inner = slice(8, -8)
    for row, factor in enumerate(1 + strength[:3].numpy() * (1 - kept)):
        expected = 0.5 + factor * (images[row] - 0.5)
        torch.testing.assert_close(changed[row, ..., inner], expected[..., inner], atol=2e-3, rtol=0)
    assert torch.equal(changed[1], images[1])
    torch.testing.assert_close(changed[3], images[3])


def test_the_ends_of_blend_are_the_two_renderers(settings: dict[str, Any], perceptual: Path) -> None:
    simulator = make(settings)
    faithful, textured = (load_renderer(settings[name], scale=4).network for name in ("renderer", "blend_renderer"))
    scenes = simulator.draw(UNIFORMS)
    actions = torch.zeros(3, 12)
    actions[:, 11] = torch.tensor([0.0, 0.8, 1.0])  # shares 0, 1 and 1.25
    code = simulator.basis.to_code(actions[:, :10])
    ends = [network(scenes.lr, code) for network in (faithful, textured)]
    beyond = ends[0] + 1.25 * (ends[1] - ends[0])
    sr = simulator.unrounded(scenes.lr, actions)
    for row, expected in enumerate((ends[0], ends[1], beyond)):
        torch.testing.assert_close(sr[row], expected[row], atol=1e-6, rtol=1e-5)
    # From the other end the same range is passed, around another zero.
    other = make(settings, renderer=str(perceptual), blend_renderer=settings["renderer"])
    assert other.controls.neutral == {"sharpen": 0.0, "blend": 1.0}
    actions[:, 11] = torch.tensor([-0.8, 0.0, 1.0])
    torch.testing.assert_close(other.unrounded(scenes.lr, actions), sr, atol=1e-6, rtol=1e-5)


def test_different_values_in_a_batch_are_what_they_are_alone(settings: dict[str, Any]) -> None:
    simulator = make(settings)
    scenes = simulator.draw(UNIFORMS)
    actions = torch.from_numpy(np.random.default_rng(3).uniform(-1, 1, (3, 12)).astype(np.float32))
    together = simulator.unrounded(scenes.lr, actions)
    alone = [simulator.unrounded(scenes.lr[row : row + 1], actions[row : row + 1]) for row in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_gradients_reach_every_control(settings: dict[str, Any]) -> None:
    simulator = make(settings)
    lr, slopes = simulator.draw(UNIFORMS).lr, []
    for value in (-1e-3, 0.0):
        actions = torch.full((3, 12), value, requires_grad=True)
        simulator.unrounded(lr, actions).square().sum().backward()  # type: ignore[no-untyped-call]
        assert actions.grad is not None
        slopes.append(actions.grad[:, 10:])
    assert (slopes[1] != 0).all()
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0.05, atol=0)  # at 0 it is that of one side, not of both


def test_change_measures_the_controls_too(settings: dict[str, Any]) -> None:
    simulator = make(settings, controls=("code", "sharpen"))
    scenes = simulator.draw(UNIFORMS)
    change = simulator.change(scenes, simulator.reconstruct(scenes)[1])
    assert change.shape == (11, 11)
    sr = simulator.unrounded(scenes.lr, simulator.reconstruct(scenes)[1])
    detail = sr - unsharp(sr, torch.full((3,), -1.0), SHARPEN_SIGMA)
    slope = (RANGES["sharpen"][1] - RANGES["sharpen"][0]) / 2  # of the two sides of zero
    assert change[10, 10].sqrt() == pytest.approx(255 * slope * detail.square().mean().sqrt().item(), rel=1e-3)


def test_a_partner_of_another_scale_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="'amnet_l_x2' is for scale 2, not 4"):
        make(settings, blend_renderer="amnet_l_x2")


def test_a_renderer_of_ones_own_needs_a_partner(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="none is known to go with 'tiny_renderer': name the other one as blend_rend"):
        make(settings, blend_renderer=None)
    assert make(settings, blend_renderer=None, controls=("code", "sharpen")).controls.length == 11


def test_every_released_partner_is_at_the_other_end() -> None:
    released = available_checkpoints("renderer")
    for name, partner in PARTNERS.items():
        assert {name, partner} <= set(released)
        own, other = (load_renderer(each) for each in (name, partner))
        assert own.scale == other.scale
        assert own.basis.matches(other.basis)
        assert ("adversarial" in own.card) != ("adversarial" in other.card)


def test_a_widened_predictor_gives_the_code_as_before_and_zeros(tiny_predictor: Path) -> None:
    predictor = load_predictor(tiny_predictor)
    wide = widened(predictor, CONTROLS)
    lr = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    actions = wide.network(lr)
    torch.testing.assert_close(actions[:, :10], predictor.network(lr), atol=1e-6, rtol=0)
    assert torch.equal(actions[:, 10:], torch.zeros(5, 2))
    assert wide.card["controls"] == list(CONTROLS)
    assert (wide.network.architecture["code_length"], predictor.network.code_length) == (12, 10)
    assert widened(wide, CONTROLS) is wide
    assert widened(predictor, ("code",)) is predictor


def test_a_predictor_that_says_how_sure_it_is_is_widened_and_kept(tmp_path: Path) -> None:
    """What is written of it beside the released one it began with is read again."""
    names = ("code", "sharpen")
    predictor = load_predictor("predictor_real_x4")
    wide = widened(predictor, names)
    lr = torch.rand(2, 3, 24, 24)
    before, after = predictor.network(lr, doubtful=True), wide.network(lr, doubtful=True)
    assert after.shape == (2, 2 * 19)
    torch.testing.assert_close(after[:, :18], before[:, :18])
    torch.testing.assert_close(after[:, 19:37], before[:, 18:])
    path = save_checkpoint(tmp_path / "actor.safetensors", wide.network, wide.basis, 4, wide.card, predictor.path.stem)
    again = load_predictor(path, controls=names)
    torch.testing.assert_close(again.network(lr, doubtful=True), after)
