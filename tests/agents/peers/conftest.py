"""Files in ncnn's format, and the packages that carry them, present or absent."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Layers = list[tuple[np.ndarray, np.ndarray]]
WriteNcnn = Callable[[Path, Layers, bool], None]


@pytest.fixture
def write_ncnn() -> WriteNcnn:
    """Writes a chain of convolutions in ncnn's format; at 16 bits a weight or at 32."""
    return _write_ncnn


def _write_ncnn(stem: Path, layers: Layers, half: bool) -> None:
    """A chain of convolutions in ncnn's format."""
    lines, data = ["7767517", f"{len(layers) + 1} {len(layers) + 1}", "Input in 0 1 b0"], b""
    for number, (weight, bias) in enumerate(layers):
        out, _, side, _ = weight.shape
        lines.append(f"Convolution c{number} 1 1 b{number} b{number + 1} 0={out} 1={side} 4=1 5=1 6={weight.size} 9=1")
        raw = weight.astype("<f2" if half else "<f4").tobytes()
        data += (0x01306B47 if half else 0).to_bytes(4, "little") + raw + b"\0" * (-len(raw) % 4)
        data += bias.astype("<f4").tobytes()
    stem.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{stem}.param").write_text("\n".join(lines) + "\n")
    Path(f"{stem}.bin").write_bytes(data)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the installed ncnn packages."""
    folder = tmp_path / "site" / "package"
    folder.mkdir(parents=True)
    real = importlib.util.find_spec

    def find_spec(name: str, *args: str) -> importlib.machinery.ModuleSpec | None:
        if not name.endswith("_ncnn_py"):
            return real(name, *args)
        spec = importlib.machinery.ModuleSpec(name, None)
        spec.submodule_search_locations = [str(folder)]
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return folder


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name.endswith("_ncnn_py") else real(name, *args)
    )
