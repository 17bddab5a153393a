"""Files from elsewhere: damaged, hostile or contradictory ones are refused before anything is built of them."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sr_env.degradation import KernelBasis, load_basis
from sr_env.models import AMNet, load_predictor, load_renderer, read_card, save_checkpoint
from sr_env.models.base import RELEASED
from sr_env.models.hub import HubRenderer
from sr_env.models.predictor import KernelPredictor
from sr_env.utils.checks import UsageError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A tiny x4 renderer."""
    torch.manual_seed(3)
    return save_checkpoint(
        tmp_path / "net.safetensors", AMNet(channels=6, blocks=1), load_basis("isotropic", 4), 4, {"steps": 7}
    )


def rewritten(path: Path, card: Any, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """The file with another card, or with other tensors, and none beside."""
    save_file(load_file(path) if tensors is None else tensors, path, {"card": json.dumps(card)})
    path.with_suffix(".json").unlink(missing_ok=True)
    return path


# ------------------------------------------------------------------------------------------------ damage shows


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["network.head.weight", "network.tail.bias"])
def test_one_flipped_bit_of_a_weight_is_noticed(tmp_path: Path, half: bool, name: str) -> None:
    path = save_checkpoint(
        tmp_path / "n.safetensors", AMNet(channels=6, blocks=1), load_basis("isotropic", 4), 4, {}, half=half
    )
    load_renderer(path)
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    content[8 + length + json.loads(content[8 : 8 + length])[name]["data_offsets"][0]] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged: its tensors are not those that its card was written for"):
        load_renderer(path)


@pytest.mark.parametrize("name", ["amnet_l_x4", "actor_lpips_amnet_l_x4"])
def test_released_weights_are_checked_by_the_card_beside_them(name: str, tmp_path: Path) -> None:
    """Those were written before files had digests: the card beside them has it."""
    load = load_predictor if name.startswith("actor") else load_renderer
    copies = [tmp_path / f"{name}{suffix}" for suffix in (".safetensors", ".json")]
    for copy in copies:
        copy.write_bytes((RELEASED / copy.name).read_bytes())
    load(copies[0])
    content = bytearray(copies[0].read_bytes())
    content[-4001:-1] = bytes(4000)
    copies[0].write_bytes(content)
    with pytest.raises(UsageError, match="is damaged: its tensors are not those"):
        load(copies[0])


def test_a_file_of_before_there_were_digests_is_read(saved: Path) -> None:
    card = {key: value for key, value in read_card(saved).items() if key != "digest"}
    assert "digest" not in load_renderer(rewritten(saved, card)).card


def test_a_card_taken_over_from_other_weights_brings_no_digest(saved: Path, tmp_path: Path) -> None:
    """As interpolation and the Hub take it over."""
    first = load_renderer(saved)
    other = AMNet(channels=6, blocks=1)
    path = save_checkpoint(tmp_path / "other.safetensors", other, first.basis, 4, first.card)
    assert load_renderer(path).card["digest"] != first.card["digest"]
    assert load_renderer(path).card["steps"] == 7
    pytest.importorskip("huggingface_hub")
    HubRenderer.from_checkpoint("amnet_l_x4").save_pretrained(tmp_path / "hub")
    again = HubRenderer.from_pretrained(tmp_path / "hub")
    assert "stored_as" not in again.card  # it was in half precision, and is no more


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["network.head.weight", "basis.half_range"])
def test_weights_that_are_not_finite_are_refused(saved: Path, name: str, wrong: float) -> None:
    tensors, card = load_file(saved), read_card(saved)
    tensors[name].view(-1)[1] = wrong
    del card["digest"]
    with pytest.raises(UsageError, match=rf"holds numbers that are not finite \('{name}'\)"):
        load_renderer(rewritten(saved, card, tensors))


# --------------------------------------------------------------------------------------- cards that are not ours


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


WRONG = (None, True, -1, 0, 1.5, float("nan"), 10**400, "x", "x" * 100_000, [], [1], {}, {"name": 1}, nested(200))


@pytest.mark.parametrize("entry", ["kind", "scale", "basis", "architecture", "network", "base", "digest", "card"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:12])
def test_a_wrong_entry_is_one_clear_error(saved: Path, entry: str, value: Any) -> None:
    card = value if entry == "card" else {**read_card(saved), entry: value}
    rewritten(saved, card)
    for load in (load_renderer, load_predictor):
        with pytest.raises(UsageError) as caught:
            load(saved)
        assert str(saved) in str(caught.value)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", ["scale", "channels", "blocks", "code_length"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:12])
def test_a_wrong_number_of_an_architecture_is_one_clear_error(saved: Path, key: str, value: Any) -> None:
    card = read_card(saved)
    rewritten(saved, {**card, "architecture": {**card["architecture"], key: value}})
    with pytest.raises(UsageError, match=r"do not fit its architecture|carries no card"):
        load_renderer(saved)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"kind":' * 5000, "9" * 5000, "nan", "\x00", '"', ""])
def test_a_card_that_no_parser_takes(saved: Path, text: str) -> None:
    save_file(load_file(saved), saved, {"card": text})
    for load in (load_renderer, read_card):
        with pytest.raises(UsageError, match="carries no card"):
            load(saved)
    rewritten(saved, {**read_card(RELEASED / "amnet_l_x4.safetensors")})
    saved.with_suffix(".json").write_text(text)
    with pytest.raises(UsageError, match=r"net\.json' is not JSON|do not belong together"):
        read_card(saved)


@pytest.mark.parametrize(
    "bomb",
    [{"channels": 4096}, {"channels": 6000}, {"blocks": 256}, {"blocks": 10**9}, {"code_length": 10**9}],
    ids=str,
)
def test_a_card_cannot_bomb_the_loader(saved: Path, bomb: dict[str, int]) -> None:
    """4096 channels in 256 blocks would take 309 GB; what is refused takes neither memory nor time."""
    card = read_card(saved)
    rewritten(saved, {**card, "architecture": {**card["architecture"], **bomb}})
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(UsageError, match="do not fit its architecture"):
        load_renderer(saved)
    assert time.perf_counter() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("bomb", [{"channels": 4096}, {"hidden": 4096}, {"hidden": 10**12}, {"channels": "8"}], ids=str)
def test_nor_can_a_predictor_s(tmp_path: Path, bomb: dict[str, Any]) -> None:
    network = KernelPredictor(channels=4, hidden=8)
    path = save_checkpoint(tmp_path / "p.safetensors", network, load_basis("isotropic", 4), 4, {})
    rewritten(path, {**read_card(path), "architecture": {**network.architecture, **bomb}})
    with pytest.raises(UsageError, match="do not fit its architecture"):
        load_predictor(path)


def test_a_scale_that_the_weights_contradict_is_refused(saved: Path) -> None:
    """Else a picture of twice the size is written where four times was promised, or the other way round."""
    rewritten(saved, {**read_card(saved), "scale": 2})
    with pytest.raises(UsageError, match="holds a network of scale 4, its card and kernel basis say 2"):
        load_renderer(saved)


def test_a_code_length_that_the_basis_contradicts_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(
        tmp_path / "n.safetensors", AMNet(channels=6, blocks=1, code_length=4), load_basis("isotropic", 4), 4, {}
    )
    with pytest.raises(UsageError, match="holds a network of code_length 4, its card and kernel basis say 10"):
        load_renderer(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mean", (440,)), ("mean", (21, 21)), ("components", (10, 440)), ("scale", (9,)), ("centre", ()), ("mean", (0,))],
)
def test_a_basis_of_shapes_that_do_not_fit_is_refused(name: str, shape: tuple[int, ...]) -> None:
    state = {**load_basis("isotropic", 4).state_dict(), name: torch.ones(shape)}
    with pytest.raises(UsageError, match="the kernel basis has"):
        KernelBasis.from_state(state)


def test_loading_draws_what_it_drew_before(saved: Path) -> None:
    """The sketch without memory takes nothing from the generator, so that seeded runs keep their numbers."""
    torch.manual_seed(0)
    load_renderer(saved)
    after_loading = torch.get_rng_state()
    torch.manual_seed(0)
    AMNet(channels=6, blocks=1)
    assert torch.equal(after_loading, torch.get_rng_state())


@pytest.mark.parametrize("build", [lambda n: AMNet(channels=n), lambda n: AMNet(blocks=n), KernelPredictor])
def test_sizes_are_bounded_in_python_too(build: Callable[[Any], object]) -> None:
    for wrong in (0, -3, 10**9, 2.0, "8", True, None):
        with pytest.raises(UsageError, match="give a whole number from 1 to"):
            build(wrong)
