"""Photographs, straight edges, buildings and drawings apart: the predicted kernel's cost and the gain in LPIPS.

    python benchmarks/kinds.py --data FOLDER --renderers amnet_x4 amgan_x4 --predictor predictor_x4

Pictures are centre crops of the photographs that pretraining holds out; of these again the windows with the strongest
straight edges; and the held-out drawings. All are blurred with the reported widths, reduced and rounded. The first
renderer is the baseline of the gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blindsr_agents.evaluation.kinds import Kind, kind_cells, measure_kind, renderer_names, straight_edges
from blindsr_agents.evaluation.methods import create_methods
from blindsr_agents.evaluation.sets import create_metrics
from blindsr_agents.evaluation.settings import HeldOutSettings
from blindsr_agents.evaluation.tables import console_table, join_widths
from blindsr_pretrain.data import held_out_photos, unseen_drawings
from rich.console import Console

from sr_env.photos import Pixels, Subset, centre_crops, open_photos
from sr_env.utils.checks import UsageError
from sr_env.utils.files import check_writable, write_json
from sr_env.utils.images import to_images
from sr_env.utils.script import run_script


@dataclass(kw_only=True)
class Settings(HeldOutSettings):
    """Measure kinds of pictures apart.

    Attributes:
        side: Side of the crops in HR pixels; smaller where the pictures are.
        straight: Photographs that count as those with straight edges.
        buildings: Parts of names of photographs in ``data`` that show buildings: one more kind, whether held out or not
            (the table says so).
        json: File for the figures.
    """

    renderers: tuple[str, ...] = ("amnet_x4", "amgan_x4")
    side: int = 320
    straight: int = 5
    buildings: tuple[str, ...] = ()
    json: Path | None = None


def choose_kinds(s: Settings) -> dict[str, tuple[Pixels, bool]]:
    """Pictures by kind, and whether they were trained on.

    Raises:
        UsageError: A name of ``buildings`` fits no photograph, or ``straight`` is under one.
    """
    if s.straight < 1:
        raise UsageError(f"straight is {s.straight}: give at least 1 photograph")
    photos = held_out_photos(s.data, s.held_out)
    kinds = {
        "photographs": (centre_crops(photos, s.side, s.scale), False),
        "straight edges": (straight_edges(photos, s.side, s.straight, s.scale), False),
    }
    if s.buildings:
        whole = open_photos(s.data)
        fitting = np.array([[part in name for name in whole.names] for part in s.buildings])
        absent = [part for part, found in zip(s.buildings, fitting, strict=True) if not found.any()]
        if absent:
            raise UsageError(f"no photograph of {s.data!r} is named so: {', '.join(absent)}")
        named = Subset(whole, np.flatnonzero(fitting.any(0)))
        kinds["buildings"] = (centre_crops(named, s.side, s.scale), s.held_out > 0)
    kinds["drawings"] = (centre_crops(unseen_drawings(), s.side, s.scale), False)
    return kinds


def main(settings: Settings) -> None:
    """Measure every kind, print the table, and write the figures."""
    s, console = settings, Console(width=160)
    if s.json is not None:
        check_writable(s.json.parent)
    device, degradation, widths = s.resolve()
    methods = create_methods(s.scale, s.renderers, s.predictor, (), device=device)[0][1:]  # without bicubic
    metrics, unavailable = create_metrics(("psnr", "lpips"), s.scale, device)
    if unavailable:
        raise UsageError("; ".join(unavailable))
    kinds = [Kind(name, to_images(pixels, device), seen) for name, (pixels, seen) in choose_kinds(s).items()]
    values = {kind.name: measure_kind(kind, methods, metrics, degradation, widths, s.precision) for kind in kinds}
    cells = kind_cells(kinds, values, renderer_names(methods))
    console.print(console_table(f"mean of kernel widths {join_widths(widths)}", cells, group=len(s.renderers)))
    if s.json is not None:
        pictures = {kind.name: {"pictures": len(kind.hr), "trained_on": kind.seen} for kind in kinds}
        write_json(s.json, {"about": s.about(device, widths), "kinds": pictures, "values": values})


if __name__ == "__main__":
    run_script(Settings, main)
