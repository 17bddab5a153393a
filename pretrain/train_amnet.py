"""Train AMNet for fidelity: L1 between SR and HR and between their Fourier transforms, the true kernel code given.

python pretrain/train_amnet.py --data FOLDER --size amnet_l --scale 4
"""

from __future__ import annotations

from blindsr_pretrain.amnet import AMNetSettings as Settings
from blindsr_pretrain.amnet import AMNetTask
from blindsr_pretrain.trainer import train

from sr_env.utils.script import run_script


def main(settings: Settings) -> dict[str, float]:
    """Train and export; returns the last validation's figures."""
    return train(AMNetTask, settings)


if __name__ == "__main__":
    run_script(Settings, main, threads="fastest")
