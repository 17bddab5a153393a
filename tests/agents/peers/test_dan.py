"""DAN: its authors' files fit, and others are refused with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from blindsr_agents.peers import DAN, load_dan
from torch import nn

# --------------------------------------------------------------------------------------------------------------- DAN
from sr_env.utils.checks import MissingFileError, UsageError


def small_dan(scale: int) -> DAN:
    torch.manual_seed(0)
    network = DAN(scale, channels=16, blocks=2, estimator_channels=16, estimator_blocks=1).eval()
    nn.init.normal_(network.init_ker_map)
    return network


def test_dan_has_the_keys_of_its_authors() -> None:
    """As their code names them, for the published sizes."""

    def block(prefix: str) -> list[str]:
        return [f"{prefix}.body.{layer}" for layer in ("0", "2", "3.body.0", "3.body.2")]

    modules = ["Restorer.head", "Restorer.fusion", *(f"Restorer.upscale.{n}" for n in (0, 2, 4))]
    modules += [name for n in range(40) for name in block(f"Restorer.body.{n}")]
    modules += ["Estimator.head_LR", "Estimator.head_HR", "Estimator.out"]
    modules += [name for n in range(5) for name in block(f"Estimator.body.{n}")]
    keys = {f"{module}.{part}" for module in modules for part in ("weight", "bias")}
    state = DAN().state_dict()
    assert set(state) == keys | {"encoder", "init_kernel", "init_ker_map"}
    assert state["Restorer.body.39.body.0.weight"].shape == (74, 74, 3, 3)
    assert state["Estimator.head_HR.weight"].shape == (32, 3, 9, 9)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_dan_from_a_checkpoint(tmp_path: Path, scale: int) -> None:
    network = small_dan(scale)
    path = tmp_path / "dan.pth"
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, path)
    lr = torch.rand(2, 3, 9, 12)
    sr = load_dan(path, scale)(lr)
    assert sr.shape == (2, 3, 9 * scale, 12 * scale)
    torch.testing.assert_close(sr, network(lr))
    with torch.no_grad():  # four restorations, three estimations, by hand
        code = network.init_ker_map.repeat(2, 1)
        for _ in range(3):
            code = network.Estimator(network.Restorer(lr, code), lr)
        torch.testing.assert_close(sr, network.Restorer(lr, code))


def test_dan_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "dan.pth"
    with pytest.raises(MissingFileError, match=r"no checkpoint .*dan\.pth"):
        load_dan(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="is damaged or no plain tensors"):
        load_dan(path)
    torch.save({"Restorer.head1.weight": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="second version"):
        load_dan(path)
    torch.save({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="does not hold DAN: 'Restorer"):
        load_dan(path)
    torch.save(small_dan(2).state_dict(), path)
    with pytest.raises(UsageError, match="is for scale 2, not 4"):
        load_dan(path, 4)
    torch.save({"model": small_dan(2).state_dict()}, path)
    with pytest.raises(UsageError, match="no state dict of tensors"):
        load_dan(path)
    state = small_dan(4).state_dict()
    del state["Estimator.out.bias"]
    torch.save(state, path)
    with pytest.raises(UsageError, match=r"does not hold DAN .*Estimator\.out\.bias"):
        load_dan(path)
