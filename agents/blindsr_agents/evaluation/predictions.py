"""What a predictor says of pictures of which it is known, condition by condition: how far off it is.

The reconstruction hides it: a wrong noise level may cost nothing in PSNR, and a wrong width much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from blindsr_agents.evaluation.conditions import Condition
from blindsr_agents.evaluation.tables import Cells
from sr_env.degradation import Degradation, level_values
from sr_env.photos import PhotoSource
from sr_env.upscale import Upscaler, equivalent_widths
from sr_env.utils.images import to_images, to_uint8

#: What is said, and how it is shown: width in HR pixels of the nearest round Gaussian, standard deviation of noise (of
#: 255), quality of JPEG, strength of sharpening.
SAID: Mapping[str, str] = {"width": ".2f", "noise": ".1f", "quality": ".0f", "sharpening": ".2f"}


@dataclass(frozen=True)
class Predictions:
    """What was said of N pictures in one condition, and what is so.

    Attributes:
        true: What of ``SAID`` the codes hold -> values [N].
        said: The same of the predicted codes.
    """

    true: Mapping[str, np.ndarray]
    said: Mapping[str, np.ndarray]

    def error(self, name: str) -> float:
        """Mean of the absolute differences."""
        return float(np.abs(self.said[name] - self.true[name]).mean())


def measure_predictions(
    upscaler: Upscaler, photos: PhotoSource, degradation: Degradation, conditions: Sequence[Condition]
) -> dict[str, Predictions]:
    """Degrade every photo in every condition and ask for the code that it would be enlarged with.

    Args:
        upscaler: Its predictor is asked, as for a user's picture.
        photos: HR photos.
        degradation: How HR becomes LR.
        conditions: What happens to the photos.

    Returns:
        By the condition's name.
    """
    basis, device, scale = upscaler.basis, upscaler.device, upscaler.scale
    codes: dict[str, list[list[torch.Tensor]]] = {condition.name: [] for condition in conditions}
    for index, photo in enumerate(photos):  # photos differ in size
        height, width = (side // scale * scale for side in photo.shape[:2])
        hr = to_images(photo[None, :height, :width].copy(), device)
        for condition in conditions:
            kernels = condition.kernels(np.array([index]), device)
            lr = to_uint8(degradation(hr, kernels))[0]
            said = torch.from_numpy(upscaler.predict(lr)).to(device)
            codes[condition.name].append([basis.code_of(kernels)[0], said])

    def told(each: torch.Tensor) -> dict[str, np.ndarray]:
        values = {"width": equivalent_widths(each, basis)}
        if basis.levels:
            values |= level_values(each[:, basis.coefficients :])
        return {name: value.cpu().numpy() for name, value in values.items()}

    found = {}
    for name, pairs in codes.items():
        true, said = (torch.stack(each) for each in zip(*pairs, strict=True))
        found[name] = Predictions(told(true), told(said))
    return found


def prediction_cells(predictions: Mapping[str, Predictions]) -> Cells:
    """Header and rows, one for each condition: means of what is so and of what is said, and of the error."""
    shown = [name for name in SAID if name in next(iter(predictions.values())).true]
    rows = []
    for condition, each in predictions.items():
        row = [condition, ""]
        for name in shown:
            values = (float(each.true[name].mean()), float(each.said[name].mean()), each.error(name))
            row += [format(value, SAID[name]) for value in values]
        rows.append(row)
    return [["condition", "", *(title for name in shown for title in (name, "said", "error"))], *rows]
