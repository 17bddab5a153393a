"""The one training loop: steps, averaging, validation, checkpoints, resume; on any device, in any number of processes.

What differs between training a renderer, a GAN and a predictor is a :class:`~blindsr_pretrain.task.Task`. The batch of
step k depends on ``(seed, k)`` alone, so that a resumed run sees the same data as one that was never stopped. A step
never waits for the device: what the loop wants to know of it is read every ``log_every`` steps.

``accelerate launch --multi_gpu --num_processes P pretrain/train_amnet.py ...`` trains on P devices (with ``--device
cpu``, in P processes on the CPU): each takes its part of a batch of ``P * batch_size``, which is the batch that one
process with that ``batch_size`` would see. The first process validates and writes.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from blindsr_pretrain.batches import as_images, make_cutter, prepared_batches
from blindsr_pretrain.data import make_diet, split_photos
from blindsr_pretrain.runtime import (
    compile_where_possible,
    first_line,
    full_float32,
    make_accelerator,
    training_device,
    tried_convolutions,
    upload,
)
from blindsr_pretrain.settings import TrainingSettings
from blindsr_pretrain.state import RECORD, load_parts, load_record, named_weights, save_state
from blindsr_pretrain.task import Task
from sr_env.degradation import quantize, soften
from sr_env.models import save_checkpoint
from sr_env.photos import PhotoSource, fingerprint
from sr_env.utils.checks import MIN_LR_SIZE, UsageError
from sr_env.utils.devices import channels_last, uses_bf16
from sr_env.utils.files import check_writable, disk_errors_named
from sr_env.utils.provenance import command_line, commit, hardware, public_path
from sr_env.utils.resume import check_out, check_settings, kept_settings
from sr_env.utils.signals import stop_requests

MAX_BAD_STEPS = 20
#: Several processes ask each other so often whether to stop; one that is alone asks itself after every step.
_AGREE_EVERY = 10


def train(
    make_task: Callable[[Any, PhotoSource], Task], settings: TrainingSettings, console: Console | None = None
) -> dict[str, float]:
    """Train and export.

    Args:
        make_task: (settings, held-out photos) -> the task.
        settings: How.
        console: Where progress is shown.

    Returns:
        The last validation's figures.
    """
    photos, indices, held_out = split_photos(settings)
    return Trainer(make_task(settings, held_out), settings, photos, indices, console).run()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, share: Tensor) -> None:
    """Move every averaged weight by ``share`` (a scalar on the device) of the way to the network's."""
    averages: list[Tensor] = [*average.parameters()]
    values: list[Tensor] = [*network.parameters()]
    steps = torch._foreach_mul(torch._foreach_sub(values, averages), share)
    torch._foreach_add_(averages, steps)


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

    Attributes:
        average: The task's network with averaged weights.
        bad_steps: Steps in a row, up to the last, whose loss or gradient was not finite, a scalar on the device.

    Raises:
        FileInTheWayError: ``out`` holds a state or weights and ``resume`` is off.
        MissingFileError: ``resume`` is on and there is no state.
        OSError: ``out`` cannot be written.
        UsageError: The patch size does not suit the scale, the photos do not suit the settings, or the state to resume
            from is damaged or of other settings.
    """

    def __init__(
        self,
        task: Task,
        settings: TrainingSettings,
        photos: PhotoSource,
        indices: np.ndarray,
        console: Console | None = None,
    ) -> None:
        self.task, self.settings, self.photos = task, settings, len(indices)
        self.device = training_device(settings)
        self.precision = "bf16" if uses_bf16(settings.precision, self.device) else "no"
        self.accelerator = make_accelerator(self.precision)
        self.main = self.accelerator.is_main_process
        self.console = (console or Console()) if self.main else Console(quiet=True)
        self.checkpoint = settings.out / RECORD
        self.weights = settings.out / f"{task.name}.safetensors"
        check_out(settings.out, RECORD, (self.weights.name,), settings.resume)
        patches = settings.batch_size * self.accelerator.num_processes  # of one step, however many processes share it
        inputs = {"data": fingerprint(photos), "batch_size": patches, **named_weights(settings)}
        self._kept = kept_settings(settings, **inputs)
        record = self._read_record() if settings.resume else {}
        if settings.patch_size % task.scale or settings.patch_size < MIN_LR_SIZE * task.scale:
            raise UsageError(
                f"patch_size {settings.patch_size} does not suit scale {task.scale}: "
                f"give a multiple of {task.scale} from {MIN_LR_SIZE * task.scale}"
            )
        self.diet = make_diet(settings, photos, indices)
        trained = [channels_last(network) for network in (task.network, task.adversary) if network is not None]
        # Weights, average and two moments, in the state and in the one that replaces it; one of the two may be there.
        sizes = [p.numel() * p.element_size() for network in trained for p in network.parameters()]
        check_writable(settings.out, (4 if settings.resume else 8) * sum(sizes))

        self.average = copy.deepcopy(task.network).requires_grad_(False).eval()
        self.optimizer = _optimizer(task.network, settings.learning_rate, (0.9, 0.999))
        self.adversary_optimizer = None
        if task.adversary is not None:
            self.adversary_optimizer = _optimizer(task.adversary, task.adversary_rate, (0.5, 0.999))
        self.step, self.seconds, self.best = 0, 0.0, -math.inf
        self.bad_steps = torch.zeros((), device=self.device)
        self._most_bad_steps = torch.zeros((), device=self.device)
        if settings.resume:
            self._load(record)
        self.network = compile_where_possible(self.accelerator.prepare(task.network), settings, self.device)
        self.adversary = self.accelerator.prepare(task.adversary) if task.adversary is not None else None

    def run(self) -> dict[str, float]:
        """Train to ``settings.steps`` or ``settings.minutes``.

        Returns:
            The last validation's figures.

        Raises:
            FloatingPointError: The loss was not finite for ``MAX_BAD_STEPS`` steps in a row.
            KeyboardInterrupt: After Ctrl-C or SIGTERM, with the state saved.
        """
        settings = self.settings
        precision = "fp32" if self.precision == "no" else self.precision
        processes = f" in {self.accelerator.num_processes} processes" if self.accelerator.num_processes > 1 else ""
        self.console.print(
            f"{self.task.name}: {self.photos} photos, steps {self.step} to {settings.steps}, "
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
            with stop_requests() as stop, tried_convolutions(), progress, disk_errors_named(settings.out):
                bar = progress.add_task("training", total=settings.steps, completed=self.step)
                for patches, uniforms in batches:
                    self.task.share = self._share()
                    logs = self._update(patches, uniforms)
                    self.step += 1
                    self.seconds = time.monotonic() - begun
                    progress.update(bar, completed=self.step)
                    if self.step % settings.log_every == 0:
                        self._log(logs, writer, progress, bar)
                    over, stopped = self._agree(self._share() >= 1, stop.is_set())
                    if self.step % settings.validate_every == 0 or over:
                        figures = self._validate(writer)
                    if time.monotonic() - saved > 60 * settings.checkpoint_minutes or over:
                        self._save()
                        saved = time.monotonic()
                    if over:
                        break
                    if stopped:
                        self._save()
                        self.console.print(f"stopped at step {self.step}; add --resume to go on from {settings.out}")
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

    def _batches(self) -> Generator[tuple[Tensor, np.ndarray], None, None]:
        """This process's part of every batch from the current step on: patches uint8 [B, P, P, 3], uniforms [B, 6]."""
        settings, accelerator = self.settings, self.accelerator
        cutter = make_cutter(self.diet, settings.patch_size, self.device, max(1, settings.workers))
        steps = range(self.step, settings.steps) if self._share() < 1 else range(0)
        return prepared_batches(
            self.diet, settings, cutter, steps, accelerator.num_processes, accelerator.process_index
        )

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

    def _update(self, patches: Tensor, uniforms: np.ndarray) -> dict[str, Tensor]:
        """One step of the network, then of its adversary; one whose loss or gradient is not finite changes nothing."""
        task, logs = self.task, {}
        hr = as_images(patches)
        if (softness := self.settings.softness_at(task.scale)) > 0:
            widths = softness * np.maximum(0, 2 * uniforms[:, 3] - 1)
            with full_float32():
                hr = quantize(soften(hr, upload(torch.from_numpy(widths).float(), self.device)))
        if task.adversary is not None:
            task.adversary.requires_grad_(False)  # judged by it, not training it
        with self.accelerator.autocast():
            loss, terms = task.loss(self.network, hr, uniforms, self.step)
        bad, logs["gradient_norm"] = self._descend(loss, task.network, self.optimizer, self.settings.learning_rate)
        # The decay rises to its value, so that short runs forget their start; the first step's weights are the average.
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step)) if self.step else 0.0
        update_average(self.average, task.network, (1 - bad) * (1 - decay))
        logs |= {"loss": loss.detach(), **{name: value.detach() for name, value in terms.items()}}
        if self.adversary is not None and self.adversary_optimizer is not None and task.adversary is not None:
            task.adversary.requires_grad_(True)
            with self.accelerator.autocast():
                loss, terms = task.adversary_loss(self.adversary)
            worse, logs["adversary_gradient_norm"] = self._descend(
                loss, task.adversary, self.adversary_optimizer, task.adversary_rate
            )
            bad = torch.maximum(bad, worse)
            logs |= {"adversary_loss": loss.detach(), **{name: value.detach() for name, value in terms.items()}}
        self.bad_steps = (self.bad_steps + 1) * bad
        self._most_bad_steps = torch.maximum(self._most_bad_steps, self.bad_steps)
        return logs

    def _descend(
        self, loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, peak: float
    ) -> tuple[Tensor, Tensor]:
        """One optimiser step; whether it was left out (0 or 1), and the gradient's norm before clipping."""
        for group in optimizer.param_groups:
            group["lr"] = peak * self._share_of_peak(self.step)
        optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.settings.clip)
        bad = 1 - (torch.isfinite(norm) & torch.isfinite(loss.detach())).float()
        if self.accelerator.num_processes > 1:
            # A NaN of one process's loss is in the gradients of all, but an infinite loss need not be.
            bad = self.accelerator.reduce(bad, "sum").clamp(max=1)
        optimizer.found_inf = bad  # type: ignore[attr-defined]  # a fused optimiser looks at it on the device
        optimizer.step()
        return bad, norm

    def _log(self, logs: Mapping[str, Tensor], writer: SummaryWriter | None, progress: Progress, bar: Any) -> None:
        """Write a point of the curves, and end the run where its steps were all bad: here the loop waits."""
        means = {name: float(self.accelerator.reduce(value, "mean")) for name, value in logs.items()}
        progress.update(bar, description=f"loss {means['loss']:.4f}")
        if writer is not None:
            for name, value in {**means, "lr": self._rate(self.step)}.items():
                writer.add_scalar(f"train/{name}", value, self.step)
        self._check_steps()

    def _check_steps(self) -> None:
        """End the run after too many bad steps in a row."""
        if int(self._most_bad_steps) >= MAX_BAD_STEPS:
            saved = f" and --resume from {self.settings.out}" if self.checkpoint.is_file() else ""
            raise FloatingPointError(
                f"the loss was not finite for {MAX_BAD_STEPS} steps up to step {self.step}: "
                f"lower --learning-rate{saved}"
            )

    def _agree(self, over: bool, stopped: bool) -> tuple[bool, bool]:
        """Whether training is over, and whether any process was asked to stop: the same answers in all."""
        accelerator = self.accelerator
        if accelerator.num_processes == 1:
            return over, stopped
        if self.step % _AGREE_EVERY and self.step < self.settings.steps:
            return False, False
        said = accelerator.reduce(torch.tensor([float(over), float(stopped)], device=self.device), "sum").tolist()
        return said[0] > 0, said[1] > 0

    def _validate(self, writer: SummaryWriter | None) -> dict[str, float]:
        """Score the averaged weights, log, and export them when they are the best so far (in the first process)."""
        self._check_steps()
        if writer is None:
            return {}
        network = self._averaged()
        figures, picture = self.task.validate(network)
        for name, value in figures.items():
            writer.add_scalar(f"validation/{name}", value, self.step)
        writer.add_image("validation/sr_and_hr", picture, self.step)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        rate = self.step / max(self.seconds, 1e-9)
        self.console.print(f"step {self.step}: {shown} ({rate:.1f} steps/s, {self.seconds / 60:.1f} min)")
        quality = figures[self.task.headline] * (1 if self.task.higher_is_better else -1)
        if quality > self.best:
            self.best = quality
            save_checkpoint(self.weights, network, self.task.basis, self.task.scale, self._card(figures))
        return figures

    def _averaged(self) -> nn.Module:
        """The network with averaged weights, and the buffers of the present one."""
        for target, source in zip(self.average.buffers(), self.task.network.buffers(), strict=True):
            target.copy_(source)
        return self.average

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
            "photos": self.photos,
            "settings": settings,
            "validation": {name: round(value, 4) for name, value in figures.items()},
            "licence": "Apache-2.0",
            **self.task.card(),
        }

    def _save(self) -> None:
        if not self.main:
            return
        parts = {
            "weights": {"network": self.task.network.state_dict(), "average": self._averaged().state_dict()},
            "optimizer": self.optimizer.state_dict(),
        }
        if self.task.adversary is not None and self.adversary_optimizer is not None:
            parts["adversary"] = self.task.adversary.state_dict()
            parts["adversary_optimizer"] = self.adversary_optimizer.state_dict()
        best = self.best if math.isfinite(self.best) else None
        record = {"step": self.step, "seconds": self.seconds, "best": best, "settings": self._kept}
        save_state(self.settings.out, record, parts)

    def _read_record(self) -> dict[str, Any]:
        """The state's record, of the settings that this run has."""
        try:
            record = load_record(self.settings.out)
        except Exception as error:  # of many types
            raise self._damaged(error) from error
        check_settings(record.get("settings"), self._kept, self.settings.out)
        return record

    def _load(self, record: Mapping[str, Any]) -> None:
        try:
            parts = load_parts(self.settings.out, record, self.device)
            self.task.network.load_state_dict(parts["weights"]["network"])
            self.average.load_state_dict(parts["weights"]["average"])
            self.optimizer.load_state_dict(parts["optimizer"])
            if self.task.adversary is not None and self.adversary_optimizer is not None:
                self.task.adversary.load_state_dict(parts["adversary"])
                self.adversary_optimizer.load_state_dict(parts["adversary_optimizer"])
            self.step, self.seconds = int(record["step"]), float(record["seconds"])
            self.best = -math.inf if record["best"] is None else float(record["best"])
        except Exception as error:  # torch raises many types for a damaged or foreign file
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> UsageError:
        return UsageError(
            f"cannot resume from {self.settings.out} ({first_line(error)}): its state is damaged or of another "
            "network; delete it to start anew"
        )
