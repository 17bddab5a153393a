"""Renderers on the Hugging Face Hub: ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    HubRenderer.from_checkpoint("amnet_x4").push_to_hub("somebody/amnet_x4")
    renderer = HubRenderer.from_pretrained("somebody/amnet_x4")

A repository holds one of our checkpoints as ``model.safetensors`` (:mod:`sr_env.models.checkpoint` reads it as any
other), its
architecture as ``config.json`` and a model card. The module can be imported without the extra ``hub``; using the Hub
then says what is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sr_env.degradation import KernelBasis
from sr_env.models.checkpoint import load_renderer, save_checkpoint
from sr_env.utils.checks import UsageError
from sr_env.utils.files import write_json

_WEIGHTS = "model.safetensors"

if TYPE_CHECKING:
    _Mixin: Any
else:
    try:
        from huggingface_hub import PyTorchModelHubMixin as _Mixin
    except ImportError:

        class _Mixin:
            """Stands in for the mixin where huggingface_hub is absent."""

            def __init_subclass__(cls, **options: Any) -> None:
                super().__init_subclass__()

            @staticmethod
            def _missing(*arguments: Any, **options: Any) -> Any:
                raise UsageError("the Hub needs the package huggingface_hub: pip install 'blindsr-gym[hub]'")

            from_pretrained = save_pretrained = push_to_hub = generate_model_card = _missing


class HubRenderer(  # type: ignore[call-arg]  # the keywords are the mixin's
    nn.Module,
    _Mixin,
    library_name="blindsr-gym",
    license="apache-2.0",
    pipeline_tag="image-to-image",
    tags=["super-resolution", "blind-super-resolution"],
):
    """A renderer with its kernel basis and card: what a repository on the Hub holds.

    ``from_pretrained(name)`` takes a repository or a folder, and ``device``; ``save_pretrained(folder)`` and
    ``push_to_hub(name)`` are huggingface_hub's.

    Args:
        network: The renderer, of a registered class.
        basis: The kernel basis whose codes it takes.
        card: What is said of the weights (data, steps, validation, ...), JSON values only.
    """

    def __init__(self, network: Any, basis: KernelBasis, card: Mapping[str, Any]) -> None:
        super().__init__()
        self.network, self.basis, self.card = network, basis, dict(card)

    @classmethod
    def from_checkpoint(cls, name: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> HubRenderer:
        """Take a checkpoint by short name or path.

        Raises:
            MissingFileError: No such checkpoint; lists the released ones.
            UsageError: It is damaged or no renderer.
        """
        checkpoint = load_renderer(name, device=device)
        return cls(checkpoint.network, checkpoint.basis, checkpoint.card).eval()

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """LR images [B, 3, h, w] in [0, 1] and codes [B, L] -> SR images [B, 3, s*h, s*w], not clamped."""
        sr: Tensor = self.network(lr, code)
        return sr

    def _save_pretrained(self, save_directory: Path) -> None:
        # The mixin's own way would lose the card, without which no checkpoint of ours is read.
        rest = {key: value for key, value in self.card.items() if key != "base"}
        save_checkpoint(save_directory / _WEIGHTS, self.network, self.basis, self.network.scale, rest)
        write_json(save_directory / "config.json", {**self.network.architecture, "basis": self.basis.digest})

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, device: torch.device | str = "cpu", proxies: Any = None, **options: Any
    ) -> HubRenderer:
        # The mixin's own way would fill what does not fit with random numbers, and open a pickle where there is one.
        folder = Path(model_id)
        if folder.is_dir():
            return cls.from_checkpoint(folder / _WEIGHTS, device=device)
        from huggingface_hub import hf_hub_download

        taken = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        return cls.from_checkpoint(
            hf_hub_download(model_id, _WEIGHTS, **{key: options[key] for key in taken if key in options}), device=device
        )

    def generate_model_card(self, *arguments: Any, **options: Any) -> Any:
        """The repository's README: what the network is, how it is used and what its card says."""
        from huggingface_hub import ModelCard

        info: Any = self._hub_mixin_info
        built = ", ".join(f"{key} {value}" for key, value in self.network.architecture.items())
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        side = self.basis.kernel_size
        lines = [
            f"# {type(self.network).__name__} x{self.network.scale}, a renderer for blind super-resolution",
            "",
            f"{parameters / 1e6:.2f} M parameters ({built}). It takes an RGB image in [0, 1] and the "
            f"{self.network.code_length} coefficients of its blur kernel in the basis `{self.basis.digest}`, and gives "
            f"an image {self.network.scale} times as large.",
            "",
            "```python",
            "from sr_env.models.hub import HubRenderer",
            "",
            'renderer = HubRenderer.from_pretrained("this/repository")',
            f"code = renderer.basis.encode(kernels)  # [B, {side}, {side}], each summing to one",
            "sr = renderer(lr, code)  # [B, 3, h, w] in [0, 1]",
            "```",
            "",
            "`model.safetensors` is a checkpoint of blindsr-gym: `blindsr upscale --model model.safetensors` takes it.",
            "",
            "## How the weights were made",
            "",
            "```json",
            json.dumps(self.card, indent=2),
            "```",
        ]
        return ModelCard(f"---\n{info.model_card_data.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n")
