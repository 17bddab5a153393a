"""ONNX files give what torch gives, say what their codes mean and run in the upscaler; the Hub keeps everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_env import Upscaler
from sr_env.cli import export
from sr_env.cli import main as cli
from sr_env.degradation import load_basis
from sr_env.models import AMNet, onnx
from sr_env.models.checkpoint import load_predictor, load_renderer, save_checkpoint
from sr_env.models.hub import HubRenderer
from sr_env.models.onnx import export_onnx, load_onnx_renderer
from sr_env.utils.checks import UsageError

runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


def exported(folder: Path, scale: int, smooth: bool) -> tuple[AMNet, Path]:
    """An untrained renderer whose code and tail matter, and its ONNX file."""
    with torch.random.fork_rng():
        torch.manual_seed(scale)
        network = AMNet(scale, channels=8, blocks=1, smooth=smooth)
        torch.nn.init.normal_(network.body[0].modulation.mlp[-1].weight, std=0.5)
        with torch.no_grad():
            network.tail.weight.mul_(5)
    name = folder / f"x{scale}.safetensors"
    checkpoint = load_renderer(save_checkpoint(name, network, load_basis("isotropic", scale), scale, {"steps": 7}))
    assert max(export_onnx(checkpoint, name.with_suffix(".onnx")).values()) < 1e-4
    return checkpoint.network, name.with_suffix(".onnx")


@pytest.fixture(scope="session")
def x4(tmp_path_factory: pytest.TempPathFactory) -> tuple[AMNet, Path]:
    return exported(tmp_path_factory.mktemp("onnx"), 4, smooth=False)


@pytest.fixture(scope="session", params=[(2, True), (3, True), (4, False)], ids=["x2 smooth", "x3 smooth", "x4"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, x4: tuple[AMNet, Path]
) -> tuple[AMNet, Path]:
    scale, smooth = request.param
    return x4 if scale == 4 else exported(tmp_path_factory.mktemp("onnx"), scale, smooth)


def same(ours: Any, theirs: Any) -> float:
    return float((torch.as_tensor(ours) - torch.as_tensor(theirs)).abs().max())


# ----------------------------------------------------------------------------------------------------------------- ONNX


@pytest.mark.parametrize("shape", [(1, 9, 13), (3, 8, 8), (2, 40, 23)])
def test_runtime_gives_what_torch_gives(pair: tuple[AMNet, Path], shape: tuple[int, int, int]) -> None:
    network, path = pair
    count, height, width = shape
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(count, 3, height, width, generator=generator)
    code = torch.randn(count, 10, generator=generator)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])  # as any user of the file would
    told = session.run(None, {"lr": lr.numpy(), "code": code.numpy()})[0]
    with torch.no_grad():
        expected = network(lr, code)
        assert same(expected, network(lr, code + 1)) > 0.02  # or the comparison would say nothing of the code
    assert told.shape == (count, 3, network.scale * height, network.scale * width)
    assert same(told, expected) < 1e-4


def test_the_file_says_what_it_is(pair: tuple[AMNet, Path]) -> None:
    network, path = pair
    loaded = load_onnx_renderer(path, scale=network.scale)
    basis = load_basis("isotropic", network.scale)
    assert (loaded.scale, loaded.card["steps"], loaded.basis.digest) == (network.scale, 7, basis.digest)
    assert loaded.network.architecture == network.architecture
    kernels = torch.rand(2, 21, 21)
    assert same(loaded.basis.encode(kernels), basis.encode(kernels)) == 0
    assert str(Path(__file__).parents[3]).encode() not in path.read_bytes()  # no path of the machine


def test_upscaler_takes_it(x4: tuple[AMNet, Path], tiny_predictor: Path, random_photos: list[np.ndarray]) -> None:
    photo = random_photos[0][:70, :90]
    options: dict[str, Any] = {"predictor": tiny_predictor, "device": "cpu"}
    ours = Upscaler(x4[1].with_suffix(".safetensors"), precision="fp32", **options)(photo).astype(int)
    whole, tiled = Upscaler(x4[1], **options), Upscaler(x4[1], max_memory=3e6, **options)
    assert np.abs(whole(photo) - ours).max() <= 1
    assert tiled.upscale(photo).tiles > 1
    assert np.abs(tiled(photo) - ours).max() <= 1


def test_predictor(tmp_path: Path, tiny_predictor: Path) -> None:
    predictor = load_predictor(tiny_predictor)
    path = tmp_path / "predictor.onnx"
    assert max(export_onnx(predictor, path).values()) < 1e-4
    lr = torch.rand(2, 3, 33, 21, generator=torch.Generator().manual_seed(1))
    told = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"lr": lr.numpy()})[0]
    assert same(told, predictor.basis.to_code(predictor.network(lr))) < 1e-4
    with pytest.raises(ValueError, match="is a predictor, not a renderer"):
        load_onnx_renderer(path)


def test_commands(
    tmp_path: Path,
    x4: tuple[AMNet, Path],
    tiny_predictor: Path,
    random_photos: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["blindsr", *map(str, arguments)])
        try:
            cli.run()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    out = tmp_path / "new" / "renderer.onnx"
    assert run("export", x4[1].with_suffix(".safetensors"), "-o", out) == 0
    assert "1x9x13 pixels: largest difference to torch" in capsys.readouterr().out
    before = out.read_bytes()
    assert run("export", x4[1].with_suffix(".safetensors"), "-o", out) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_bytes() == before
    Image.fromarray(random_photos[0][:20, :31]).save(tmp_path / "photo.png")
    arguments = ("--model", out, "--predictor", tiny_predictor, "--device", "cpu")
    assert run("upscale", tmp_path / "photo.png", "-o", tmp_path / "larger.png", *arguments) == 0
    assert Image.open(tmp_path / "larger.png").size == (124, 80)
    for wrong in ((), ("amnet_x4", "--texture", "0.5"), ("--texture", "2")):
        assert run("export", *wrong, "-o", tmp_path / "a.onnx") == 2
        assert "texture" in capsys.readouterr().err
    assert run("export", "amnet_x5", "-o", tmp_path / "a.onnx") == 2
    assert "amnet_x4" in capsys.readouterr().err
    assert not (tmp_path / "a.onnx").exists()


def test_what_lies_between_two(tmp_path: Path, textures: tuple[Path, Path], random_photos: list[np.ndarray]) -> None:
    photo = random_photos[0][:40, :30]
    export.main(export.Settings(out=tmp_path / "between.onnx", texture=0.5))
    options: dict[str, Any] = {"kernel_width": 1.3, "device": "cpu", "precision": "fp32"}
    ours, theirs = Upscaler(texture=0.5, **options), Upscaler(tmp_path / "between.onnx", **options)
    assert np.abs(ours(photo).astype(int) - theirs(photo)).max() <= 1
    assert np.abs(ours(photo).astype(int) - Upscaler(textures[0], **options)(photo)).max() > 5


def test_wrong_files(tmp_path: Path, x4: tuple[AMNet, Path]) -> None:
    path = x4[1]
    with pytest.raises(FileNotFoundError, match=r"no ONNX file .*blindsr export"):
        Upscaler(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"broken\.onnx' is damaged"):
        load_onnx_renderer(broken)
    import onnx as library

    model = library.load(path)
    del model.metadata_props[:]
    library.save(model, tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match="carries no card or kernel basis"):
        load_onnx_renderer(tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match="is for scale 4, not 2"):
        Upscaler(path, scale=2)
    with pytest.raises(ValueError, match="computes in fp32"):
        Upscaler(path, precision="bf16", device="cpu")
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_onnx(load_renderer(path.with_suffix(".safetensors")), tmp_path / "network.pb")
    with pytest.raises(ValueError, match=r"takes \(2, 10\)"):
        load_onnx_renderer(path).network(torch.rand(2, 3, 9, 9), torch.rand(2, 9))


@pytest.mark.parametrize(
    "card",
    [
        *("[" * 100_000, "[]", "1", "", '{"kind": "renderer"}'),
        *({"scale": value} for value in (None, "4", 4.0, 7, [4], True)),
        *(
            {"architecture": value}
            for value in (None, [], {"channels": 10**9}, {"channels": "x"}, {"blocks": float("nan")})
        ),
        *({"receptive_radius": value} for value in (10**12, -3, "x", [1], float("inf"))),
        *({"kind": []}, {"basis": 3}, {"base": None}, {"digest": 1}),
    ],
    ids=lambda card: str(card)[:40],
)
def test_a_card_from_elsewhere_is_not_trusted(tmp_path: Path, x4: tuple[AMNet, Path], card: Any) -> None:
    import onnx as library

    model = library.load(x4[1])
    told = {entry.key: entry.value for entry in model.metadata_props}
    told["card"] = card if isinstance(card, str) else json.dumps({**json.loads(told["card"]), **card})
    library.helper.set_model_props(model, told)
    library.save(model, tmp_path / "evil.onnx")
    with pytest.raises(UsageError, match=r"evil\.onnx"):
        load_onnx_renderer(tmp_path / "evil.onnx")


def test_a_scale_that_the_network_contradicts_is_refused(tmp_path: Path, x4: tuple[AMNet, Path]) -> None:
    import onnx as library

    model = library.load(x4[1])
    told = {entry.key: entry.value for entry in model.metadata_props}
    told["card"] = json.dumps({**json.loads(told["card"]), "scale": 2})
    library.helper.set_model_props(model, told)
    library.save(model, tmp_path / "two.onnx")
    network = load_onnx_renderer(tmp_path / "two.onnx").network
    with pytest.raises(UsageError, match="its card says another scale than the network has"):
        network(torch.rand(1, 3, 9, 9), torch.rand(1, 10))


def test_a_file_that_differs_is_not_written(
    tmp_path: Path, tiny_renderer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = onnx._run
    monkeypatch.setattr(onnx, "_run", lambda *arguments: right(*arguments) + 0.002)
    with pytest.raises(ValueError, match=r"differs from torch by 0\.002"):
        export_onnx(load_renderer(tiny_renderer), tmp_path / "off.onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path: Path, tiny_renderer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'blindsr-gym\[onnx\]'"):
        export_onnx(load_renderer(tiny_renderer), tmp_path / "a.onnx")


# ------------------------------------------------------------------------------------------------------------- the Hub


def test_hub_round_trip(tmp_path: Path, tiny_renderer: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    saved = HubRenderer.from_checkpoint(tiny_renderer)
    saved.save_pretrained(tmp_path / "repository")
    loaded = HubRenderer.from_pretrained(str(tmp_path / "repository"))
    lr, code = torch.rand(2, 3, 9, 13), torch.randn(2, 10)
    assert same(loaded(lr, code), saved(lr, code)) == 0
    assert loaded.basis.digest == saved.basis.digest
    assert loaded.card == saved.card
    assert load_renderer(tmp_path / "repository" / "model.safetensors").card == saved.card
    card = hub.ModelCard.load(tmp_path / "repository" / "README.md")
    assert card.data.license == "apache-2.0"
    assert saved.basis.digest in card.text
    (tmp_path / "repository" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        HubRenderer.from_pretrained(str(tmp_path / "repository"))


def test_hub_push(tmp_path: Path, tiny_renderer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    pushed: dict[str, set[str]] = {}

    def upload(self: Any, *, repo_id: str, folder_path: Path, **options: Any) -> str:
        pushed[repo_id] = {path.name for path in Path(folder_path).iterdir()}
        return "done"

    monkeypatch.setattr(hub.HfApi, "create_repo", lambda self, repo_id, **options: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload)
    assert HubRenderer.from_checkpoint(tiny_renderer).push_to_hub("somebody/tiny") == "done"
    assert pushed == {"somebody/tiny": {"README.md", "config.json", "model.json", "model.safetensors"}}


def test_import_without_the_hub(tiny_renderer: Path) -> None:
    program = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from sr_env.models.hub import HubRenderer\n"
        f"renderer = HubRenderer.from_checkpoint({str(tiny_renderer)!r})\n"
        "try: renderer.save_pretrained('nowhere')\n"
        "except ValueError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'blindsr-gym[hub]'" in result.stdout
