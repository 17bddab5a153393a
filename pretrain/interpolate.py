"""Average the weights of two renderers: what lies between fidelity and looks, or between two runs, without training.

python pretrain/interpolate.py --first amgan_x4 --second runs/amgan/amgan_x4.safetensors --share 0.5 --data FOLDER
"""

from __future__ import annotations

from blindsr_pretrain.interpolation import InterpolationSettings as Settings
from blindsr_pretrain.interpolation import average_renderers

from sr_env.utils.script import run_script


def main(settings: Settings) -> dict[str, float]:
    """Average, measure, write and say where; returns the figures."""
    target, figures = average_renderers(settings)
    print(f"{target}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    return figures


if __name__ == "__main__":
    run_script(Settings, main, threads="fastest")
