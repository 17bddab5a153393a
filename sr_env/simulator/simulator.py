"""The one place where a scene is drawn, degraded, rendered and scored; batch-first, on one device.

Read top to bottom, this file is the way of the data: :meth:`Simulator.draw` cuts HR patches and makes their LR images
(or cuts LR images out of photographs that are to be enlarged as they are, and there is no HR),
:meth:`Simulator.render` turns codes into SR images, :meth:`Simulator.score` judges them, and :meth:`Simulator.reset`
and :meth:`Simulator.step` string these together into episodes. The environments only translate to Gymnasium's types.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sr_env.degradation import Degradation, Kernels, bicubic_resize, quantize
from sr_env.metrics import WeightedScore, check_without_reference, create_metric
from sr_env.models import (
    Checkpoint,
    Controls,
    KernelPredictor,
    default_predictor,
    load_predictor,
    load_renderer,
    partner_name,
)
from sr_env.photos import crops, open_photos
from sr_env.simulator.options import CORRUPTIONS, SceneOptions
from sr_env.simulator.scenes import Episode, Result, Scenes, Truth, not_finite
from sr_env.simulator.settings import CONSISTENCY, SimulatorSettings
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import autocast, channels_last, resolve_device, uses_bf16
from sr_env.utils.forks import spare_forked_threads
from sr_env.utils.images import to_images, to_uint8

#: Uniform numbers that one scene takes: photo, top, left, two widths, angle.
UNIFORMS_PER_SCENE = 6


class Simulator:
    """Episodes of blind super-resolution for a batch of sub-environments.

    Args:
        settings: What is simulated.
        iterative: Whether actions correct the code over ``max_steps`` steps, or choose it once.

    Attributes:
        objective: The metrics of the reward as one weighted sum, through which gradients flow where they have any;
            without the consistency, which needs the code too.
        controls: What the A numbers of an action are; the code's L come first, and without further controls A is L.
        terms: Names of what is measured of a picture: metrics, and "consistency" where it counts or is to be told.
        without_hr: Whether scenes are photographs as they are, of which nothing more is known.

    Raises:
        UsageError: A setting is wrong, checkpoints do not fit each other, or a checkpoint or folder does not exist.
    """

    def __init__(self, settings: SimulatorSettings, iterative: bool = False) -> None:
        spare_forked_threads()
        self.settings = settings
        self.iterative = iterative
        self.horizon = settings.max_steps if iterative else 1
        self.scale = settings.scale
        self.without_hr = settings.lr_photos is not None
        self.degradation = Degradation(settings.scale, settings.kernels, settings.reduction, settings.widths)
        self.device = resolve_device(settings.device)
        for precision in (settings.precision, settings.metric_precision):
            uses_bf16(precision, self.device)  # an unknown one shows here
        weights = dict(settings.reward)
        self._consistency = float(weights.pop(CONSISTENCY, 0.0))
        others = [name for name in settings.info_metrics if name not in settings.reward]
        told = CONSISTENCY in (*settings.reward, *others)
        others = [name for name in others if name != CONSISTENCY]
        if self.without_hr:
            check_without_reference([*weights, *others])
        self.objective = WeightedScore(weights, border=settings.scale, device=self.device)
        self.metrics = {
            **self.objective.metrics,
            **{name: create_metric(name, border=settings.scale, device=self.device) for name in others},
        }
        self.terms = (*self.metrics, *([CONSISTENCY] if told else []))
        for metric in self.metrics.values():
            metric.full_precision = not metric.learned
        self.renderer = self._load_renderer(settings.renderer_or_default)
        self.basis = self.renderer.basis
        partner = None
        if "blend" in settings.controls:
            other = settings.blend_renderer
            partner = self._load_renderer(partner_name(self.renderer) if other is None else other)
        self.controls = Controls(tuple(settings.controls), self.renderer, partner)
        self.predictor: Checkpoint[KernelPredictor] | None = None
        if settings.reference == "predictor":
            self.predictor = load_predictor(
                settings.predictor or default_predictor(self.renderer),
                scale=settings.scale,
                basis=self.basis,
                device=self.device,
            )
        self.lr_size = settings.patch_size // settings.scale
        self._crop_size = self.lr_size if self.without_hr else settings.patch_size
        self.photos = open_photos(
            settings.photos if settings.lr_photos is None else settings.lr_photos,
            split=settings.split,
            min_size=self._crop_size,
            memory_budget=settings.memory_budget,
        )
        self.code_length = self.basis.code_length
        self._episode: Episode | None = None

    def _load_renderer(self, spec: str | os.PathLike[str] | nn.Module) -> Checkpoint[Any]:
        settings = self.settings
        checkpoint = load_renderer(spec, scale=settings.scale, device=self.device, family=settings.kernels)
        # Convolutions run fastest on channels-last weights, on CPU and GPU alike.
        channels_last(checkpoint.network)
        return checkpoint

    # ------------------------------------------------------------------------------------------------ one scene's way

    def draw(self, uniforms: np.ndarray, options: Mapping[str, Any] | SceneOptions | None = None) -> Scenes:
        """Draw scenes.

        Args:
            uniforms: Numbers in [0, 1), [B, 6]: photo, top, left, two widths, angle.
            options: Fixes parts of the scenes, for all (a single value) or each (a sequence of B, where None leaves one
                to chance): ``photo`` (index or name), ``crop`` ((top, left) in the photo's pixels), and but for
                photographs as they are ``kernel_width`` (HR pixels; a number, or two for the anisotropic family),
                ``kernel_angle`` (radians), ``kernel`` (an array [k, k], k odd and at most 21, which is scaled to sum to
                one), and where the kernels know of them ``noise``, ``jpeg_quality`` and ``sharpening``.

        Raises:
            UsageError: An option is unknown or does not fit.
        """
        count, size = len(uniforms), self._crop_size
        fixed = options if isinstance(options, SceneOptions) else self.parse(options, count)
        # The largest number under one, times a count, may round up to the count.
        photo = np.minimum((uniforms[:, 0] * len(self.photos)).astype(np.int64), len(self.photos) - 1)
        photo = np.where(fixed.photo < 0, photo, fixed.photo)
        room = self.photos.shape_array[photo] - size + 1
        corner = np.minimum((uniforms[:, 1:3] * room).astype(np.int64), room - 1)
        corner = np.where(fixed.corner < 0, corner, fixed.corner)
        outside = np.flatnonzero((corner >= room).any(1))
        if outside.size:
            first = int(outside[0])
            raise UsageError(
                f"reset option crop {corner[first].tolist()} leaves photo {self.photos.names[photo[first]]!r}: give a "
                f"corner of {size}x{size} up to {(room[first] - 1).tolist()}"
            )
        cut = to_images(crops(self.photos, photo, corner[:, 0], corner[:, 1], size), self.device)
        if self.without_hr:
            return Scenes(cut, photo, corner)
        kernels = fixed.applied(self.degradation.draw(uniforms[:, 3:], self.device), self.degradation)
        return self.degrade(cut, kernels, photo, corner)

    def check_patches(self) -> None:
        """Raise :class:`UsageError` where a metric takes no pictures as small as the patches that are drawn."""
        for metric in self.metrics.values():
            metric.check_size(self.settings.patch_size, self.settings.patch_size)

    def parse(self, options: Mapping[str, Any] | None, count: int) -> SceneOptions:
        """Options as :meth:`draw` takes them, for ``count`` scenes, checked."""
        return SceneOptions.parse(options, count, self.photos, self.degradation.family, not self.without_hr)

    @torch.no_grad()
    def degrade(self, hr: Tensor, kernels: Kernels, photo: np.ndarray, corner: np.ndarray) -> Scenes:
        """Make scenes of HR patches, float32 in [0, 1], [B, 3, P, P], and their kernels."""
        lr = self.degradation(hr, kernels)
        with self.measuring():
            prepared = {name: metric.prepare(hr) for name, metric in self.metrics.items() if metric.needs_reference}
        return Scenes(lr, photo, corner, Truth(hr, kernels, self.basis.code_of(kernels), prepared))

    @torch.no_grad()
    def render(self, lr: Tensor, code: Tensor, values: Mapping[str, Tensor] | None = None) -> Tensor:
        """Render.

        Args:
            lr: LR images [B, 3, p, p].
            code: Codes [B, L].
            values: Of the further controls, as :meth:`Controls.split` gives them; those absent change nothing.

        Returns:
            SR images rounded to 8 bit, float32 in [0, 1], [B, 3, P, P].
        """
        with autocast(self.settings.precision, self.device):
            return quantize(self.controls.render(lr, code, values or {}))

    def unrounded(self, lr: Tensor, actions: Tensor) -> Tensor:
        """LR images and actions [B, A] or [B, L] -> SR images before they are rounded, with gradients."""
        return self.controls.render(lr, *self.controls.split(actions))

    @torch.no_grad()
    def score(self, scenes: Scenes, sr: Tensor, code: Tensor) -> Result:
        """Judge SR images [B, 3, P, P] of scenes, made with these codes and without further controls."""
        with self.measuring():
            terms = {name: metric(sr, scenes.prepared.get(name)) for name, metric in self.metrics.items()}
        score = self.objective.combine(terms)
        if CONSISTENCY in self.terms:
            terms[CONSISTENCY] = self.consistency(scenes.lr, sr, code)
        if self._consistency:
            score = score + self._consistency * terms[CONSISTENCY]
        values = {name: score.new_full((len(sr),), value) for name, value in self.controls.neutral.items()}
        return Result(sr, code, score, terms, values)

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

        Rounding LR to 8 bit alone costs all above about 59 dB. The decoded kernel is scaled to sum to one. Of a longer
        code the levels do not count: SR is not made noisy or compressed, as LR may be, which costs the most there.
        """
        kernels = self.basis.decode(code)
        kernels = kernels / kernels.sum((1, 2), keepdim=True)
        nothing = torch.zeros(len(code), device=code.device)
        again = self.degradation.reduce(sr, Kernels(kernels, nothing[:, None].expand(-1, 2), nothing, None))
        return (-10 * (again - lr).square().mean((1, 2, 3)).log10()).clamp(max=60.0)

    @torch.no_grad()
    def evaluate(self, scenes: Scenes, actions: Tensor) -> Result:
        """Render actions in [-1, 1], [B, A], or those that are the code alone, [B, L], and judge what they make."""
        code, values = self.controls.split(actions)
        result = self.score(scenes, self.render(scenes.lr, code, values), code)
        return replace(result, values={**result.values, **values})

    @torch.no_grad()
    def change(self, scenes: Scenes, actions: Tensor, step: float = 0.05) -> Tensor:
        """How strongly small moves of the actions [B, A] change the picture: M, [A, A].

        A move m changes SR by ``sqrt(m M m^T)`` grey levels (of 255, root mean square over the scenes and samples).
        Central differences of the renderer in full precision, before rounding; 2 A renderings of the batch.

        Args:
            scenes: The scenes.
            actions: Around which actions.
            step: Size of the differences in action units.
        """
        moved, actions = [], self.controls.complete(actions)
        for move in step * torch.eye(self.controls.length, dtype=torch.float32, device=self.device):
            ends = [self.unrounded(scenes.lr, actions + sign * move) for sign in (1, -1)]
            moved.append((ends[0] - ends[1]).flatten() * (255 / (2 * step)))
        jacobian = torch.stack(moved)
        return jacobian @ jacobian.T / jacobian.shape[1]

    @torch.no_grad()
    def reconstruct(self, scenes: Scenes) -> tuple[Result, Tensor]:
        """The reference reconstruction, and the action [B, A] whose code it used; zeros follow the code.

        Where it used none, the code is the mean kernel's.
        """
        if self.predictor is not None:
            action = self.predictor.network(scenes.lr)
            return self.evaluate(scenes, action), self.controls.complete(action)
        result = self.bicubic(scenes)
        return result, self._action_of(result.code)

    def _action_of(self, code: Tensor) -> Tensor:
        """Codes [B, L] -> the actions [B, A] nearest to them, without more than the code."""
        return self.controls.complete(self.basis.to_action(code).clamp(-1, 1))

    @torch.no_grad()
    def bicubic(self, scenes: Scenes) -> Result:
        """The bicubic enlargement, judged."""
        height, width = scenes.lr.shape[-2:]
        sr = quantize(bicubic_resize(scenes.lr, (height * self.scale, width * self.scale)))
        return self.score(scenes, sr, sr.new_zeros(len(sr), self.code_length))

    # ------------------------------------------------------------------------------------------------------- episodes

    def reset(
        self,
        uniforms: np.ndarray,
        options: Mapping[str, Any] | None = None,
        repeat: int = 1,
        where: np.ndarray | None = None,
    ) -> None:
        """Begin an episode in every sub-environment, or in some.

        Args:
            uniforms: As in :meth:`draw`, for the scenes of all sub-environments.
            options: As in :meth:`draw`, for the scenes of all sub-environments.
            repeat: Sub-environments in a row that see the same scene, which is drawn, degraded and reconstructed for
                reference once for all of them.
            where: Which scenes begin again, bool [B]; None takes all.
        """
        spare_forked_threads()
        fixed, rows = self.parse(options, len(uniforms)), None
        if where is not None and not where.all():
            chosen = np.flatnonzero(where)
            uniforms, fixed = uniforms[chosen], fixed.take(chosen)
            rows = torch.from_numpy(np.flatnonzero(where.repeat(repeat))).to(self.device)
        scenes = self.draw(uniforms, fixed)
        reference, action = self.reconstruct(scenes)
        if repeat > 1:
            scenes, reference = scenes.repeat(repeat), reference.repeat(repeat)
            action = action.repeat_interleave(repeat, 0)
        begun = Episode.begin(scenes, reference, action)
        self._episode = begun if rows is None else self.episode.updated(rows, begun)

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Act in every sub-environment.

        Args:
            actions: float32 in [-1, 1], [B, A].

        Returns:
            Rewards, float64 [B].

        Raises:
            UsageError: Wrong shape or type, NaN, or a value outside [-1, 1]. The reward is not finite.
            RuntimeError: There is no episode, or one is over.
        """
        spare_forked_threads()
        if self._episode is None:
            raise RuntimeError("step() before reset(): call reset() to begin an episode")
        episode = self._episode
        if self.over.any():
            raise RuntimeError(f"the episode ended after {self.horizon} step(s): call reset() to begin another")
        given = torch.from_numpy(self.check_actions(actions)).to(self.device)
        if self.iterative:
            given = (episode.action + self.settings.correction * given).clamp(-1, 1)
        result = self.evaluate(episode.scenes, given)
        before = episode.current.score
        if self.settings.reference == "none":
            before = before.masked_fill(torch.from_numpy(episode.steps == 0).to(self.device), 0)
        reward = (result.score - before).double()
        rewards = reward.cpu().numpy()
        if not np.isfinite(rewards).all():
            raise not_finite(result, episode.current)
        self._episode = replace(episode, current=result, action=given, reward=reward, steps=episode.steps + 1)
        return rewards

    def check_actions(self, actions: np.ndarray) -> np.ndarray:
        """Return actions as float32 [B, A].

        Raises:
            UsageError: Wrong shape or type, NaN, or a value outside [-1, 1].
        """
        shape = (len(self.scenes.lr), self.controls.length)
        try:
            actions = np.asarray(actions)
        except ValueError:  # lists of several lengths
            raise UsageError(f"actions are no array: give float32 {shape}") from None
        if actions.shape != shape:
            raise UsageError(
                f"action shape {actions.shape} does not fit: give {shape}, {self.controls.title} per environment"
            )
        if actions.dtype.kind not in "iuf":
            raise UsageError(f"actions of type {actions.dtype} are no real numbers: give float32")
        actions = np.ascontiguousarray(actions, dtype=np.float32)
        inside = np.abs(actions) <= 1.0
        if not inside.all():
            value = float(actions[~inside][0])
            raise UsageError(f"action value {value} is outside [-1, 1]: clip the action, and check for NaN")
        return actions

    @property
    def episode(self) -> Episode:
        """The running episodes.

        Raises:
            RuntimeError: There was no reset yet.
        """
        if self._episode is None:
            raise RuntimeError("no scene yet: call reset() to begin an episode")
        return self._episode

    @property
    def scenes(self) -> Scenes:
        """The scenes of the running episodes.

        Raises:
            RuntimeError: There was no reset yet.
        """
        return self.episode.scenes

    @property
    def over(self) -> np.ndarray:
        """Which episodes have ended by themselves, bool [B]."""
        return self.episode.steps >= self.horizon

    def observation(self) -> np.ndarray | dict[str, np.ndarray]:
        """What the agents see.

        Returns:
            LR images, uint8 [B, p, p, 3]; in the iterative environment a dict of these (``lr``), what was chosen so
            far as an action, float32 [B, A] (``code``, though further controls follow it), and its SR image reduced to
            the LR size, uint8 [B, p, p, 3] (``sr``).
        """
        episode = self.episode
        lr = to_uint8(episode.scenes.lr)
        if not self.iterative:
            return lr
        thumbnail = bicubic_resize(episode.current.sr, (self.lr_size, self.lr_size)).clamp(0, 1)
        return {"lr": lr, "code": episode.action.float().cpu().numpy().copy(), "sr": to_uint8(thumbnail)}

    def info(self) -> dict[str, np.ndarray]:
        """Everything known about the episodes, one array [B, ...] per name (the environments' docstrings list them).

        What actions made is there once all sub-environments have acted.
        """
        episode = self.episode
        scenes, current, reference = episode.scenes, episode.current, episode.reference
        columns: dict[str, Tensor] = {}
        if (truth := scenes.truth) is not None:
            columns = {"code_true": truth.code, "action_true": self._action_of(truth.code)}
            columns |= {"kernel_width": truth.kernels.widths, "kernel_angle": truth.kernels.angles}
            if (corruption := truth.kernels.corruption) is not None:
                columns |= {name: getattr(corruption, field) for name, field in CORRUPTIONS.items()}
        columns |= {
            "score_reference": reference.score,
            **{f"{name}_reference": value for name, value in reference.terms.items()},
        }
        images = {}
        if episode.steps.all():
            columns |= {"code": current.code, **current.values, "score": current.score, **current.terms}
            images = {"sr": to_uint8(current.sr)} if self.settings.info_images else {}
        # Copies, since users keep what they are given while the next step overwrites nothing of theirs.
        return {
            **{name: value.cpu().numpy().copy() for name, value in columns.items()},
            **images,
            "photo": scenes.photo.copy(),
            "crop": scenes.corner.copy(),
        }
