"""Make ``import torchvision`` work beside a CPU build of torch.

A CUDA build of torchvision next to a CPU torch fails at import with ``operator torchvision::nms does not exist``,
because its compiled operators cannot be loaded while its Python code refers to two of them. None of ours needs
those operators, so declaring their schemas is enough. Import this module before torchvision, lpips, piq or
stable_baselines3; nothing else in the project knows of the problem.
"""

from __future__ import annotations

import sys

import torch

_library: torch.library.Library | None = None  # the declarations live as long as this object

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "DEF")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
