"""What a predictor says of pictures of which it is known: blur, noise, compression and sharpening, one by one.

    python benchmarks/predictions.py --data FOLDER --held-out 0

The photographs that pretraining holds out (or all of a folder) are degraded as ``agents/evaluate.py --degradation
real`` has it, and the predictor is asked as ``blindsr upscale`` asks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blindsr_agents.evaluation.conditions import real_conditions
from blindsr_agents.evaluation.predictions import measure_predictions, prediction_cells
from blindsr_agents.evaluation.tables import console_table, markdown_table
from blindsr_pretrain.data import held_out_photos
from rich.console import Console

from sr_env.degradation import Degradation
from sr_env.upscale import Upscaler
from sr_env.utils.devices import Precision
from sr_env.utils.files import atomic_write, check_writable
from sr_env.utils.script import run_script


@dataclass
class Settings:
    """Measure what a predictor says.

    Attributes:
        model: Renderer whose codes are predicted; one of the longer codes knows noise, compression and sharpening.
        predictor: Name or path of the predictor; None takes the released one of the renderer's kernels.
        data: Folder of HR photos, searched recursively; "bundled" takes scikit-image's held-out photographs.
        held_out: Photos of the folder that pretraining holds out, which alone are taken; 0 takes all of a folder that
            nothing was trained on.
        out: File for the table in Markdown.
        device: auto, cpu, cuda or cuda:N.
        precision: auto takes bf16 where the device computes in it.
    """

    model: str = "amnet_real_x4"
    predictor: str | None = None
    data: str = "bundled"
    held_out: int = 16
    out: Path | None = None
    device: str = "auto"
    precision: Precision = "auto"


def main(settings: Settings) -> None:
    """Measure, print the table, and write it."""
    s = settings
    if s.out is not None:
        check_writable(s.out.parent)
    upscaler = Upscaler(s.model, predictor=s.predictor, device=s.device, precision=s.precision)
    photos = held_out_photos(s.data, s.held_out)
    degradation, conditions = Degradation(upscaler.scale, "real"), real_conditions(upscaler.scale)
    cells = prediction_cells(measure_predictions(upscaler, photos, degradation, conditions))
    title = f"{len(photos)} photographs, means; widths in HR pixels, of the nearest round Gaussian"
    Console(width=160).print(console_table(title, cells))
    if s.out is not None:
        with atomic_write(s.out) as temporary:
            temporary.write_text("\n".join(markdown_table(cells)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_script(Settings, main)
