"""The scalar environments: thin shells over a :class:`~sr_env.simulator.Simulator` with batch 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError

from sr_env.envs.panel import scene_panel
from sr_env.envs.window import Window
from sr_env.simulator import REAL, UNIFORMS_PER_SCENE, Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError, check_choice
from sr_env.utils.images import to_uint8

RENDER_MODES = ("rgb_array", "human")


def action_space(simulator: Simulator) -> spaces.Box:
    """One kernel code, and the further controls: float32 in [-1, 1]^A."""
    return spaces.Box(-1.0, 1.0, (simulator.controls.length,), np.float32)


def observation_space(simulator: Simulator) -> spaces.Space[Any]:
    """What one agent sees: the LR image, in the iterative environment with the code and the SR thumbnail."""
    image = spaces.Box(0, 255, (simulator.lr_size, simulator.lr_size, 3), np.uint8)
    if not simulator.iterative:
        return image
    return spaces.Dict({"lr": image, "code": action_space(simulator), "sr": image})


def check_open(closed: bool) -> None:
    """Raise ``ClosedEnvironmentError`` where ``close()`` was called."""
    if closed:
        raise ClosedEnvironmentError("the environment was closed: make a new one")


def warn_of_no_mode(env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any], maker: str) -> None:
    """Gymnasium's own warning where ``render()`` is called without a mode."""
    name = env.spec.id if env.spec is not None else type(env).__name__
    gym.logger.warn(
        "You are calling render method without specifying any render mode. "
        f'You can specify the render_mode at initialization, e.g. {maker}("{name}", render_mode="rgb_array")'
    )


class BlindSREnv(gym.Env[Any, np.ndarray]):
    """Blind super-resolution: look at a blurred, reduced photograph, name the blur kernel, be paid for the result.

    ## Description
    This environment is that of "Learning the Non-differentiable Optimization for Blind Super-Resolution" (Hui, Li,
    Wang, Gao, CVPR 2021). A patch is cut from a sharp photograph (HR), blurred by an unknown Gaussian kernel, reduced
    by `scale` and rounded to 8 bit (LR). The agent sees LR and answers with a kernel code. A frozen, pretrained network
    (the renderer, AMNet or AMGAN) enlarges LR under the assumption that this code is right. The reward says how much
    better the result (SR) is than a reference reconstruction of the same LR, by any metric, differentiable or not.

    ## Action Space
    `Box(-1, 1, (10,), float32)`: the kernel code in action units. Ten PCA coefficients describe a 21x21 kernel; the
    codes of the kernels that occur fill 80 % of the range in every component. The zero action is the middle of the
    range. A value outside [-1, 1] or NaN raises `UsageError`, a `ValueError`.

    With `controls` each further control follows the code as one number, of which 0 leaves the rendering as the
    reference's is: `Box(-1, 1, (11,), float32)` in `BlindSRControls-v0`, whose `controls` are `("code", "sharpen")`.

    | control | what it does | value at -1, 0 and 1 |
    |---|---|---|
    | `sharpen` | adds to SR its difference from SR blurred by a Gaussian of 0.7 HR pixels, times the value | -1, 0, 4 |
    | `blend` | the share of the perceptual renderer, the rest of the faithful one; two renderings | -0.25, own, 1.25 |

    `blend` takes `renderer` and the one that is released with it, or `blend_renderer`; its own share is 1 where
    `renderer` was trained against a discriminator, as AMGAN, and else 0.

    ## Observation Space
    `Box(0, 255, (p, p, 3), uint8)`: the LR image, RGB, with `p = patch_size / scale` (48 by default).

    ## Rewards
    `score(SR, HR) - score(reference, HR)`, where the score is the weighted sum of metrics in `reward`, signed so that
    higher is better: `{"psnr": 1, "lpips": 20}` means PSNR in dB minus 20 times LPIPS. SR is rounded to 8 bit, and a
    border of `scale` pixels is cropped before any metric looks. The reference is the `"bicubic"` enlargement (rewards
    are then nearly always positive), the renderer with the pretrained `"predictor"`'s code (rewards are centred near
    zero), or `"none"` (the reward is the score).

    ## Starting State
    Photo, crop position, kernel widths and angle are drawn uniformly, by six uniform numbers of the environment's
    seeded generator. Isotropic widths are in [0.2, 4.0] HR pixels at x4, [0.2, 3.0] at x3, [0.2, 2.0] at x2.
    `reset(options=...)` fixes parts of it: `photo` (index or name), `crop` ((top, left) in HR pixels), `kernel_width`
    (HR pixels; two numbers in the anisotropic family), `kernel_angle` (radians), or in place of these `kernel` (an
    array [k, k] without negative weights, k odd and at most 21, which is scaled to sum to one; the information then
    says the width and angle of the ellipse with the same second moments, and the code nearest to it). With
    `kernels="real"` it also fixes `noise` (standard deviation in grey levels, 0 to 255), `jpeg_quality` (1 to 100, 0
    for no compression) and `sharpening` (strength, 0 to 10).

    ## Episode End
    Every episode has one step and then terminates; `truncated` is False, since nothing is cut short.

    ## Information
    `reset` and `step` return, as arrays or NumPy scalars:

    | key | meaning |
    |---|---|
    | `code_true`, `action_true` | the true kernel's code, and the same as an action (further controls are 0), [10] |
    | `kernel_width`, `kernel_angle` | the true kernel's widths in HR pixels, [2], and angle in radians |
    | `noise`, `jpeg_quality`, `sharpening` | what happened beside blur, as in the options (`kernels="real"` only) |
    | `photo`, `crop` | index of the photo, and (top, left) of the patch in HR pixels |
    | `<metric>_reference`, `score_reference` | each metric's raw value for the reference, and their weighted sum |
    | `<metric>`, `score` | the same for SR (`step` only) |
    | `code` | the code chosen (`step` only), [10] |
    | `sharpen`, `blend` | their values, where they are controls (`step` only) |
    | `sr` | the SR image, uint8 [P, P, 3] (`step` only, with `info_images=True`) |

    Metrics are those of `reward` and of `info_metrics`. For rewards of one's own, `env.unwrapped.sr` and
    `env.unwrapped.hr` are the pictures themselves.

    ## Arguments
    Those of :class:`~sr_env.simulator.SimulatorSettings`, and `render_mode`:

    ```python
    env = gym.make("sr_env:BlindSR-v0", photos="my_photos/", reward={"psnr": 1, "lpips": 20}, reference="predictor")
    ```

    `render_mode="rgb_array"` makes `render()` return a labelled panel: LR enlarged, SR, HR, their difference, the true
    and the chosen kernel, and the metrics. `"human"` shows it in a window where there is a display.

    ## Version History
    * v0: initial version.

    Args:
        render_mode: None, "rgb_array" or "human".
        **settings: See :class:`~sr_env.simulator.SimulatorSettings`.

    Raises:
        TypeError: A setting is unknown; the message lists the valid ones.
        UsageError: A setting is wrong; the message says what is valid. A folder or checkpoint does not exist.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 2}  # noqa: RUF012  # as Gymnasium types it
    _iterative = False
    _defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        check_choice("render_mode", render_mode, (None, *RENDER_MODES))
        self.render_mode = render_mode
        self._window = Window("BlindSR") if render_mode == "human" else None
        settings = {**self._defaults, **settings}
        self.simulator = Simulator(SimulatorSettings.from_kwargs(settings, ("render_mode",)), self._iterative)
        self.simulator.check_patches()
        self.closed = False
        self.action_space = action_space(self.simulator)
        self.observation_space = observation_space(self.simulator)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Seed of the environment's generator; None goes on with the present one.
            options: Parts of the scene to fix: photo, crop, kernel_width, kernel_angle, kernel, noise, jpeg_quality,
                sharpening.

        Returns:
            The observation, and information as in the class docstring.

        Raises:
            UsageError: An option is unknown or does not fit.
            ClosedEnvironmentError: The environment was closed.
        """
        check_open(self.closed)
        super().reset(seed=seed)
        self.simulator.reset(self.np_random.random((1, UNIFORMS_PER_SCENE)), options)
        return self._outcome()

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Choose (or correct) the kernel code.

        Args:
            action: float32 in [-1, 1], [10], and one more for each further control.

        Returns:
            Observation, reward, terminated, truncated (always False here), information.

        Raises:
            UsageError: Wrong shape or type, NaN, or a value outside [-1, 1].
            RuntimeError: There is no episode, or it is over.
            ClosedEnvironmentError: The environment was closed.
        """
        check_open(self.closed)
        try:
            shape = np.shape(action)
        except ValueError:  # lists of several lengths
            raise UsageError(f"the action is no array: give float32 {self.action_space.shape}") from None
        if shape != self.action_space.shape:
            title = self.simulator.controls.title
            raise UsageError(f"action shape {shape} does not fit: give {self.action_space.shape}, {title}")
        reward = float(self.simulator.step(np.asarray(action)[None])[0])
        observation, info = self._outcome()
        return observation, reward, bool(self.simulator.over[0]), False, info

    def _outcome(self) -> tuple[Any, dict[str, Any]]:
        if self._window is not None:
            self._window.show(scene_panel(self.simulator))
        observation = self.simulator.observation()
        if isinstance(observation, dict):
            return {name: value[0] for name, value in observation.items()}, self._info()
        return observation[0], self._info()

    def _info(self) -> dict[str, Any]:
        return {name: value[0] for name, value in self.simulator.info().items()}

    @property
    def sr(self) -> np.ndarray:
        """What the last action made, uint8 [P, P, 3]; before the first, the reference reconstruction."""
        return np.asarray(to_uint8(self.simulator.episode.current.sr)[0])

    @property
    def hr(self) -> np.ndarray:
        """The sharp patch, uint8 [P, P, 3].

        Raises:
            UsageError: Scenes are photographs as they are (``lr_photos``).
        """
        return np.asarray(to_uint8(self.simulator.scenes.hr)[0])

    def render(self) -> np.ndarray | None:
        """The labelled panel, uint8 [H, W, 3], in mode "rgb_array"; None in mode "human", which draws by itself.

        Raises:
            RuntimeError: There was no reset yet.
        """
        if self.render_mode is None:
            warn_of_no_mode(self, "gym.make")
        return scene_panel(self.simulator) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the window, if there is one; no step or reset may follow."""
        self.closed = True
        if self._window is not None:
            self._window.close()


class BlindSRIterativeEnv(BlindSREnv):
    """Blind super-resolution in several steps: look at the result, correct the kernel code, look again.

    ## Description
    The scene, the renderer and the metrics are those of :class:`BlindSREnv` (`BlindSR-v0`). The episode starts from the
    reference reconstruction; each action moves the code, and the agent sees what came of it.

    ## Action Space
    `Box(-1, 1, (10,), float32)`: a correction. The code, in action units, becomes
    `clip(code + correction * action, -1, 1)` with the setting `correction` = 0.5. Further `controls` are corrected
    alike.

    ## Observation Space
    `Dict`:

    | key | space | meaning |
    |---|---|---|
    | `lr` | `Box(0, 255, (p, p, 3), uint8)` | the LR image |
    | `code` | `Box(-1, 1, (10,), float32)` | the code so far, in action units, and further `controls` after it |
    | `sr` | `Box(0, 255, (p, p, 3), uint8)` | the reconstruction so far, reduced to LR's size |

    ## Rewards
    The improvement of the score over the previous step, so that the rewards of an episode add up to the reward that
    `BlindSR-v0` gives for the last code (and `controls`).

    ## Starting State
    As `BlindSR-v0`. With reference `"predictor"` the first code is the predictor's, otherwise the mean kernel's.

    ## Episode End
    The episode terminates after `max_steps` steps (default 4, at most 64); `truncated` is False, unless a time limit of
    the user's (`max_episode_steps`) comes first.

    ## Information
    As `BlindSR-v0`.

    ## Arguments
    As `BlindSR-v0`, with `max_steps` and `correction`.

    ## Version History
    * v0: initial version.
    """

    _iterative = True


class BlindSRRealEnv(BlindSREnv):
    """Blind super-resolution of photographs as they are, of which no sharp original exists.

    ## Description
    The renderer, the actions and the episodes are those of :class:`BlindSREnv` (`BlindSR-v0`). What is enlarged is
    real: a crop of a photograph, scan or frame (LR), which nothing is done to. Nobody knows its blur, its noise or how
    it was compressed, and there is no HR to compare with. The reward says how natural the result (SR) looks, and how
    well it explains LR, compared with the pretrained predictor's.

    ## Action Space
    `Box(-1, 1, (18,), float32)`: a longer code in action units. Fifteen PCA coefficients describe a 49x49 kernel
    (Gaussians, discs of a lens out of focus, lines of a short motion), and three levels follow: how noisy LR is, how
    strongly it was compressed as JPEG, and how far it was sharpened. The codes of what occurs fill 80 % of the range.
    With `kernels="isotropic"` and a renderer for these it is the code of `BlindSR-v0`, [10]. `controls` add to either.

    ## Observation Space
    `Box(0, 255, (p, p, 3), uint8)`: the crop, RGB, with `p = patch_size / scale` (48 by default).

    ## Rewards
    `score(SR) - score(reference)`, where the score is the weighted sum of metrics in `reward`, all of which need no
    reference: `{"niqe": 1.0, "consistency": 0.1}` by default, which is 0.1 times the consistency in dB, less NIQE.
    `"consistency"` is the PSNR between LR and SR blurred with the chosen kernel and reduced again. LR is noisy and
    compressed and SR is to be clean, so it says how far the picture was left, and not how well noise was reproduced; at
    a noise of 5 grey levels it cannot exceed 34 dB but by keeping it. A metric that needs HR raises `UsageError`.
    NIQE and its like are easily fooled: watch another one (`info_metrics=["brisque"]`) beside the one that is paid.

    ## Starting State
    Photo and crop position are drawn uniformly, by the environment's seeded generator. `reset(options=...)` fixes
    `photo` (index or name) and `crop` ((top, left) in the photo's own pixels). There is no kernel to fix.

    ## Episode End
    Every episode has one step and then terminates; `truncated` is False, since nothing is cut short.

    ## Information
    As `BlindSR-v0`, but for what would need HR: there is no `code_true`, `action_true`, `kernel_width` and
    `kernel_angle`. `crop` is in the photo's own pixels. `env.unwrapped.hr` raises `UsageError`.

    ## Arguments
    As `BlindSR-v0`, with other defaults:

    | argument | default |
    |---|---|
    | `lr_photos` | `"bundled"`: scikit-image's photographs, as they are; a folder, a list of uint8 RGB arrays |
    | `kernels` | `"real"` |
    | `renderer`, `predictor` | `"amnet_real_x4"`, `"predictor_real_x4"` |
    | `reward` | `{"niqe": 1.0, "consistency": 0.1}` |
    | `reference` | `"predictor"` |

    ```python
    env = gym.make("sr_env:BlindSRReal-v0", lr_photos="my_scans/", info_metrics=["brisque"])
    ```

    The other environments take `lr_photos` too: `BlindSRIterative-v0` with these arguments corrects in several steps.

    `render_mode="rgb_array"` makes `render()` return a labelled panel: LR enlarged, SR, their difference, the chosen
    kernel, and the metrics.

    ## Version History
    * v0: initial version.
    """

    _defaults = REAL
