"""Train an algorithm of Stable-Baselines3 or sb3-contrib on BlindSR-v0, and test its actor before and after.

    python agents/train_sb3.py --algorithm sac --steps 4000
    python agents/train_sb3.py --algorithm ppo --features cnn   # learn to see from nothing, too

Nothing of the actor is pretrained; with ``--features pretrained`` the convolutions in front of it are, and are frozen.
CrossQ, TQC and TRPO need ``pip install "blindsr-gym[algorithms]"``.
"""

from __future__ import annotations

from blindsr_agents.stock import StockSettings, train

from sr_env.utils.script import run_script

if __name__ == "__main__":
    run_script(StockSettings, train, threads="one")
