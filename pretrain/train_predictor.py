"""Train the kernel predictor mu: first on the code itself, then through the frozen renderer.

    python pretrain/train_predictor.py --data FOLDER --renderers amnet_l_x4

Through the renderer the target is the picture that the true kernel would give, ``|G(LR, mu(LR)) - G(LR, code)|``. Its
gradient points where ``|G(LR, mu(LR)) - HR|`` points on average, without the noise of the detail that no kernel can
restore; ``--target hr`` takes the latter, ``--target decibels`` what is lost in PSNR.
"""

from __future__ import annotations

from blindsr_pretrain.predictor import PredictorSettings as Settings
from blindsr_pretrain.predictor import PredictorTask
from blindsr_pretrain.trainer import train

from sr_env.utils.script import run_script


def main(settings: Settings) -> dict[str, float]:
    """Train and export; returns the last validation's figures."""
    return train(PredictorTask, settings)


if __name__ == "__main__":
    run_script(Settings, main, threads="fastest")
