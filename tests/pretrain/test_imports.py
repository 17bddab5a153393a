"""Training needs no Gymnasium, agents, command line or learned metric: a borrowed machine may lack them."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
for name in ("gymnasium", "stable_baselines3", "tyro", "lpips", "piq", "gradio"):
    sys.modules[name] = None  # importing it fails
import numpy as np
from pathlib import Path
from blindsr_pretrain import amgan, interpolation, predictor
from blindsr_pretrain.amnet import AMNetSettings, AMNetTask
from blindsr_pretrain.trainer import train
from sr_env.models import amnet

amnet.SIZES = {**amnet.SIZES, "amnet_l": {"channels": 8, "blocks": 1}}
settings = AMNetSettings(
    out=Path(sys.argv[1]), steps=1, batch_size=1, patch_size=32, device="cpu", precision="fp32", compile=False
)
print("trained", train(AMNetTask, settings)["psnr"] > 5)
"""


def test_training_runs_without_what_it_does_not_need(tmp_path: object) -> None:
    run = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "trained True" in run.stdout
