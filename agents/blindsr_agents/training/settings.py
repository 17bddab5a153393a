"""Settings that everything shares that improves a pretrained actor."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blindsr_agents.evaluation.sets import WITHOUT_HR
from sr_env.models import check_controls
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import Precision
from sr_env.utils.script import Weights


@dataclass
class ImprovementSettings:
    """Settings shared by everything that improves a pretrained actor.

    Attributes:
        out: Folder for everything that is written; one with the state or actor of another run is refused.
        photos: Folder of HR photos to train on, searched recursively; "bundled" takes scikit-image's photographs.
        lr_photos: Folder of photographs to train on as they are, in place of ``photos``: they are the LR images,
            nothing is blurred, and metrics must need no HR, such as ``--reward niqe=1,consistency=0.1``. Some of them
            are held out to select by, and as many others to report on. See docs/rl.md.
        reward: Metrics and weights that the actor is paid by, such as ``--reward psnr=1,lpips=20``.
        kernels: Kernel family, the renderer's own; None takes "isotropic", or "real" with ``lr_photos``.
        renderer: Name or path of the frozen renderer; None takes ``amnet_l_x{scale}``, or ``amnet_real_x{scale}`` for
            the kernels "real".
        predictor: Name or path of the pretrained actor; None takes ``predictor_x{scale}``, or
            ``predictor_real_x{scale}`` for the kernels "real".
        scale: Magnification.
        patch_size: HR patch side in pixels (that of SR, where there is no HR).
        minutes: Training stops after so many minutes.
        select_every: SR images rendered between validations on the selection scenes.
        selection_photos: Photos of the folder held out to select actors by. Where there are too few photos (as in the
            bundled source) a quarter of each is held out instead. Of ``lr_photos`` at most a quarter is taken.
        selection_side: Longest side in HR pixels of what is taken of them; None takes them whole.
        softness: Every photo is there twice, as it is and softened by a Gaussian of a width up to this in HR pixels; of
            those held out every second is softened. 0 softens none, and trains for photographs as sharp as these are:
            on softer ones an actor trained for LPIPS sharpens too much. See docs/rl.md.
        selection_widths: Kernel widths of the selection scenes; an actor that loses at one of them is not taken.
            ``lr_photos`` have none: there it is the mean over the photographs that counts.
        guards: How much worse other metrics may become on the selection scenes, such as ``--guards psnr=0.1``, in their
            own units, as the mean over widths. The consistency, in dB, can be guarded too.
        controls: What an action holds: code, and after it any of sharpen and blend, in this order. Actors of more than
            the code act in environments and comparisons with the same controls. ``blindsr upscale`` sharpens as they
            say, and refuses those that blend.
        blend_renderer: Name or path of the renderer at the other end of "blend"; None takes the released one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Of the renderer: "auto" (bf16 where the device computes in it), "fp32" or "bf16".
        metric_precision: The same for the networks in lpips, lpips_vgg and dists, in training and selection; reports
            are made in fp32.
        seed: Seed of scenes, exploration, networks and batches.
        resume: Continue from the state in ``out``, as if there had been no interruption; but for where it runs, when it
            ends and what is measured at its end, with the settings that it began with.
    """

    out: Path = Path("runs/ddpg")
    photos: str = "bundled"
    lr_photos: str | None = None
    kernels: str | None = None
    reward: Weights = field(default_factory=lambda: {"lpips": 1.0})
    renderer: str | None = None
    predictor: str | None = None
    scale: int = 4
    patch_size: int = 192
    minutes: float = 3.5
    select_every: int = 640
    selection_photos: int = 16
    selection_side: int | None = 288
    softness: float = 0.0
    selection_widths: tuple[float, ...] = (0.2, 1.3, 2.6, 3.6)
    guards: Weights = field(default_factory=dict)
    controls: tuple[str, ...] = ("code",)
    blend_renderer: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    metric_precision: Precision = "fp32"
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        self.out = Path(self.out)  # from Python, a string will do
        self.controls = check_controls(self.controls)
        for name in ("select_every", "selection_photos"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is not positive: give 1 or more")
        if self.lr_photos is not None:
            if self.photos != "bundled":
                raise UsageError("photos and lr_photos are both given: give photos with HR, or those without, alone")
            if self.softness:
                raise UsageError(f"softness {self.softness} changes lr_photos, which stay as they are: leave it out")
        if not self.minutes > 0:
            raise UsageError(f"minutes {self.minutes} leave no time to train: give a positive number")

    @property
    def without_hr(self) -> bool:
        """Whether photographs are trained on as they are."""
        return self.lr_photos is not None

    def environment(self, photos: Any) -> dict[str, Any]:
        """Keywords of the environment, with these photos."""
        return {
            "lr_photos" if self.without_hr else "photos": photos,
            "kernels": self.kernels or ("real" if self.without_hr else "isotropic"),
            "scale": self.scale,
            "patch_size": self.patch_size,
            "renderer": self.renderer,
            "predictor": self.predictor,
            "reward": self.reward,
            "reference": "predictor",
            "controls": self.controls,
            "blend_renderer": self.blend_renderer,
            "device": self.device,
            "precision": self.precision,
            "metric_precision": self.metric_precision,
        }

    def reporting(self, photos: Any) -> dict[str, Any]:
        """The same for what is reported at the end, with metrics in float32.

        PSNR and LPIPS whatever the reward; without HR, NIQE, BRISQUE and the consistency, so that one which is not paid
        for shows what the one that is cost.
        """
        told = WITHOUT_HR if self.without_hr else ("psnr", "lpips")
        return self.environment(photos) | {"info_metrics": told, "metric_precision": "fp32"}
