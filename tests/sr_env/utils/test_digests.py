"""A digest follows names and bytes, and not the order or the memory's layout."""

from __future__ import annotations

import hashlib

import torch

from sr_env.utils.digests import tensor_digest


def test_digest_follows_names_and_bytes() -> None:
    tensors = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[3, 4], [5, 6]])}
    plain = b"a" + tensors["a"].numpy().tobytes() + b"b" + tensors["b"].numpy().tobytes()
    assert tensor_digest(tensors) == hashlib.sha256(plain).hexdigest()[:16]
    assert tensor_digest(dict(reversed(tensors.items()))) == tensor_digest(tensors)
    assert tensor_digest({**tensors, "a": tensors["a"].T.contiguous().T}) == tensor_digest(tensors)
    assert tensor_digest({**tensors, "b": torch.tensor([1.0, 2.0000002])}) != tensor_digest(tensors)
    assert tensor_digest({"c": tensors["b"], "a": tensors["a"]}) != tensor_digest(tensors)
