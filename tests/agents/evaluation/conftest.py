"""A console that keeps what is printed, the settings of a small benchmark, and the programs of benchmarks/."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from evaluate import Settings
from PIL import Image
from rich.console import Console

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a program of benchmarks/ by its name, under one of its own: modules of the package are named like it."""

    def load(name: str) -> ModuleType:
        specification = spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
        assert specification is not None
        assert specification.loader is not None
        module = module_from_spec(specification)
        monkeypatch.setitem(sys.modules, specification.name, module)  # dataclasses look themselves up there
        specification.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=300)


@pytest.fixture
def settings(tmp_path: Path, tiny_renderer: Path, tiny_predictor: Path, random_photos: list[np.ndarray]) -> Settings:
    for name, images in (("Set5", random_photos[:2]), ("Own", random_photos[2:3])):
        (tmp_path / "bench" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            # Sides that the scale does not divide: what is left over is cut off.
            Image.fromarray(image[:125, :130]).save(tmp_path / "bench" / name / f"{number}.png")
    return Settings(
        bench_dir=tmp_path / "bench",
        sets=("Set5", "Own"),
        renderers=(str(tiny_renderer),),
        predictor=str(tiny_predictor),
        peers=(),
        widths=(0.5, 2.0),
        metrics=("psnr", "ssim"),
        device="cpu",
    )
