"""Digests of tensors, by which weights that belong together recognise each other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 over the tensors' names and bytes, in the names' order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
