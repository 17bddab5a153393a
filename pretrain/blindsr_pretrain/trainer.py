"""The one training loop: data, devices and processes, precision, EMA, validation, checkpoints, resume.

What differs between training a renderer, a GAN and a predictor is a :class:`Task`; everything else is here. The batch
of step k depends on ``(seed, k)`` alone, so that a resumed run sees the same data as one that was never stopped.

``accelerate launch --multi_gpu --num_processes P pretrain/train_amnet.py ...`` trains on P devices (with ``--device
cpu``, in P processes on the CPU): each takes its part of a batch of ``P * batch_size``, which is the batch that one
process with that ``batch_size`` would see. The first process validates and writes.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from sr_env.degradation import REPORTED_WIDTHS, Degradation, KernelBasis, quantize, soften
from sr_env.metrics import create_metric
from sr_env.models.checkpoint import load_predictor, save_checkpoint
from sr_env.photos import PhotoSource, augment, crops, hold_out, open_photos, random_crops
from sr_env.utils.checks import MIN_LR_SIZE
from sr_env.utils.devices import Precision, channels_last, resolve_device, uses_bf16
from sr_env.utils.files import atomic_write, check_writable
from sr_env.utils.images import to_images
from sr_env.utils.provenance import command_line, commit, hardware, public_path
from sr_env.utils.script import stop_requests

Tensors = tuple[Tensor, ...] | list[Tensor]
MAX_BAD_STEPS = 20
UNIFORMS_PER_PATCH = 5
_VALIDATION_CROP = 288


@dataclass
class TrainingSettings:
    """Settings shared by every training script.

    Attributes:
        out: Folder for the checkpoint to resume from, the exported weights and the TensorBoard curves.
        data: Folder of HR photos, searched recursively; "bundled" takes scikit-image's photographs.
        steps: Optimiser steps in all; with ``minutes`` at most.
        minutes: Minutes of training in all, validation included and earlier sittings too; the learning rate then
            follows the clock, so that any budget ends at a low rate. None leaves the schedule to the steps.
        batch_size: Patches per step and process.
        patch_size: HR patch side in pixels.
        workers: Threads that cut patches ahead.
        learning_rate: Peak learning rate of AdamW; a cosine takes it to ``final_lr_ratio`` of that.
        warmup_steps: Steps over which the learning rate rises linearly.
        final_lr_ratio: Last learning rate as a share of the peak.
        softness: Half of the patches are softened first, by a Gaussian of a width uniform up to this in HR pixels, and
            the held-out photos are there a second time, softened by half of it. Photographs differ in their own
            sharpness: a network that has only seen sharp ones sharpens soft scenes too much.
        ema: Decay of the exponential moving average of the weights, which is what is validated and exported.
        clip: Gradient norm above which gradients are scaled down.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto" (bf16 where the device computes in it), "fp32" or "bf16".
        compile: Use torch.compile (needs a C++ compiler on a CPU; where it fails training runs uncompiled).
        seed: Seed of initial weights and data order.
        resume: Continue from the last checkpoint in ``out``.
        checkpoint_minutes: Minutes between checkpoints.
        log_every: Steps between points of the curves.
        validate_every: Steps between validations.
        validation_photos: Photos of the folder held out for validation (the bundled source has its own).
    """

    out: Path = Path("runs/train")
    data: str = "bundled"
    steps: int = 40_000
    minutes: float | None = None
    batch_size: int = 16
    patch_size: int = 128
    workers: int = 2
    learning_rate: float = 5e-4
    warmup_steps: int = 200
    final_lr_ratio: float = 1e-2
    softness: float = 0.0
    ema: float = 0.999
    clip: float = 1.0
    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = True
    seed: int = 0
    resume: bool = False
    checkpoint_minutes: float = 2.0
    log_every: int = 50
    validate_every: int = 2000
    validation_photos: int = 16

    def __post_init__(self) -> None:
        for name in (
            *("steps", "batch_size", "patch_size", "workers", "log_every", "validate_every", "validation_photos"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        for name, right in (
            ("learning_rate", 0 < self.learning_rate < math.inf),
            ("warmup_steps", self.warmup_steps >= 0),
            ("final_lr_ratio", 0 <= self.final_lr_ratio <= 1),
            ("softness", 0 <= self.softness < math.inf),
            ("ema", 0 <= self.ema < 1),
            ("clip", self.clip > 0),
            ("checkpoint_minutes", self.checkpoint_minutes >= 0),
            ("minutes", self.minutes is None or 0 < self.minutes < math.inf),
        ):
            if not right:
                raise ValueError(f"{name} is {getattr(self, name)}, which is out of range: see --help for its meaning")


class Task(ABC):
    """What is trained: the network, its loss, its validation; and, in a GAN, the network that it is trained against.

    Attributes:
        network: The network whose parameters are trained, on its device.
        adversary: The network trained against it (a discriminator), on its device; None where there is none.
        adversary_rate: Peak learning rate of the adversary, which follows the same schedule.
        basis: Kernel basis that the exported checkpoint is bound to.
        scale: Magnification.
        name: File name of the exported weights, without suffix.
        headline: Validation figure by which the best weights are chosen.
        higher_is_better: Direction of the headline.
        share: Share of the training that is done, in [0, 1]; the trainer keeps it.
    """

    network: nn.Module
    adversary: nn.Module | None = None
    adversary_rate: float = 1e-4
    basis: KernelBasis
    scale: int
    name: str
    headline: str = "psnr"
    higher_is_better: bool = True
    share: float = 0.0

    @abstractmethod
    def loss(
        self, network: nn.Module, hr: Tensor, uniforms: np.ndarray, step: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of one batch.

        Args:
            network: The network to run, possibly compiled.
            hr: HR patches, float32 in [0, 1], [B, 3, P, P].
            uniforms: Numbers in [0, 1), [B, 5]: three to draw the kernel from, one of the patch's softness, and one for
                the task's own use.
            step: Number of this step, from 0.

        Returns:
            The scalar to minimise, and named scalars to log.
        """

    def adversary_loss(self, adversary: nn.Module) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of the adversary on the pictures of the batch whose :meth:`loss` was computed last.

        Args:
            adversary: The adversary to run, possibly wrapped for several processes.

        Returns:
            The scalar to minimise, and named scalars to log.
        """
        raise NotImplementedError

    @abstractmethod
    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        """Figures of the averaged network on the held-out photos, and a picture [3, H, W] in [0, 1]."""

    def card(self) -> dict[str, Any]:
        """Entries of the exported card that this task knows."""
        return {}


class HeldOut:
    """Held-out photos, degraded once with the three reported widths, and the scores of their reconstruction.

    Args:
        photos: The held-out photos; a centre crop of each is used.
        degradation: How LR images are made.
        basis: Kernel basis for the true codes.
        device: Where they are kept.
        softness: Where positive, every photo is also there softened by a Gaussian of this width in HR pixels.
        metrics: What is measured.
    """

    def __init__(
        self,
        photos: PhotoSource,
        degradation: Degradation,
        basis: KernelBasis,
        device: torch.device,
        softness: float = 0.0,
        metrics: Sequence[str] = ("psnr",),
    ) -> None:
        scale = degradation.scale
        side = min(_VALIDATION_CROP, *(min(shape) for shape in photos.shapes)) // scale * scale
        tops = np.array([(height - side) // 2 for height, _ in photos.shapes])
        lefts = np.array([(width - side) // 2 for _, width in photos.shapes])
        hr = to_images(crops(photos, np.arange(len(photos)), tops, lefts, side), device)
        if softness > 0:
            hr = torch.cat((hr, quantize(soften(hr, hr.new_full((len(hr),), softness)))))
        self.hr = hr
        self.metrics = {name: create_metric(name, border=scale, device=device) for name in metrics}
        self.sets: dict[float, tuple[Tensor, Tensor]] = {}
        for width in REPORTED_WIDTHS[scale]:
            kernels = degradation.build(np.full(len(hr), width), device=device)
            self.sets[width] = (degradation(hr, kernels), basis.encode(kernels.kernels))

    @torch.inference_mode()
    def score(
        self, render: Callable[[Tensor, Tensor], Tensor], predict: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[dict[str, float], Tensor]:
        """Every metric's mean, under its name, and per width, as ``psnr_0.2``; and the last picture beside HR.

        Args:
            render: (LR [B, 3, h, w], code [B, L]) -> SR [B, 3, H, W].
            predict: LR [B, 3, h, w] -> the code [B, L] to render with. The true code's means then stand beside, as
                ``psnr_true_kernel``. None renders with the true code.
        """
        if predict is not None:
            figures, picture = self.score(lambda lr, code: render(lr, predict(lr)))
            true_kernel = self.score(render)[0]
            return figures | {f"{name}_true_kernel": true_kernel[name] for name in self.metrics}, picture
        rendered = {width: render(lr, code).float().clamp(0, 1) for width, (lr, code) in self.sets.items()}
        figures = {}
        for name, metric in self.metrics.items():
            values = {width: float(metric(sr, self.hr).mean()) for width, sr in rendered.items()}
            figures[name] = float(np.mean(list(values.values())))
            figures |= {f"{name}_{width}": value for width, value in values.items()}
        return figures, torch.cat((next(reversed(rendered.values()))[0], self.hr[0]), dim=-1)


def split_photos(settings: TrainingSettings) -> tuple[PhotoSource, np.ndarray, PhotoSource]:
    """Open the photos and hold some out.

    Returns:
        The source to train on, the indices in it that may be trained on, and the held-out photos.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: Too few photos to hold out any.
    """
    if settings.data == "bundled":
        train = open_photos("bundled", split="train", min_size=settings.patch_size)
        return train, np.arange(len(train)), open_photos("bundled", split="test")
    source = open_photos(settings.data, min_size=settings.patch_size)
    count = settings.validation_photos
    if len(source) < 2 * count:
        raise ValueError(
            f"{settings.data!r} holds {len(source)} usable photos, too few to hold {count} out: "
            "add photos or lower --validation-photos"
        )
    kept, left = hold_out(len(source), count)
    return source, kept, open_photos([source[int(index)] for index in left])


def code_predictor(
    name: str | None, scale: int, basis: KernelBasis, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """What a renderer is given in use: LR images [B, 3, h, w] -> the codes [B, L] that a frozen predictor sees.

    Args:
        name: Name or path of the predictor; None makes none.
        scale: The renderer's magnification.
        basis: The renderer's kernel basis.
        device: Where the predictor goes.

    Raises:
        FileNotFoundError: No such predictor.
        ValueError: It is for another scale or basis.
    """
    if name is None:
        return None
    network = channels_last(load_predictor(name, scale=scale, basis=basis, device=device).network)

    @torch.no_grad()
    def predict(lr: Tensor) -> Tensor:
        return basis.to_code(network(lr))

    return predict


def training_device(settings: TrainingSettings) -> torch.device:
    """Device of this process: the settings' own, or under ``accelerate launch`` the one that it was given.

    Raises:
        ValueError: This machine has no such device, one device was named for several processes, or several were asked
            for and one started.
    """
    device = resolve_device(settings.device)
    state = PartialState(cpu=device.type == "cpu")
    if state.num_processes == 1:
        if state.device.type != device.type:  # an earlier run of this process (a notebook) was elsewhere
            PartialState._reset_state()
            PartialState(cpu=device.type == "cpu")
        # Accelerate's launcher only starts several processes for several GPUs, and says nothing otherwise.
        if {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ:
            raise ValueError(
                "accelerate launch was asked for several processes and started one: add --multi_gpu before the script "
                "(with --device cpu after it that starts them on CPUs too)"
            )
        return device
    if device.index is not None:
        raise ValueError(
            f"device {settings.device!r} names one device for {state.num_processes} processes: "
            f"give {device.type!r}, each takes its own"
        )
    return state.device


def compile_where_possible(network: nn.Module, settings: TrainingSettings, device: torch.device) -> nn.Module:
    """torch.compile the network if the settings ask for it and the machine can; on a CPU that takes a C++ compiler."""
    return cast(nn.Module, torch.compile(network)) if settings.compile and compiles(device.type) else network


@cache
def compiles(device_type: str) -> bool:
    """Whether torch.compile works here, tried on one line of code; where it does not, a warning says why."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device_type))
    except Exception as error:  # a missing or broken compiler shows as one of many types
        warnings.warn(f"training runs uncompiled, torch.compile fails here: {_first_line(error)}", stacklevel=2)
        return False
    return True


def _first_line(error: BaseException) -> str:
    """Type and first line of an error whose message torch spreads over many."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Update of an exponential moving average whose decay rises to its value, so that short runs forget their start."""

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, count: Tensor | int) -> None:
        updates = int(count)
        now = min(decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(averages, values, 1 - now)

    return update


def _accelerator(precision: str) -> Accelerator:
    """Accelerate's view of this process; networks are on their device already."""
    AcceleratorState._reset_state()  # else a second run in one process (a notebook) could not change the precision
    return Accelerator(mixed_precision=precision, device_placement=False)


def _optimizer(network: nn.Module, rate: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, rate, betas, weight_decay=0.0, fused=True)


class Trainer:
    """Runs a task.

    Args:
        task: What is trained.
        settings: How.
        photos: Source of the HR patches.
        indices: The photos of the source that may be used.
        console: Where progress is shown.

    Raises:
        FileExistsError: ``out`` holds a checkpoint and ``resume`` is off.
        FileNotFoundError: ``resume`` is on and there is no checkpoint.
        OSError: ``out`` cannot be written.
        ValueError: The patch size does not suit the scale, or the checkpoint to resume from is damaged.
    """

    def __init__(
        self,
        task: Task,
        settings: TrainingSettings,
        photos: PhotoSource,
        indices: np.ndarray,
        console: Console | None = None,
    ) -> None:
        self.task, self.settings, self.photos, self.indices = task, settings, photos, indices
        self.device = training_device(settings)
        self.precision = "bf16" if uses_bf16(settings.precision, self.device) else "no"
        self.accelerator = _accelerator(self.precision)
        self.main = self.accelerator.is_main_process
        self.console = (console or Console()) if self.main else Console(quiet=True)
        self.checkpoint = settings.out / "checkpoint.pt"
        self.weights = settings.out / f"{task.name}.safetensors"
        if settings.resume and not self.checkpoint.is_file():
            raise FileNotFoundError(f"nothing to resume: {self.checkpoint} does not exist; start without --resume")
        if not settings.resume and self.checkpoint.is_file():
            raise FileExistsError(f"{self.checkpoint} exists: add --resume to go on, or choose another --out")
        if settings.patch_size % task.scale or settings.patch_size < MIN_LR_SIZE * task.scale:
            raise ValueError(
                f"patch_size {settings.patch_size} does not suit scale {task.scale}: "
                f"give a multiple of {task.scale} from {MIN_LR_SIZE * task.scale}"
            )
        trained = [channels_last(network) for network in (task.network, task.adversary) if network is not None]
        # Weights, average and two moments, in the checkpoint and in the one that replaces it.
        sizes = [p.numel() * p.element_size() for network in trained for p in network.parameters()]
        check_writable(settings.out, 8 * sum(sizes))

        self.average = AveragedModel(task.network, multi_avg_fn=moving_average(settings.ema))
        self.optimizer = _optimizer(task.network, settings.learning_rate, (0.9, 0.999))
        self.adversary_optimizer = None
        if task.adversary is not None:
            self.adversary_optimizer = _optimizer(task.adversary, task.adversary_rate, (0.5, 0.999))
        self.step, self.seconds, self.best, self.bad_steps = 0, 0.0, -math.inf, 0
        if settings.resume:
            self._load()
        self.network = compile_where_possible(self.accelerator.prepare(task.network), settings, self.device)
        self.adversary = self.accelerator.prepare(task.adversary) if task.adversary is not None else None

    def run(self) -> dict[str, float]:
        """Train to ``settings.steps``.

        Returns:
            The last validation's figures.

        Raises:
            FloatingPointError: The loss was not finite for ``MAX_BAD_STEPS`` steps in a row.
            KeyboardInterrupt: After Ctrl-C or SIGTERM, with a checkpoint saved.
        """
        settings = self.settings
        precision = "fp32" if self.precision == "no" else self.precision
        processes = f" in {self.accelerator.num_processes} processes" if self.accelerator.num_processes > 1 else ""
        self.console.print(
            f"{self.task.name}: {len(self.indices)} photos, steps {self.step} to {settings.steps}, "
            f"{self.device.type} {precision}{processes}, writing to {settings.out}"
        )
        figures: dict[str, float] = {}
        begun = time.monotonic() - self.seconds
        saved = time.monotonic()
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        writer = SummaryWriter(str(settings.out / "tb"), purge_step=self.step + 1) if self.main else None
        batches = self._batches()
        try:
            with stop_requests() as stop, progress:
                bar = progress.add_task("training", total=settings.steps, completed=self.step)
                for hr, uniforms in batches:
                    self.task.share = self._share()
                    logs = self._update(hr, uniforms)
                    self.step += 1
                    self.seconds = time.monotonic() - begun
                    progress.update(bar, completed=self.step)
                    if self.step % settings.log_every == 0:
                        means = {name: float(self.accelerator.reduce(value, "mean")) for name, value in logs.items()}
                        progress.update(bar, description=f"loss {means['loss']:.4f}")
                        if writer is not None:
                            for name, value in {**means, "lr": self._rate(self.step)}.items():
                                writer.add_scalar(f"train/{name}", value, self.step)
                    over = self._agree(self._share() >= 1)
                    if self.step % settings.validate_every == 0 or over:
                        figures = self._validate(writer)
                    if time.monotonic() - saved > 60 * settings.checkpoint_minutes or over:
                        self._save()
                        saved = time.monotonic()
                    if over:
                        break
                    if self._agree(stop.is_set()):
                        self._save()
                        self.console.print(f"stopped at step {self.step}; add --resume to go on from {self.checkpoint}")
                        raise KeyboardInterrupt
                if not figures and self.main:
                    self.console.print(
                        f"step {self.step} of {settings.steps}: nothing left to train; raise --steps or --minutes"
                    )
                    figures = self._validate(writer)
        finally:
            batches.close()
            if writer is not None:
                writer.close()
        return figures

    def _batches(self) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """This process's part of every batch from the current step on; the next ones are cut meanwhile."""
        settings, accelerator = self.settings, self.accelerator
        total = settings.batch_size * accelerator.num_processes
        share = slice(accelerator.process_index, None, accelerator.num_processes)
        # Between uniform, which repeats the pixels of small photos, and by area, which hardly shows small photos.
        room = (self.photos.shape_array[self.indices] - settings.patch_size + 1).prod(1) ** 0.5
        chances = room / room.sum()

        def draw(step: int) -> tuple[np.ndarray, np.ndarray]:
            rng = np.random.default_rng([settings.seed, step])
            chosen = rng.choice(self.indices, total, p=chances)
            patches = random_crops(self.photos, chosen, rng, settings.patch_size, share=share)
            ways = rng.random((3, total)) < 0.5
            return augment(patches, ways[:, share]), rng.random((total, UNIFORMS_PER_PATCH))[share]

        with ThreadPoolExecutor(settings.workers) as pool:
            steps = iter(range(self.step, settings.steps) if self._share() < 1 else ())
            coming = deque(pool.submit(draw, step) for step in islice(steps, settings.workers))
            while coming:
                batch = coming.popleft().result()
                coming.extend(pool.submit(draw, step) for step in islice(steps, 1))
                yield batch

    def _share(self) -> float:
        """Share of the training that is done, by steps or by the clock, whichever is nearer to its end."""
        by_clock = 0.0 if self.settings.minutes is None else self.seconds / (60 * self.settings.minutes)
        return min(1.0, max(self.step / self.settings.steps, by_clock))

    def _share_of_peak(self, step: int) -> float:
        """Learning rate of a step as a share of the peak: linear rise, then a cosine."""
        settings = self.settings
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        share = min(1.0, (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps))
        if settings.minutes is not None:
            share = self._share()
        low = settings.final_lr_ratio
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share))

    def _rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.settings.learning_rate * self._share_of_peak(step)

    def _update(self, patches: np.ndarray, uniforms: np.ndarray) -> dict[str, Tensor]:
        """One step of the network, then of its adversary; one whose loss or gradient is not finite changes nothing."""
        task, logs = self.task, {}
        hr = to_images(patches, self.device)
        if self.settings.softness > 0:
            widths = self.settings.softness * np.maximum(0, 2 * uniforms[:, 3] - 1)
            hr = quantize(soften(hr, torch.from_numpy(widths).to(hr)))
        if task.adversary is not None:
            task.adversary.requires_grad_(False)  # judged by it, not training it
        with self.accelerator.autocast():
            loss, terms = task.loss(self.network, hr, uniforms, self.step)
        good, logs["gradient_norm"] = self._descend(loss, task.network, self.optimizer, self.settings.learning_rate)
        if good:
            self.average.update_parameters(task.network)
        logs |= {"loss": loss.detach(), **{name: value.detach() for name, value in terms.items()}}
        if self.adversary is not None and self.adversary_optimizer is not None and task.adversary is not None:
            task.adversary.requires_grad_(True)
            with self.accelerator.autocast():
                loss, terms = task.adversary_loss(self.adversary)
            fine, logs["adversary_gradient_norm"] = self._descend(
                loss, task.adversary, self.adversary_optimizer, task.adversary_rate
            )
            good = good and fine
            logs |= {"adversary_loss": loss.detach(), **{name: value.detach() for name, value in terms.items()}}
        self.bad_steps = 0 if good else self.bad_steps + 1
        if self.bad_steps >= MAX_BAD_STEPS:
            saved = f" and --resume from {self.checkpoint}" if self.checkpoint.is_file() else ""
            raise FloatingPointError(
                f"the loss was not finite for {MAX_BAD_STEPS} steps up to step {self.step}: "
                f"lower --learning-rate{saved}"
            )
        return logs

    def _descend(
        self, loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, peak: float
    ) -> tuple[bool, Tensor]:
        """One optimiser step; whether it was taken, and the gradient's norm before clipping."""
        for group in optimizer.param_groups:
            group["lr"] = peak * self._share_of_peak(self.step)
        optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.settings.clip)
        # A NaN of one process's loss is in the gradients of all, but an infinite loss need not be.
        good = bool(torch.isfinite(norm)) and not self._agree(not bool(torch.isfinite(loss)))
        if good:
            optimizer.step()
        return good, norm

    def _agree(self, said: bool) -> bool:
        """Whether any process says so."""
        if self.accelerator.num_processes == 1:
            return said
        return bool(self.accelerator.reduce(torch.tensor(float(said), device=self.device), "sum") > 0)

    def _validate(self, writer: SummaryWriter | None) -> dict[str, float]:
        """Score the averaged weights, log, and export them when they are the best so far (in the first process)."""
        if writer is None:
            return {}
        network = self.average.module.eval()
        figures, picture = self.task.validate(network)
        for name, value in figures.items():
            writer.add_scalar(f"validation/{name}", value, self.step)
        writer.add_image("validation/sr_and_hr", picture, self.step)
        told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        rate = self.step / max(self.seconds, 1e-9)
        self.console.print(f"step {self.step}: {told} ({rate:.1f} steps/s, {self.seconds / 60:.1f} min)")
        quality = figures[self.task.headline] * (1 if self.task.higher_is_better else -1)
        if quality > self.best:
            self.best = quality
            save_checkpoint(self.weights, network, self.task.basis, self.task.scale, self._card(figures))
        return figures

    def _card(self, figures: Mapping[str, float]) -> dict[str, Any]:
        """How the exported weights were made."""
        settings = {
            key: public_path(value) if isinstance(value, str | Path) else value
            for key, value in asdict(self.settings).items()
        }
        return {
            "steps": self.step,
            "seconds": round(self.seconds),
            "hardware": hardware(self.device),
            "processes": self.accelerator.num_processes,
            "torch": torch.__version__,
            "seed": self.settings.seed,
            "command": command_line(),
            "commit": commit(),
            "photos": len(self.indices),
            "settings": settings,
            "validation": {name: round(value, 4) for name, value in figures.items()},
            "licence": "Apache-2.0",
            **self.task.card(),
        }

    def _save(self) -> None:
        if not self.main:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "network": self.task.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.task.adversary is not None and self.adversary_optimizer is not None:
            state["adversary"] = self.task.adversary.state_dict()
            state["adversary_optimizer"] = self.adversary_optimizer.state_dict()
        with atomic_write(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _load(self) -> None:
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.task.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.task.adversary is not None and self.adversary_optimizer is not None:
                self.task.adversary.load_state_dict(state["adversary"])
                self.adversary_optimizer.load_state_dict(state["adversary_optimizer"])
            self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        except Exception as error:  # torch raises many types for a damaged or foreign file
            raise ValueError(
                f"cannot resume from {self.checkpoint} ({_first_line(error)}): it is damaged or of another network; "
                "delete it to start anew"
            ) from error
