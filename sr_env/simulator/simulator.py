"""The one place where a scene is drawn, degraded, rendered and scored; batch-first, on one device.

Read top to bottom, this file is the way of the data: :meth:`Simulator.draw` cuts HR patches and makes their LR images,
:meth:`Simulator.render` turns codes into SR images, :meth:`Simulator.score` judges them, and :meth:`Simulator.reset`
and :meth:`Simulator.step` string these together into episodes. The environments only translate to Gymnasium's types.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sr_env.degradation import Degradation, Kernels, Reduction, bicubic_resize, quantize
from sr_env.envs.panel import draw_panel
from sr_env.metrics import WeightedScore, create_metric
from sr_env.metrics.base import Prepared
from sr_env.models import Checkpoint, KernelPredictor, load_predictor, load_renderer
from sr_env.photos import DEFAULT_MEMORY_BUDGET, PhotoSource, crops, open_photos
from sr_env.utils.checks import MIN_LR_SIZE, SCALES, check_choice
from sr_env.utils.devices import Precision, autocast, channels_last, resolve_device, uses_bf16
from sr_env.utils.images import to_images, to_uint8

Reference = Literal["bicubic", "predictor", "none"]
REFERENCES: tuple[str, ...] = ("bicubic", "predictor", "none")
#: Term of the reward that needs the code beside the picture: see :meth:`Simulator.consistency`.
CONSISTENCY = "consistency"
#: Uniform numbers that one scene takes: photo, top, left, two widths, angle.
UNIFORMS_PER_SCENE = 6
#: Longest episode that ``max_steps`` may ask for.
MAX_STEPS = 64
# A forked worker (AsyncVectorEnv, SubprocVecEnv) inherits torch's thread pool without its threads and would wait for
# them forever; and with one process per environment, one thread each is what the cores can bear.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

_OPTIONS = ("photo", "crop", "kernel_width", "kernel_angle")


@dataclass(frozen=True)
class SimulatorSettings:
    """Settings of the environments; every one can be given to ``gym.make``.

    Attributes:
        photos: HR images: "bundled" (scikit-image's photographs), a folder (searched recursively), a list of uint8 RGB
            arrays [H, W, 3], or a :class:`~sr_env.photos.PhotoSource`.
        split: Part of the bundled photos: "train", "test" or "all".
        scale: Magnification, 2, 3 or 4.
        patch_size: HR patch side in pixels, divisible by ``scale``.
        renderer: Name or path of the frozen renderer; None takes ``amnet_l_x{scale}``.
        predictor: Name or path of the kernel predictor; None takes ``predictor_x{scale}``. It is only loaded for the
            reference "predictor".
        reward: Metric names and weights of the score, such as ``{"psnr": 1, "lpips": 20}``; a metric that is better
            when lower counts negatively. Beside the metrics there is "consistency": the PSNR in dB between LR and the
            SR image blurred with the chosen kernel and reduced, which needs no HR and keeps a metric that is easily
            fooled from leaving what was photographed.
        reference: What the score is compared with: "bicubic" enlargement, the renderer with the "predictor"'s code,
            or "none" (the reward is the score itself).
        info_metrics: Metrics reported in ``info`` beside those of the reward.
        kernels: Kernel family, "isotropic" or "anisotropic".
        widths: Range of kernel widths in HR pixels; None takes the family's usual one.
        reduction: "bicubic" (antialiased) or "decimate".
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Precision of the renderer: "fp32", "bf16", or "auto" (bf16 where the device computes in it).
        metric_precision: The same for the networks that learned metrics (lpips, lpips_vgg, dists) look through. bf16
            halves the time of dists on a CPU that computes in it, for errors of 0.0003 in what an action changes dists
            by, where exploration changes it by 0.005.
        memory_budget: Bytes of decoded photos kept in memory.
        max_steps: Steps per episode of the iterative environment, 1 to 64.
        correction: Largest change of a code component by one action of the iterative environment, in action units.
    """

    photos: str | PhotoSource | Sequence[np.ndarray] = "bundled"
    split: Literal["train", "test", "all"] = "train"
    scale: int = 4
    patch_size: int = 192
    renderer: str | None = None
    predictor: str | None = None
    reward: Mapping[str, float] = field(default_factory=lambda: {"psnr": 1.0})
    reference: Reference = "bicubic"
    info_metrics: Sequence[str] = ()
    kernels: str = "isotropic"
    widths: tuple[float, float] | None = None
    reduction: Reduction = "bicubic"
    device: str = "auto"
    precision: Precision = "fp32"
    metric_precision: Precision = "fp32"
    memory_budget: int = DEFAULT_MEMORY_BUDGET
    max_steps: int = 4
    correction: float = 0.5

    @classmethod
    def from_kwargs(cls, settings: Mapping[str, Any]) -> SimulatorSettings:
        """Build settings from keywords.

        Raises:
            ValueError: An unknown name, listing the valid ones.
        """
        for name in settings:
            check_choice("environment setting", name, (f.name for f in fields(cls)))
        settings = dict(settings)
        if settings.get("widths") is not None:  # JSON has no tuples
            settings["widths"] = tuple(settings["widths"])
        return cls(**settings)

    def __post_init__(self) -> None:
        check_choice("reference", self.reference, REFERENCES)
        check_choice("scale", self.scale, SCALES)
        size = _integer("patch_size", self.patch_size)
        if size % self.scale or size < self.scale * MIN_LR_SIZE:
            raise ValueError(
                f"patch_size {size} does not fit scale {self.scale}: choose a multiple of {self.scale} "
                f"that is at least {self.scale * MIN_LR_SIZE}"
            )
        if not 1 <= _integer("max_steps", self.max_steps) <= MAX_STEPS:
            raise ValueError(f"max_steps {self.max_steps} is outside 1..{MAX_STEPS}: choose a number of steps in it")
        if not 0 < self.correction <= 2:
            raise ValueError(f"correction {self.correction} is outside (0, 2]: it is the largest change of an action")


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes: what was photographed, and how it was blurred.

    Attributes:
        hr: HR patches, float32 in [0, 1], [B, 3, P, P].
        lr: LR images, float32 multiples of 1/255, [B, 3, p, p].
        kernels: The true kernels.
        code: True kernel codes, [B, L].
        photo: Index of each photo in the source, int64 [B].
        corner: Top and left of each crop, int64 [B, 2].
        prepared: What the metrics need of HR alone, computed once for all reconstructions of the scenes.
    """

    hr: Tensor
    lr: Tensor
    kernels: Kernels
    code: Tensor
    photo: np.ndarray
    corner: np.ndarray
    prepared: Mapping[str, Prepared]

    def repeat(self, times: int) -> Scenes:
        """Every scene ``times`` times in a row, for several actions on each; nothing is computed again."""
        hr, lr, code = (x.repeat_interleave(times, 0) for x in (self.hr, self.lr, self.code))
        prepared = {name: reference.repeat(times) for name, reference in self.prepared.items()}
        return Scenes(
            hr, lr, self.kernels.repeat(times), code, self.photo.repeat(times), self.corner.repeat(times, 0), prepared
        )


@dataclass(frozen=True)
class Result:
    """Reconstructions of a batch of scenes, and what they are worth.

    Attributes:
        sr: SR images rounded to 8 bit, float32 in [0, 1], [B, 3, P, P].
        code: Kernel codes they were rendered with, [B, L]; the mean kernel's for a bicubic enlargement.
        score: Weighted sum of the metrics, higher is better, [B].
        terms: Each metric's raw value, [B].
    """

    sr: Tensor
    code: Tensor
    score: Tensor
    terms: Mapping[str, Tensor]

    def repeat(self, times: int) -> Result:
        """Every reconstruction ``times`` times in a row."""
        sr, code, score = (x.repeat_interleave(times, 0) for x in (self.sr, self.code, self.score))
        return Result(sr, code, score, {name: x.repeat_interleave(times, 0) for name, x in self.terms.items()})


class Simulator:
    """Episodes of blind super-resolution for a batch of sub-environments.

    Args:
        settings: What is simulated.
        iterative: Whether actions correct the code over ``max_steps`` steps, or choose it once.

    Attributes:
        objective: The metrics of the reward as one weighted sum, through which gradients flow where they have any;
            without the consistency, which needs the code too.

    Raises:
        ValueError: A setting is wrong, or checkpoints do not fit each other.
        FileNotFoundError: A checkpoint or folder does not exist.
    """

    def __init__(self, settings: SimulatorSettings, iterative: bool = False) -> None:
        self.settings = settings
        self.iterative = iterative
        self.horizon = settings.max_steps if iterative else 1
        self.scale = settings.scale
        self.degradation = Degradation(settings.scale, settings.kernels, settings.reduction, settings.widths)
        self.device = resolve_device(settings.device)
        for precision in (settings.precision, settings.metric_precision):
            uses_bf16(precision, self.device)  # an unknown one shows here
        weights = dict(settings.reward)
        self._consistency = float(weights.pop(CONSISTENCY, 0.0))
        if CONSISTENCY in settings.reward and not 0 < self._consistency < float("inf"):
            raise ValueError(f"the weight of {CONSISTENCY!r} must be a positive number, not {self._consistency}")
        self.objective = WeightedScore(weights, border=settings.scale, device=self.device)
        self.metrics = {
            **self.objective.metrics,
            **{
                name: create_metric(name, border=settings.scale, device=self.device)
                for name in settings.info_metrics
                if name not in settings.reward
            },
        }
        for metric in self.metrics.values():
            metric.full_precision = not metric.learned
        self.renderer: Checkpoint[Any] = load_renderer(
            settings.renderer or f"amnet_l_x{settings.scale}",
            scale=settings.scale,
            device=self.device,
            family=settings.kernels,
        )
        # Convolutions run fastest on channels-last weights, on CPU and GPU alike.
        channels_last(self.renderer.network)
        self.basis = self.renderer.basis
        self.predictor: Checkpoint[KernelPredictor] | None = None
        if settings.reference == "predictor":
            self.predictor = load_predictor(
                settings.predictor or f"predictor_x{settings.scale}",
                scale=settings.scale,
                basis=self.basis,
                device=self.device,
            )
        self.photos = open_photos(
            settings.photos,
            split=settings.split,
            min_size=settings.patch_size,
            memory_budget=settings.memory_budget,
        )
        self.lr_size = settings.patch_size // settings.scale
        self.code_length = self.basis.code_length
        self._scenes: Scenes | None = None
        self._reference: Result | None = None
        self._current: Result | None = None
        self._action: Tensor | None = None
        self._reward: Tensor | None = None
        self.steps = 0

    # ------------------------------------------------------------------------------------------------ one scene's way

    def draw(self, uniforms: np.ndarray, options: Mapping[str, Any] | None = None) -> Scenes:
        """Draw scenes.

        Args:
            uniforms: Numbers in [0, 1), [B, 6]: photo, top, left, two widths, angle.
            options: Fixes parts of the scenes, for all (a single value) or each (a sequence of B): ``photo`` (index or
                name), ``crop`` ((top, left) in HR pixels), ``kernel_width`` (HR pixels; a number, or two for the
                anisotropic family), ``kernel_angle`` (radians).

        Raises:
            ValueError: An option is unknown or does not fit.
        """
        options = dict(options or {})
        for name in options:
            check_choice("reset option", name, _OPTIONS)
        count, size = len(uniforms), self.settings.patch_size
        photo = (
            self._photo_indices(options["photo"], count) if "photo" in options else (uniforms[:, 0] * len(self.photos))
        )
        # The largest number under one, times a count, may round up to the count.
        photo = np.minimum(photo.astype(np.int64), len(self.photos) - 1)
        room = self.photos.shape_array[photo] - size + 1
        corner = np.minimum((uniforms[:, 1:3] * room).astype(np.int64), room - 1)
        if "crop" in options:
            corner = _broadcast("crop", options["crop"], count, 2).astype(np.int64)
        hr = crops(self.photos, photo, corner[:, 0], corner[:, 1], size)
        kernels = self.degradation.draw(uniforms[:, 3:], self.device)
        if "kernel_width" in options or "kernel_angle" in options:
            width = np.asarray(kernels.widths.cpu(), dtype=np.float64)
            angle = np.asarray(kernels.angles.cpu(), dtype=np.float64)
            if "kernel_width" in options:
                width = self._given_widths(options["kernel_width"], count)
            if "kernel_angle" in options:
                angle = _broadcast("kernel_angle", options["kernel_angle"], count, 1)[:, 0]
            kernels = self.degradation.build(width, angle, self.device)
        return self.degrade(to_images(hr, self.device), kernels, photo, corner)

    @torch.no_grad()
    def degrade(self, hr: Tensor, kernels: Kernels, photo: np.ndarray, corner: np.ndarray) -> Scenes:
        """Make scenes of HR patches, float32 in [0, 1], [B, 3, P, P], and their kernels."""
        lr = self.degradation(hr, kernels)
        with self.measuring():
            prepared = {name: metric.prepare(hr) for name, metric in self.metrics.items() if metric.needs_reference}
        return Scenes(hr, lr, kernels, self.basis.encode(kernels.kernels), photo, corner, prepared)

    @torch.no_grad()
    def render(self, lr: Tensor, code: Tensor) -> Tensor:
        """LR images [B, 3, p, p] and codes [B, L] -> SR images rounded to 8 bit, float32 in [0, 1], [B, 3, P, P]."""
        with autocast(self.settings.precision, self.device):
            return quantize(self.renderer.network(lr, code).float())

    @torch.no_grad()
    def score(self, scenes: Scenes, sr: Tensor, code: Tensor) -> Result:
        """Judge SR images [B, 3, P, P] of scenes."""
        with self.measuring():
            terms = {name: metric(sr, scenes.prepared.get(name)) for name, metric in self.metrics.items()}
        score = self.objective.combine(terms)
        if self._consistency:
            terms[CONSISTENCY] = self.consistency(scenes.lr, sr, code)
            score = score + self._consistency * terms[CONSISTENCY]
        return Result(sr, code, score, terms)

    def measuring(self) -> torch.autocast:
        """The context in which metrics are computed."""
        return autocast(self.settings.metric_precision, self.device)

    @property
    def differentiable(self) -> bool:
        """Whether gradients of every term of the reward reach the SR images."""
        return self.objective.differentiable and not self._consistency

    @torch.no_grad()
    def consistency(self, lr: Tensor, sr: Tensor, code: Tensor) -> Tensor:
        """PSNR in dB, [B], between LR and SR [B, 3, P, P] blurred with the code's kernel and reduced; at most 60.

        Rounding LR to 8 bit alone costs all above about 59 dB. The decoded kernel is scaled to sum to one.
        """
        kernels = self.basis.decode(code)
        kernels = kernels / kernels.sum((1, 2), keepdim=True)
        nothing = torch.zeros(len(code), device=code.device)
        again = self.degradation.reduce(sr, Kernels(kernels, nothing[:, None].expand(-1, 2), nothing, None))
        return (-10 * (again - lr).square().mean((1, 2, 3)).log10()).clamp(max=60.0)

    @torch.no_grad()
    def evaluate(self, scenes: Scenes, actions: Tensor) -> Result:
        """Render the codes of actions [B, L] in [-1, 1] and judge them."""
        code = self.basis.to_code(actions)
        return self.score(scenes, self.render(scenes.lr, code), code)

    @torch.no_grad()
    def change(self, scenes: Scenes, actions: Tensor, step: float = 0.05) -> Tensor:
        """How strongly small moves of the actions [B, L] change the picture: M, [L, L].

        A move m changes SR by ``sqrt(m M m^T)`` grey levels (of 255, root mean square over the scenes and samples).
        Central differences of the renderer in full precision, before rounding; 2 L renderings of the batch.

        Args:
            scenes: The scenes.
            actions: Around which actions.
            step: Size of the differences in action units.
        """
        moved = []
        for move in step * torch.eye(self.code_length, device=self.device):
            ends = [
                self.renderer.network(scenes.lr, self.basis.to_code(actions + sign * move)).float() for sign in (1, -1)
            ]
            moved.append((ends[0] - ends[1]).flatten() * (255 / (2 * step)))
        jacobian = torch.stack(moved)
        return jacobian @ jacobian.T / jacobian.shape[1]

    @torch.no_grad()
    def reconstruct(self, scenes: Scenes) -> tuple[Result, Tensor]:
        """The reference reconstruction, and the action whose code it used (the mean kernel's where it used none)."""
        if self.predictor is not None:
            action = self.predictor.network(scenes.lr)
            return self.evaluate(scenes, action), action
        result = self.enlarge(scenes)
        return result, self.basis.to_action(result.code).clamp(-1, 1)

    @torch.no_grad()
    def enlarge(self, scenes: Scenes) -> Result:
        """The bicubic enlargement, judged."""
        sr = quantize(bicubic_resize(scenes.lr, (scenes.hr.shape[-2], scenes.hr.shape[-1])))
        return self.score(scenes, sr, torch.zeros_like(scenes.code))

    # ------------------------------------------------------------------------------------------------------- episodes

    def reset(self, uniforms: np.ndarray, options: Mapping[str, Any] | None = None, repeat: int = 1) -> None:
        """Begin an episode in every sub-environment.

        Args:
            uniforms: As in :meth:`draw`.
            options: As in :meth:`draw`.
            repeat: Sub-environments in a row that see the same scene, which is drawn, degraded and reconstructed for
                reference once for all of them.
        """
        scenes = self.draw(uniforms, options)
        self._reference, self._action = self.reconstruct(scenes)
        if repeat > 1:
            scenes, self._reference = scenes.repeat(repeat), self._reference.repeat(repeat)
            self._action = self._action.repeat_interleave(repeat, 0)
        self._scenes, self._current, self._reward = scenes, self._reference, None
        self.steps = 0

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Act in every sub-environment.

        Args:
            actions: float32 in [-1, 1], [B, L].

        Returns:
            Rewards, float64 [B].

        Raises:
            ValueError: Wrong shape, NaN, or a value outside [-1, 1].
            RuntimeError: There is no episode, or it is over.
        """
        if self._scenes is None or self._current is None or self._reference is None or self._action is None:
            raise RuntimeError("step() before reset(): call reset() to begin an episode")
        if self.steps >= self.horizon:
            raise RuntimeError(f"the episode ended after {self.horizon} step(s): call reset() to begin another")
        given = torch.from_numpy(self.check_actions(actions)).to(self.device)
        if self.iterative:
            given = (self._action + self.settings.correction * given).clamp(-1, 1)
        result = self.evaluate(self._scenes, given)
        before = self._current.score
        if self.settings.reference == "none" and self.steps == 0:
            before = torch.zeros_like(before)
        self._reward = (result.score - before).double()
        self._current, self._action = result, given
        self.steps += 1
        return self._reward.cpu().numpy()

    def check_actions(self, actions: np.ndarray) -> np.ndarray:
        """Return actions as float32 [B, L].

        Raises:
            ValueError: Wrong shape, NaN, or a value outside [-1, 1].
        """
        actions = np.asarray(actions)
        shape = (len(self.scenes.lr), self.code_length)
        if actions.shape != shape:
            raise ValueError(
                f"action shape {actions.shape} does not fit: give {shape}, one kernel code per environment"
            )
        actions = np.ascontiguousarray(actions, dtype=np.float32)
        inside = np.abs(actions) <= 1.0
        if not inside.all():
            value = float(actions[~inside][0])
            raise ValueError(f"action value {value} is outside [-1, 1]: clip the action, and check for NaN")
        return actions

    @property
    def scenes(self) -> Scenes:
        """The scenes of the running episodes.

        Raises:
            RuntimeError: There was no reset yet.
        """
        if self._scenes is None:
            raise RuntimeError("no scene yet: call reset() to begin an episode")
        return self._scenes

    @property
    def over(self) -> bool:
        """Whether the episodes have ended."""
        return self.steps >= self.horizon

    def observation(self) -> np.ndarray | dict[str, np.ndarray]:
        """What the agents see.

        Returns:
            LR images, uint8 [B, p, p, 3]; in the iterative environment a dict of these (``lr``), the code chosen so
            far as an action, float32 [B, L] (``code``), and its SR image reduced to the LR size, uint8 [B, p, p, 3]
            (``sr``).
        """
        lr = to_uint8(self.scenes.lr)
        if not self.iterative:
            return lr
        assert self._current is not None
        assert self._action is not None
        thumbnail = bicubic_resize(self._current.sr, (self.lr_size, self.lr_size)).clamp(0, 1)
        return {"lr": lr, "code": self._action.float().cpu().numpy().copy(), "sr": to_uint8(thumbnail)}

    def info(self) -> dict[str, np.ndarray]:
        """Everything known about the episodes, one array [B, ...] per name (the environments' docstrings list them)."""
        scenes, current, reference = self.scenes, self._current, self._reference
        assert current is not None
        assert reference is not None
        columns: dict[str, Tensor] = {
            "code_true": scenes.code,
            "action_true": self.basis.to_action(scenes.code).clamp(-1, 1),
            "kernel_width": scenes.kernels.widths,
            "kernel_angle": scenes.kernels.angles,
            "score_reference": reference.score,
            **{f"{name}_reference": value for name, value in reference.terms.items()},
        }
        if self._reward is not None:
            columns |= {"code": current.code, "score": current.score, **current.terms}
        # Copies, since users keep what they are given while the next step overwrites nothing of theirs.
        return {
            **{name: value.cpu().numpy().copy() for name, value in columns.items()},
            "photo": scenes.photo.copy(),
            "crop": scenes.corner.copy(),
        }

    def panel(self, index: int = 0) -> np.ndarray:
        """The labelled picture of one sub-environment's scene, uint8 [H, W, 3]."""
        scenes, current, reference = self.scenes, self._current, self._reference
        assert current is not None
        assert reference is not None
        one = slice(index, index + 1)
        hr_size = (scenes.hr.shape[-2], scenes.hr.shape[-1])
        # The same rows and columns before and after the action keep the picture's shape constant.
        done = self._reward is not None
        values = {
            name: {
                "reference": float(reference.terms[name][index]),
                "sr": float(value[index]) if done else float("nan"),
            }
            for name, value in current.terms.items()
        }
        values["reward"] = {"sr": float("nan") if self._reward is None else float(self._reward[index])}
        kernels = self.basis.decode(torch.stack((scenes.code[index], current.code[index]))).cpu().numpy()
        width = ", ".join(f"{value:.2f}" for value in scenes.kernels.widths[index].unique().tolist())
        return draw_panel(
            lr=to_uint8(scenes.lr[one])[0],
            bicubic=to_uint8(bicubic_resize(scenes.lr[one], hr_size).clamp(0, 1))[0],
            sr=to_uint8(current.sr[one])[0],
            hr=to_uint8(scenes.hr[one])[0],
            kernel_true=kernels[0],
            kernel_chosen=kernels[1],
            values=values,
            lower_is_better=[name for name, metric in self.metrics.items() if not metric.higher_is_better],
            title=f"{self.photos.names[int(scenes.photo[index])]}, kernel width {width}, step {self.steps}",
        )

    # -------------------------------------------------------------------------------------------------------- options

    def _photo_indices(self, given: Any, count: int) -> np.ndarray:
        """Option ``photo`` -> indices [B]."""
        several = given if isinstance(given, list | tuple | np.ndarray) else [given] * count
        if len(several) != count:
            raise ValueError(
                f"reset option photo has {len(several)} entries for {count} environments: give one or {count}"
            )
        indices = []
        for value in several:
            if isinstance(value, str):
                check_choice("photo", value, self.photos.names)
                indices.append(self.photos.names.index(value))
            else:
                index = _integer("reset option photo", value)
                if not 0 <= index < len(self.photos):
                    raise ValueError(
                        f"photo {index} is outside 0..{len(self.photos) - 1}: the source has {len(self.photos)}"
                    )
                indices.append(index)
        return np.array(indices)

    def _given_widths(self, given: Any, count: int) -> np.ndarray:
        """Option ``kernel_width`` -> widths [B, 2]."""
        pair = np.shape(given) == (2,) and self.degradation.family.two_widths
        if np.ndim(given) == 2 or pair:
            return _broadcast("kernel_width", given, count, 2)
        return np.repeat(_broadcast("kernel_width", given, count, 1), 2, axis=1)


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} {value!r} is not a whole number") from None


def _broadcast(name: str, given: Any, count: int, length: int) -> np.ndarray:
    """One value for all, or one per environment -> float [count, length]."""
    try:
        array = np.asarray(given, dtype=np.float64)
        array = array.reshape(-1, length)
        return np.broadcast_to(array, (count, length)).copy()
    except (ValueError, TypeError):
        raise ValueError(
            f"reset option {name}={given!r} does not fit {count} environment(s): "
            f"give {length} number(s), or as many for each"
        ) from None
