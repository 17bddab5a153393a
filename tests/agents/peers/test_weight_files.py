"""Weights in ncnn's format are read as written, and what is damaged is refused with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blindsr_agents.peers import read_ncnn

from sr_env.utils.checks import UsageError

Layers = list[tuple[np.ndarray, np.ndarray]]
WriteNcnn = Callable[[Path, Layers, bool], None]


@pytest.fixture
def layers() -> Layers:
    """Numbers of weights that are odd, so that 16-bit ones need padding."""
    rng = np.random.default_rng(0)
    shapes = [(5, 3, 3, 3), (1, 5, 1, 1), (3, 1, 3, 3)]
    return [(rng.normal(size=s).astype(np.float16).astype(np.float32), rng.normal(size=s[0])) for s in shapes]


@pytest.mark.parametrize("half", [True, False])
def test_ncnn_files(tmp_path: Path, layers: Layers, half: bool, write_ncnn: WriteNcnn) -> None:
    write_ncnn(tmp_path / "net-x4", layers, half)
    for (weight, bias), (expected_weight, expected_bias) in zip(read_ncnn(tmp_path / "net-x4"), layers, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected_weight)
        np.testing.assert_allclose(bias.numpy(), expected_bias, rtol=1e-6)


def test_damaged_ncnn_files(tmp_path: Path, layers: Layers, write_ncnn: WriteNcnn) -> None:
    write_ncnn(tmp_path / "net", layers, True)
    binary = tmp_path / "net.bin"
    whole = binary.read_bytes()
    for damaged in (whole[:-4], whole + b"1234", b"\x01\0\0\0" + whole[4:]):
        binary.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"does not fit net\.param .* install its package again"):
            read_ncnn(tmp_path / "net")
