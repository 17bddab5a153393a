"""What ``blindsr upscale`` says of what it did: a line for each picture, and a report in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from sr_env.upscale import Upscaler
from sr_env.utils.files import write_json
from sr_env.utils.provenance import command_line


@dataclass
class Record:
    """What became of a picture, as the report has it.

    Attributes:
        input: The picture.
        output: Its enlargement; empty where none was planned.
        status: ``"done"``, ``"skipped"`` (it was there) or ``"failed"``.
        reason: Why it failed.
        size: Width and height of the result, of its first page.
        pages: Pages of the result, where it has several.
        seconds: From reading to the written file.
        kernel_code: The renderer's code: mean over the regions or pages where they have their own.
        kernel_width: Width in HR pixels of the Gaussian nearest to the code; mean over the regions likewise.
        noise: Standard deviation of the noise that is taken away, of 255; None where the model knows of none.
        jpeg_quality: Of the compression whose traces are taken away, 100 for none; likewise. Means over the regions.
        kernel_widths: Per region or page, where they have their own.
        tiles: Number of tiles.
        niqe_before: NIQE of the middle of the picture (at most 384 pixels a side); None where under 96 pixels a side.
        niqe_after: NIQE of the same part of the result. Of several pages both are the first one's.
        notes: What of the picture could not be kept.
    """

    input: str
    output: str
    status: Literal["done", "skipped", "failed"] = "done"
    reason: str | None = None
    size: tuple[int, int] | None = None
    pages: int | None = None
    seconds: float | None = None
    kernel_code: list[float] | None = None
    kernel_width: float | None = None
    noise: float | None = None
    jpeg_quality: float | None = None
    kernel_widths: list[float] | None = None
    tiles: int | None = None
    niqe_before: float | None = None
    niqe_after: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The same for the screen."""
        if self.status == "failed" or self.size is None:
            return f"failed: {self.input}: {self.reason}"
        widths = self.kernel_widths or [self.kernel_width or 0.0]
        blur = f"{widths[0]:.2f}" if len(set(widths)) == 1 else f"{min(widths):.2f} to {max(widths):.2f}"
        notes = "".join(f"; {note}" for note in self.notes)
        pages = f", {self.pages} pages" if self.pages else ""
        seen = "" if self.noise is None else f", noise {self.noise:.1f}, JPEG quality {self.jpeg_quality:.0f}"
        size = f"{self.size[0]}x{self.size[1]}{pages}"
        return f"{self.output}: {size}, kernel width {blur}{seen}, {self.seconds:.1f} s{notes}"


def write_report(path: Path, upscaler: Upscaler, records: Sequence[Record], left_out: Sequence[str]) -> None:
    """Write what became of all pictures as JSON.

    Raises:
        OSError: The file cannot be written.
    """
    report = {
        "command": command_line(),
        "model": upscaler.model,
        "texture": upscaler.texture,
        "scale": upscaler.scale,
        "device": str(upscaler.device),
        "precision": "bf16" if upscaler.bf16 else "fp32",
        "files": [asdict(record) for record in records],
        "left_out": list(left_out),
    }
    write_json(path, report)
