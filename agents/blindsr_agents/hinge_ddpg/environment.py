"""What an environment must be for HingeDDPG to learn in it: checked before any work, with one clear error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from blindsr_agents.hinge_ddpg.config import Normalisation
from sr_env.models import Checkpoint, KernelPredictor, card_controls, default_predictor, load_predictor, widened
from sr_env.simulator import Simulator
from sr_env.utils.checks import UsageError


def check_spaces(observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
    """Refuse observations and actions that no kernel predictor sees or gives.

    Raises:
        UsageError: They are of another kind, or images that are not RGB.
    """
    if not isinstance(observations, spaces.Box):
        raise UsageError(
            "HingeDDPG takes one-step episodes with an image to look at, not "
            f"{type(observations).__name__} observations: use BlindSR-v0, or for BlindSRIterative-v0 IterativeHinge "
            "(blindsr_agents.iterative)"
        )
    shape = observations.shape
    if len(shape) != 3 or 3 not in (shape[0], shape[-1]) or observations.dtype != np.uint8:
        raise UsageError(
            f"HingeDDPG looks at one RGB image in uint8, not at {observations.dtype} observations of shape {shape}: "
            "take off the wrapper that makes them gray, stacks, scales or flattens them"
        )
    if not isinstance(actions, spaces.Box) or not (np.all(actions.low == -1) and np.all(actions.high == 1)):
        raise UsageError(f"HingeDDPG takes actions in [-1, 1], not {actions}: use BlindSR-v0")


def simulator_of(env: Any) -> Simulator:
    """The simulator of a vector environment of SB3's.

    Raises:
        UsageError: It has none.
    """
    try:
        simulator: Simulator = env.get_attr("simulator")[0]
    except AttributeError:
        raise UsageError(f"HingeDDPG learns in BlindSR-v0, not in {env}: give BlindSRVecEnv(...)") from None
    return simulator


def pretrained_actor(
    env: Any, predictor: str | Path | Checkpoint[KernelPredictor] | None, device: torch.device
) -> Checkpoint[KernelPredictor]:
    """The pretrained actor, by default the environment's own, which gives zeros for controls beside the code.

    Args:
        env: A vector environment of SB3's.
        predictor: Name, path or checkpoint; None takes the environment's.
        device: Where it computes.

    Raises:
        UsageError: It does not exist, or is not for the environment's renderer.
    """
    simulator = simulator_of(env)
    controls = simulator.controls.names
    if not isinstance(predictor, Checkpoint):
        name = predictor or simulator.settings.predictor or default_predictor(simulator.renderer)
        predictor = load_predictor(name, scale=simulator.scale, basis=simulator.basis, device=device, controls=controls)
    return widened(predictor, controls)


def fitting_simulator(env: Any, predictor: Checkpoint[KernelPredictor], stacklevel: int) -> Simulator:
    """The simulator of an environment in which a predictor can learn.

    Args:
        env: A vector environment of SB3's.
        predictor: Gives all that its actions hold.
        stacklevel: Of the warning, counted from the caller.

    Raises:
        UsageError: It has none, its renderer takes other codes than the predictor gives, or it has other controls.

    Warns:
        UserWarning: Its rewards are not centred.
    """
    simulator = simulator_of(env)
    if predictor.basis.digest != simulator.basis.digest:
        raise UsageError(
            f"the predictor speaks kernel basis {predictor.basis.digest}, the environment's renderer "
            f"{simulator.basis.digest}: use a predictor trained for this renderer's basis"
        )
    if (own := tuple(card_controls(predictor.card))) != simulator.controls.names:
        raise UsageError(
            f"the agent's actions hold {', '.join(own)}, the environment's {', '.join(simulator.controls.names)}: make "
            f"the environment with controls={own!r}, or a new agent"
        )
    if simulator.settings.reference != "predictor":
        warnings.warn(
            f"the environment's rewards are not centred (reference={simulator.settings.reference!r}): the agent climbs "
            'what an action adds to the pretrained one\'s; give reference="predictor"',
            stacklevel=stacklevel + 1,
        )
    return simulator


def actions_per_scene(env: Any, normalisation: Normalisation) -> int:
    """How many neighbouring sub-environments of a vector environment of SB3's share a scene.

    Raises:
        UsageError: One, though rewards are to be scaled per scene.
    """
    times = int(env.get_attr("actions_per_scene")[0]) if env.has_attr("actions_per_scene") else 1
    if normalisation == "scene" and times == 1:
        raise UsageError(
            'normalisation "scene" compares several actions on a scene and the environment has one: '
            "give BlindSRVectorEnv(actions_per_scene=...), or another normalisation"
        )
    return times
