"""Metrics against references written another way."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy import ndimage, special
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

import sr_env.metrics
from sr_env.metrics import ConvFeatures, Metric, available_metrics, create_metric, find_local, natural
from sr_env.metrics.features import L2Pool
from sr_env.utils import torchvision_compat  # noqa: F401  (before lpips is imported)

DATA = Path(__file__).parent / "data"
ASSETS = Path(sr_env.metrics.__file__).parent / "assets"


def read(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def metric_or_skip(name: str, **options: object) -> Metric:
    """The metric, without ever downloading unless BLINDSR_TEST_DOWNLOAD asks for it."""
    if name in ("lpips_vgg", "dists") and find_local("vgg16") is None and not os.environ.get("BLINDSR_TEST_DOWNLOAD"):
        pytest.skip("VGG16's weights are in no cache; set BLINDSR_TEST_DOWNLOAD=1 to fetch them")
    return create_metric(name, **options)  # type: ignore[arg-type]


def to_uint8(image: Tensor) -> np.ndarray:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def luma(image: np.ndarray) -> np.ndarray:
    """Y of an 8-bit HWC picture, straight from the definition of MATLAB's rgb2ycbcr."""
    return 16 + image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


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
    weights = load_file(ASSETS / "alexnet_features.safetensors")
    for key, value in reference.net.state_dict().items():
        value.copy_(weights["features." + key.split(".", 1)[1]].float())
    with torch.no_grad():
        torch.testing.assert_close(
            create_metric("lpips")(sr, hr), reference(sr * 2 - 1, hr * 2 - 1).flatten(), atol=1e-5, rtol=1e-5
        )


def test_dists_follows_its_equations(pairs: tuple[Tensor, Tensor]) -> None:
    """With random VGG16 weights, against numpy written from Eq. 4-6 of the paper."""
    sr, hr = (images[..., :44, :52] for images in pairs)
    torch.manual_seed(0)
    backbone = ConvFeatures("vgg16", (3, 8, 15, 22, 29), l2_pooling=True)
    metric = create_metric("dists", backbone=backbone)
    learned = load_file(ASSETS / "dists.safetensors")
    alpha, beta = learned["alpha"].numpy().astype(float), learned["beta"].numpy().astype(float)
    hann = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]) / 4

    def maps(image: Tensor) -> list[np.ndarray]:
        x = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
            :, None, None
        ]
        found = [image.double().numpy()]
        for index, layer in enumerate(backbone.features):
            if isinstance(layer, L2Pool):
                pooled = [ndimage.convolve(c**2, hann, mode="constant")[::2, ::2] for c in x.double().numpy()]
                x = torch.from_numpy(np.sqrt(np.stack(pooled) + 1e-12)).float()
            else:
                x = layer(x[None].clone())[0]
            if index in backbone.layers:
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
