"""Digests of tensors: weights that belong together recognise each other by them, and damaged ones are known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 over the tensors' names and bytes, in the names' order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()[:16]


def content_digest(content: Any) -> str:
    """First 16 hex digits of the SHA-256 over tensors, numbers and strings, and containers of them.

    Lists and tuples count alike, so that what went through JSON keeps its digest.
    """
    digest = hashlib.sha256()
    _add(digest, content)
    return digest.hexdigest()[:16]


def _add(digest: Any, content: Any) -> None:
    if isinstance(content, Tensor):
        digest.update(f"tensor {content.dtype} {tuple(content.shape)};".encode())
        digest.update(_bytes(content))
    elif isinstance(content, Mapping):
        digest.update(f"mapping {len(content)};".encode())
        for key, value in content.items():
            _add(digest, key)
            _add(digest, value)
    elif isinstance(content, list | tuple):
        digest.update(f"sequence {len(content)};".encode())
        for value in content:
            _add(digest, value)
    else:
        digest.update(f"{content!r};".encode())


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, of any type (NumPy has no bfloat16)."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
