"""Files are read without running what is in them: under every name that anything loads, and in every loader."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.peers import load_dan, load_realesrgan, load_srmdnf, load_usrgan
from blindsr_agents.stock import load_hyperparameters
from blindsr_agents.training import reading_state
from blindsr_agents.training.state import load_weights
from blindsr_pretrain.state import load_parts

from sr_env.cli.upscale import Settings, create_upscaler
from sr_env.metrics import package_index, perceptual, weights
from sr_env.models import load_predictor, load_renderer, read_card
from sr_env.models.onnx import load_onnx_renderer
from sr_env.utils.checks import UsageError, WeightsUnavailable
from sr_env.utils.resume import read_verified

ROOT = Path(__file__).resolve().parents[1]


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def numpy_array(trap: Trap, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([trap], object), allow_pickle=True)


def numpy_archive(trap: Trap, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, P=np.array([trap], object))


WRITERS: dict[str, Callable[[Trap, Path], object]] = {
    "torch": lambda trap, path: torch.save({"content": {"weight": trap}, "digest": ""}, path),
    "torch, before 1.6": lambda trap, path: torch.save({"a": trap}, path, _use_new_zipfile_serialization=False),
    "pickle": lambda trap, path: path.write_bytes(pickle.dumps({"a": trap}, protocol=2)),
    "numpy": numpy_array,
    "numpy, archive": numpy_archive,
}
#: What falls for each: loaders as they are where nobody thought of it.
VICTIMS: dict[str, Callable[[Path], object]] = {
    "torch": lambda path: torch.load(path, weights_only=False),
    "torch, before 1.6": lambda path: torch.load(path, weights_only=False),
    "pickle": lambda path: pickle.loads(path.read_bytes()),
    "numpy": lambda path: np.load(path, allow_pickle=True),
    "numpy, archive": lambda path: np.load(path, allow_pickle=True)["P"],
}


@pytest.mark.parametrize("written", WRITERS)
def test_the_trap_works(written: str, tmp_path: Path) -> None:
    WRITERS[written](Trap(tmp_path / "ran"), tmp_path / "evil.pth")
    VICTIMS[written](tmp_path / "evil.pth")
    assert (tmp_path / "ran").exists()


def lpips_heads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = path.parent / "lpips" / "weights" / "v0.1"
    folder.mkdir(parents=True)
    path.rename(folder / "alex.pth")
    spec = SimpleNamespace(submodule_search_locations=[str(path.parent / "lpips")])
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: spec)  # type: ignore[attr-defined]
    perceptual._lpips_heads("alex")


def torchvision_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_check_name_hash", lambda path: None)
    weights._read(path)


def torchvision_download(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, file: Any, what: str, **settings: Any) -> str:
        file.write(path.read_bytes())
        file.seek(0)
        return url.rsplit("-", 1)[1].removesuffix(".pth")

    monkeypatch.setattr(package_index, "download", download)
    weights._from_torchvision("vgg16")


def agents_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reading_state(path):
        pass


def srmdnf_directions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.rename(path.parent / "srmd_pca15.npz")
    (path.parent / "srmdnf_x4.safetensors").touch()
    load_srmdnf(path.parent, 4)


def realesrgan(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.rename(path.parent / "realesrgan_x4plus_fp16.safetensors")
    load_realesrgan(path.parent)


LOADERS: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "agent's state": agents_state,
    "pretraining's state": lambda path, _: load_parts(path.parent, {"files": {"a": path.name}}, torch.device("cpu")),
    "state": lambda path, _: read_verified(path),
    "policy": lambda path, _: load_weights(path, torch.nn.Linear(2, 2)),
    "renderer": lambda path, _: load_renderer(path),
    "predictor": lambda path, _: load_predictor(path),
    "card": lambda path, _: read_card(path),
    "ONNX renderer": lambda path, _: load_onnx_renderer(path),
    "kernel file": lambda path, _: create_upscaler(Settings(("a",), path, kernel_file=path, device="cpu")),
    "hyperparameters": lambda path, _: load_hyperparameters("sac", path),
    "torchvision's weights": torchvision_cache,
    "torchvision's weights, downloaded": torchvision_download,
    "lpips' weights": lpips_heads,
    "SRMDNF's kernels": srmdnf_directions,
    "Real-ESRGAN": realesrgan,
    "DAN": lambda path, _: load_dan(path, 4),
    "USRGAN": lambda path, _: load_usrgan(path, 4),
}
#: Of these the caller tells the user.
CALLED_BY_OTHERS = ("state", "pretraining's state", "torchvision's weights, downloaded")


@pytest.mark.parametrize("written", WRITERS)
@pytest.mark.parametrize("name", LOADERS)
def test_nothing_in_a_file_is_run(name: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    WRITERS[written](Trap(mark), path)
    plain = (pickle.UnpicklingError, RuntimeError, ValueError)
    with pytest.raises(plain if name in CALLED_BY_OTHERS else (UsageError, WeightsUnavailable)):
        LOADERS[name](path, monkeypatch)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["!!python/object/apply:os.mkdir [{}]", "sac: !!python/name:os.system ''"])
def test_yaml_runs_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "h.yml").write_text(text.format(tmp_path / "ran"))
    with pytest.raises(UsageError):
        load_hyperparameters("sac", tmp_path / "h.yml")
    assert not (tmp_path / "ran").exists()


SOURCES = [
    path
    for folder in ("sr_env", "agents", "pretrain", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_every_loader_says_that_it_runs_nothing() -> None:
    """Also one that is added later, and has no name above."""
    calls = [(path, node) for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]
    for path, node in calls:
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        where = f"{path.relative_to(ROOT)}:{node.lineno}"
        if called == "torch.load":
            assert options.get("weights_only") == "True", where
        elif called == "np.load":
            assert options.get("allow_pickle", "False") == "False", where
        else:
            assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.load", "joblib.load"), where
