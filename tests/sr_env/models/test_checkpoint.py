"""Checkpoints: bit-exact round trip, and one clear error for everything that can be wrong with a file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sr_env.degradation import load_basis
from sr_env.models import AMNet
from sr_env.models.checkpoint import (
    RELEASED,
    available_checkpoints,
    load_predictor,
    load_renderer,
    read_card,
    save_checkpoint,
)
from sr_env.models.predictor import KernelPredictor


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, AMNet]:
    """A tiny x2 renderer and where it was written."""
    torch.manual_seed(3)
    network = AMNet(scale=2, channels=6, blocks=1)
    card = {"steps": 7, "data": "noise", "validation": {"psnr": 1.5}}
    return save_checkpoint(tmp_path / "net.safetensors", network, load_basis("isotropic", 2), 2, card), network


def rewrite(path: Path, **changes: object) -> None:
    """Change entries of the embedded card and drop the one beside it."""
    card = {**read_card(path), **changes}
    save_file(load_file(path), path, metadata={"card": json.dumps(card)})
    path.with_suffix(".json").unlink()


# ------------------------------------------------------------------------------------------------------- round trip


def test_renderer_round_trip_is_bit_exact(saved: tuple[Path, AMNet]) -> None:
    path, network = saved
    loaded = load_renderer(path, scale=2)
    assert isinstance(loaded.network, AMNet)
    assert loaded.scale == 2
    assert loaded.path == path
    assert loaded.network.state_dict().keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
    assert loaded.basis.digest == load_basis("isotropic", 2).digest
    assert not loaded.network.training
    assert not any(p.requires_grad for p in loaded.network.parameters())
    card = loaded.card
    assert (card["kind"], card["scale"], card["basis"]) == ("renderer", 2, loaded.basis.digest)
    assert card["architecture"] == network.architecture
    assert card["parameters"] == sum(p.numel() for p in network.parameters())
    assert (card["steps"], card["data"], card["validation"]) == (7, "noise", {"psnr": 1.5})


def test_predictor_round_trip_is_bit_exact(tmp_path: Path) -> None:
    torch.manual_seed(4)
    network = KernelPredictor(channels=4, hidden=16)
    basis = load_basis("isotropic", 3)
    loaded = load_predictor(save_checkpoint(tmp_path / "p.safetensors", network, basis, 3, {}), scale=3, basis=basis)
    assert loaded.card["kind"] == "predictor"
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
    lr = torch.rand(2, 3, 12, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.network(lr), network(lr))


def test_weights_in_channels_last_and_a_path_given_as_text(tmp_path: Path) -> None:
    network = AMNet(scale=4, channels=6, blocks=1).to(memory_format=torch.channels_last)
    path = save_checkpoint(str(tmp_path / "n.safetensors"), network, load_basis("isotropic", 4), 4, {})
    for name, value in load_renderer(str(path)).network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_card_beside_is_the_embedded_one_and_may_be_missing(saved: tuple[Path, AMNet]) -> None:
    path, network = saved
    assert json.loads(path.with_suffix(".json").read_text()) == read_card(path)
    path.with_suffix(".json").unlink()
    assert torch.equal(load_renderer(path).network.head.weight, network.head.weight)


def test_writing_leaves_two_files_and_overwrites_whole(saved: tuple[Path, AMNet]) -> None:
    path, network = saved
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]
    with torch.no_grad():
        network.head.bias.add_(1)
    save_checkpoint(path, network, load_basis("isotropic", 2), 2, {"steps": 8})
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]
    assert torch.equal(load_renderer(path).network.head.bias, network.head.bias)
    assert read_card(path)["steps"] == 8


def test_interrupted_writing_keeps_the_old_file(saved: tuple[Path, AMNet], monkeypatch: pytest.MonkeyPatch) -> None:
    path, network = saved
    before = path.read_bytes()

    def half_then_dies(path: Path, data: bytes) -> None:
        path.open("wb").write(data[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half_then_dies)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, network, load_basis("isotropic", 2), 2, {})
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]


# ------------------------------------------------------------------------------------------------ what is refused


def test_unknown_name_lists_what_is_released(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no renderer 'amnet_xl_x4'") as caught:
        load_renderer("amnet_xl_x4")
    assert all(name in str(caught.value) for name in available_checkpoints("renderer"))
    for load in (load_renderer, load_predictor, read_card):
        with pytest.raises(FileNotFoundError, match=r"give a \.safetensors file"):
            load(tmp_path / "gone.safetensors")
        with pytest.raises(FileNotFoundError):
            load(tmp_path)


def test_scale_mismatch(saved: tuple[Path, AMNet], tiny_predictor: Path) -> None:
    with pytest.raises(ValueError, match=r"is for scale 2, not 4"):
        load_renderer(saved[0], scale=4)
    with pytest.raises(ValueError, match=r"is for scale 4, not 3"):
        load_predictor(tiny_predictor, scale=3)


def test_kind_mismatch(tiny_renderer: Path, tiny_predictor: Path) -> None:
    with pytest.raises(ValueError, match="is a predictor, not a renderer"):
        load_renderer(tiny_predictor)
    with pytest.raises(ValueError, match="is a renderer, not a predictor"):
        load_predictor(tiny_renderer)


def test_basis_mismatch(tiny_predictor: Path, saved: tuple[Path, AMNet]) -> None:
    other = load_basis("anisotropic", 4)
    with pytest.raises(ValueError, match=f"speaks kernel basis .* the renderer {other.digest}"):
        load_predictor(tiny_predictor, basis=other)
    path, _ = saved
    tensors, card = load_file(path), {key: value for key, value in read_card(path).items() if key != "digest"}
    tensors["basis.mean"] += 1e-4
    path.with_suffix(".json").unlink()
    save_file(tensors, path, metadata={"card": json.dumps(card)})
    with pytest.raises(ValueError, match=r"holds kernel basis .* its card says"):
        load_renderer(path)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.002, 0.05, 0.5, 0.999])
def test_truncated_file(saved: tuple[Path, AMNet], share: float) -> None:
    path, _ = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for load in (load_renderer, read_card):
        with pytest.raises(ValueError, match=r"net\.safetensors' is damaged or not safetensors"):
            load(path)


@pytest.mark.parametrize("content", [b"not a checkpoint at all", b"\xff" * 4000, pickle.dumps({"a": 1})])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or not safetensors"):
        load_renderer(path)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"x": Trap()}, tmp_path / "evil.safetensors")
    with pytest.raises(ValueError, match="not safetensors"):
        load_renderer(tmp_path / "evil.safetensors")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "metadata", [None, {"other": "x"}, {"card": "{"}, {"card": "[]"}, {"card": '{"kind": "renderer"}'}]
)
def test_weights_without_a_card(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "bare.safetensors"
    save_file({"network.x": torch.zeros(3)}, path, metadata=metadata)
    with pytest.raises(ValueError, match="carries no card"):
        load_renderer(path)


def test_card_beside_that_is_not_json(saved: tuple[Path, AMNet]) -> None:
    path, _ = saved
    path.with_suffix(".json").write_text('{"kind": "rend')
    with pytest.raises(ValueError, match=r"net.json' is not JSON"):
        load_renderer(path)
    path.with_suffix(".json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"net.json' is not JSON"):
        load_renderer(path)
    path.with_suffix(".json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="do not belong together"):
        load_renderer(path)


@pytest.mark.parametrize(
    ("key", "value"), [("scale", 4), ("basis", "0" * 16), ("kind", "predictor"), ("architecture", {})]
)
def test_card_beside_that_was_changed(saved: tuple[Path, AMNet], key: str, value: object) -> None:
    path, _ = saved
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), key: value}))
    with pytest.raises(ValueError, match=f"says another {key} than the weights beside it"):
        load_renderer(path)


def test_card_of_other_weights(saved: tuple[Path, AMNet], tiny_renderer: Path) -> None:
    path, _ = saved
    path.with_suffix(".json").write_text(tiny_renderer.with_suffix(".json").read_text())
    with pytest.raises(ValueError, match="do not belong together"):
        load_renderer(path)


def test_tensors_of_another_architecture(saved: tuple[Path, AMNet]) -> None:
    path, network = saved
    rewrite(path, architecture={**network.architecture, "blocks": 3})
    with pytest.raises(ValueError, match="do not fit its architecture"):
        load_renderer(path)


def test_architecture_with_an_unknown_entry_or_none(saved: tuple[Path, AMNet]) -> None:
    path, network = saved
    rewrite(path, architecture={**network.architecture, "heads": 8})
    with pytest.raises(ValueError, match="do not fit its architecture"):
        load_renderer(path)
    rewrite_again = {**read_card(path), "architecture": None}
    save_file(load_file(path), path, metadata={"card": json.dumps(rewrite_again)})
    with pytest.raises(ValueError, match="do not fit its architecture"):
        load_renderer(path)


def test_missing_basis_tensor(saved: tuple[Path, AMNet]) -> None:
    path, _ = saved
    tensors, card = load_file(path), {key: value for key, value in read_card(path).items() if key != "digest"}
    del tensors["basis.centre"]
    path.with_suffix(".json").unlink()
    save_file(tensors, path, metadata={"card": json.dumps(card)})
    with pytest.raises(ValueError, match="lacks centre"):
        load_renderer(path)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    basis = load_basis("isotropic", 4)
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save_checkpoint(tmp_path / "net.pt", AMNet(channels=4, blocks=1), basis, 4, {})
    with pytest.raises(ValueError, match="Linear is neither"):
        save_checkpoint(tmp_path / "net.safetensors", nn.Linear(2, 2), basis, 4, {})
    with pytest.raises(ValueError, match="scale"):
        save_checkpoint(tmp_path / "net.safetensors", AMNet(scale=2, channels=4, blocks=1), basis, 4, {})
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------- what is released


@pytest.mark.parametrize("name", available_checkpoints())
def test_released_checkpoint(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a short name does not depend on the working folder
    card = read_card(name)
    load = load_renderer if card["kind"] == "renderer" else load_predictor
    loaded = load(name)
    actor = name.startswith("actor_")  # made of a predictor by reward, the best of its seeds
    assert name.endswith(f"_x{loaded.scale}")
    assert json.loads((RELEASED / f"{name}.json").read_text()) == card == loaded.card
    family = "real" if "_real_" in name else "isotropic"
    assert loaded.basis.digest == load_basis(family, loaded.scale).digest
    by_path = load(RELEASED / f"{name}.safetensors").network.state_dict()
    assert all(torch.equal(by_path[key], value) for key, value in loaded.network.state_dict().items())
    assert all(bool(value.isfinite().all()) for value in by_path.values())
    kept = load_file(RELEASED / f"{name}.safetensors")
    for key, value in kept.items():  # a basis is known by its bytes, a network computes the same to float16's rounding
        assert value.dtype == (torch.float32 if key.startswith("basis.") else torch.float16), key
        if key.startswith("network."):
            assert torch.equal(by_path[key.removeprefix("network.")], value.float())
    assert {value.dtype for value in by_path.values()} == {torch.float32}
    made = ("digest", "steps", "seconds", "hardware", "torch", "seed", "command", "settings")
    told = (
        ("method", "renderer", "reward", "kept", "selection", "base", "data")
        if actor
        else ("photos", "validation", "losses")
    )
    for key in (*made, *told):
        assert key in card, key
    assert card["licence"] == "Apache-2.0"


def test_one_actor_is_released_per_reward_and_renderer() -> None:
    actors = [read_card(name) for name in available_checkpoints("predictor") if name.startswith("actor_")]
    tables = {(json.dumps(card["reward"]), card["renderer"]) for card in actors}
    assert len(tables) == len(actors) == 12


def test_half_precision_keeps_the_basis_and_comes_back_as_float32(saved: tuple[Path, AMNet], tmp_path: Path) -> None:
    network, basis = saved[1], load_basis("isotropic", 2)
    path = save_checkpoint(tmp_path / "half.safetensors", network, basis, 2, {}, half=True)
    assert path.stat().st_size < saved[0].stat().st_size
    loaded = load_renderer(path)
    assert loaded.basis.digest == basis.digest
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value.half().float()), name
    assert loaded.card["stored_as"] == "float16"


def test_available_checkpoints_are_split_by_kind() -> None:
    every = available_checkpoints()
    assert list(every) == sorted(every)
    assert set(every) == set(available_checkpoints("renderer")) | set(available_checkpoints("predictor"))
    assert all(name.startswith(("predictor", "actor")) for name in available_checkpoints("predictor"))
    assert not any(name.startswith("kernels") for name in every)


def test_a_short_name_wins_over_nothing_but_a_path_is_a_path(tmp_path: Path, saved: tuple[Path, AMNet]) -> None:
    """``./NAME.safetensors`` is the file given, never the released weights of that name."""
    if "amnet_l_x4" not in available_checkpoints():
        pytest.skip("no weights ship yet")
    own = tmp_path / "amnet_l_x4.safetensors"
    own.write_bytes(saved[0].read_bytes())
    assert load_renderer(own).scale == 2
    assert load_renderer("amnet_l_x4").scale == 4


# ------------------------------------------------------------------------------------------------------------- bases


def actor_of(base: str) -> KernelPredictor:
    """The predictor that ships, with another last layer."""
    network = load_predictor(base).network
    network.head[2].bias += 0.25
    return network


def test_a_checkpoint_may_hold_only_what_its_base_lacks(tmp_path: Path) -> None:
    base = load_predictor("predictor_x4")
    actor = actor_of("predictor_x4")
    path = save_checkpoint(tmp_path / "actor.safetensors", actor, base.basis, 4, {"seed": 1}, base="predictor_x4")
    assert set(load_file(path)) == {"network.head.2.bias"}
    assert path.stat().st_size < 10_000
    loaded = load_predictor(path, scale=4, basis=base.basis)
    for name, value in actor.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
    assert read_card(path)["base"]["name"] == "predictor_x4"


def test_a_base_that_is_absent_or_changed_is_named(tmp_path: Path) -> None:
    base = load_predictor("predictor_x4")
    actor = actor_of("predictor_x4")
    path = save_checkpoint(tmp_path / "actor.safetensors", actor, base.basis, 4, {}, base="predictor_x4")
    rewrite(path, base={"name": "predictor_x4", "digest": "0" * 16})
    with pytest.raises(ValueError, match="has since changed"):
        load_predictor(path)
    rewrite_embedded(path, base={"name": "no_such", "digest": "0" * 16})
    with pytest.raises(ValueError, match="which is not released"):
        load_predictor(path)


def rewrite_embedded(path: Path, **changes: object) -> None:
    save_file(load_file(path), path, metadata={"card": json.dumps({**read_card(path), **changes})})


def test_only_released_weights_of_the_same_kind_are_bases(tmp_path: Path) -> None:
    network, basis = actor_of("predictor_x4"), load_basis("isotropic", 4)
    with pytest.raises(FileNotFoundError, match="no base 'nothing' is released"):
        save_checkpoint(tmp_path / "a.safetensors", network, basis, 4, {}, base="nothing")
    with pytest.raises(ValueError, match="is a renderer, not a predictor"):
        save_checkpoint(tmp_path / "a.safetensors", network, basis, 4, {}, base="amnet_l_x4")
    assert not list(tmp_path.iterdir())
