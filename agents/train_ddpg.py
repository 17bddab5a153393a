"""Train HingeDDPG from the pretrained kernel predictor, and show on held-out photos what came of it.

    python agents/train_ddpg.py

Actors are selected on photos (of the few bundled ones: on parts of them) that are not trained on; the table at the end
is measured on the bundled test photos, which neither training nor selection sees, and the sentence below it says what
is gained and what is paid. Where no actor beats the pretrained one on the selection scenes without losing at some
kernel width, the pretrained one is kept, and the output says so.
"""

from blindsr_agents.hinge_ddpg.run import HingeDDPGSettings as Settings
from blindsr_agents.hinge_ddpg.run import train as main

from sr_env.utils.script import run_script

if __name__ == "__main__":
    run_script(Settings, main, threads="one")
