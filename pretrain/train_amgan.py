"""Fine-tune AMNet into AMGAN: ``L1 + 15 L_vgg + 0.01 L_adversarial + 10 L_DISTS + 20 L_phase``, the true code given.

    python pretrain/train_amgan.py --data FOLDER --start amnet_x4

With ``--predictor`` a share of the patches is rendered with the code that the predictor sees instead, errors and all:
the renderer learns to be right where the predictor is usually wrong.
``--adversarial relativistic`` makes AMGAN*, the supplement's comparison: the same with a relativistic average GAN.
"""

from __future__ import annotations

from blindsr_pretrain.amgan import AMGANSettings as Settings
from blindsr_pretrain.amgan import AMGANTask
from blindsr_pretrain.trainer import train

from sr_env.utils.script import run_script


def main(settings: Settings) -> dict[str, float]:
    """Fine-tune and export; returns the last validation's figures."""
    return train(AMGANTask, settings)


if __name__ == "__main__":
    run_script(Settings, main, threads="fastest")
