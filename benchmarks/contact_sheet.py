"""Contact sheets of held-out pictures at three times their size: bicubic, renderers, Real-ESRGAN, HR.

    python benchmarks/contact_sheet.py --data FOLDER --renderers amnet_x4 amgan_v1_x4 amgan_x4 --peers-dir PEERS

Each picture is a crop of a kind: edges, hair, foliage, buildings, text, sky, cloth, drawings. It is rendered with what
lies around it, up to ``context`` pixels a side. Pictures take the reported kernel widths in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blindsr_agents.evaluation.contact_sheet import (
    SheetRow,
    check_width,
    choose_places,
    crop_reconstructions,
    draw_sheets,
)
from blindsr_agents.evaluation.methods import PREDICTED, TRUE, create_methods
from blindsr_agents.evaluation.settings import HeldOutSettings, print_skipped
from blindsr_pretrain.data import JoinedPhotos, held_out_photos, unseen_drawings
from rich.console import Console

from sr_env.utils.checks import UsageError
from sr_env.utils.files import atomic_write, check_writable
from sr_env.utils.script import run_script


@dataclass(kw_only=True)
class Settings(HeldOutSettings):
    """Draw contact sheets; ``out`` gets sheet_1.png, sheet_2.png and so on.

    Attributes:
        out: Folder for the sheets.
        kernel: Which kernel the renderers are given.
        peers_dir: Folder with Real-ESRGAN's weights; without them it is left out.
        pictures: Pictures where ``data`` lacks those of the written list: of each its most detailed crop.
        side: Side of the crops in HR pixels.
        context: Side of what is rendered around them.
        zoom: Pixels of the sheet for each of a crop, along either side.
        rows: Pictures on one sheet.
    """

    out: Path = Path("runs/contact_sheets")
    renderers: tuple[str, ...] = ("amnet_x4", "amgan_x4")
    kernel: Literal["true", "predicted"] = "predicted"
    peers_dir: Path | None = None
    pictures: int = 12
    side: int = 96
    context: int = 320
    zoom: int = 3
    rows: int = 4


def draw_rows(s: Settings, console: Console) -> Sequence[SheetRow]:
    """Reconstruct what is shown.

    Raises:
        UsageError: A setting is wrong, or the pictures are smaller than the crops.
    """
    for name in ("pictures", "zoom", "rows"):
        if getattr(s, name) < 1:
            raise UsageError(f"{name} is {getattr(s, name)}: give at least 1")
    device, degradation, widths = s.resolve()
    photos = JoinedPhotos([held_out_photos(s.data, s.held_out), unseen_drawings()])
    if int(photos.shape_array.min()) < s.side or s.side < 8 * s.scale or s.side % s.scale or s.context < s.side:
        raise UsageError(
            f"crops of {s.side} within {s.context} pixels: give a side that is a multiple of {s.scale} from "
            f"{8 * s.scale} to {photos.shape_array.min()}, which all pictures have, and no smaller context"
        )
    peers = ("realesrgan",) if s.peers_dir is not None else ()
    methods, skipped = create_methods(s.scale, s.renderers, s.predictor, peers, s.peers_dir, device=device)
    print_skipped(skipped, console)
    unwanted = TRUE if s.kernel == "predicted" else PREDICTED
    methods = [method for method in methods if not method.name.endswith(unwanted)]
    check_width(len(methods) + 1, s.side, s.zoom)
    rows = []
    for number, (kind, index, row, column) in enumerate(choose_places(photos, s.scale, s.side, s.pictures)):
        width = widths[number % len(widths)]
        shown = crop_reconstructions(
            photos[index], (row, column), (s.side, s.context), width, methods, degradation, device, s.precision
        )
        name = Path(photos.names[index]).name
        rows.append(SheetRow(f"{kind} ({name}), kernel width {width:g}", shown))
    return rows


def main(settings: Settings) -> list[Path]:
    """Draw and write the sheets."""
    console = Console(width=160)
    check_writable(settings.out)
    written = []
    for number, sheet in enumerate(draw_sheets(draw_rows(settings, console), settings.zoom, settings.rows), 1):
        with atomic_write(settings.out / f"sheet_{number}.png") as temporary:
            sheet.save(temporary)
        written.append(settings.out / f"sheet_{number}.png")
        console.print(f"{written[-1]}: {sheet.width}x{sheet.height} pixels", markup=False)
    return written


if __name__ == "__main__":
    run_script(Settings, main)
