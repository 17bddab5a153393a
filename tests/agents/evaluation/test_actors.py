"""Which actors are compared where, and the rows of their table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation.actor_rows import Comparison, make_row
from blindsr_agents.evaluation.actor_tables import mean_cells, verdicts, width_cells
from blindsr_agents.evaluation.actors import (
    Actor,
    parse_actor,
    plan,
    released_actors,
)
from blindsr_agents.evaluation.scene_sets import PRETRAINED
from blindsr_agents.evaluation.scores import Scores

from sr_env.metrics import MetricInfo
from sr_env.models import checkpoint
from sr_env.models.checkpoint import load_predictor, save_checkpoint
from sr_env.models.predictor import KernelPredictor

PSNR = {"psnr": MetricInfo("psnr", "PSNR-Y", 2, "dB", True)}


def write_actor(path: Path, predictor: Path, shift: float, **card: Any) -> Path:
    """A predictor whose first logit is off by so much."""
    start = load_predictor(predictor)
    network = KernelPredictor(**start.network.architecture)
    network.load_state_dict(start.network.state_dict())
    with torch.no_grad():
        network.head[-1].bias[0] += shift
    return save_checkpoint(path, network, start.basis, 4, card)


def test_released_actors_are_grouped(tmp_path: Path, tiny_predictor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, card in {
        "actor_lpips_amnet_l_x4_s1": {"renderer": "amnet_l_x4", "reward": {"lpips": 1.0}, "seed": 1},
        "actor_lpips_amnet_l_x4_s0": {"renderer": "amnet_l_x4", "reward": {"lpips": 1.0}, "seed": 0},
        "actor_niqe_amnet_l_x4_s0": {"renderer": "amnet_l_x4", "reward": {"niqe": 1.0}, "seed": 0},
        "predictor_x4": {},
    }.items():
        write_actor(tmp_path / f"{name}.safetensors", tiny_predictor, 0, **card)
    monkeypatch.setattr(checkpoint, "RELEASED", tmp_path)
    lpips, niqe = released_actors(4)
    assert lpips == Actor(
        "actor_lpips_amnet_l_x4",
        ("actor_lpips_amnet_l_x4_s0", "actor_lpips_amnet_l_x4_s1"),
        "amnet_l_x4",
        {"lpips": 1.0},
    )
    assert niqe.predictors == ("actor_niqe_amnet_l_x4_s0",)
    assert released_actors(2) == []
    assert lpips.fits("some/amnet_l_x4.safetensors", {"lpips": 1})
    assert not lpips.fits("amnet_x4", {"lpips": 1})
    assert not lpips.fits("amnet_l_x4", {"niqe": 1})


def test_given_actors(tmp_path: Path, tiny_predictor: Path) -> None:
    one = write_actor(tmp_path / "a.safetensors", tiny_predictor, 0, reward={"psnr": 1.0}, renderer="r")
    two = write_actor(tmp_path / "b.safetensors", tiny_predictor, 0, reward={"lpips": 1.0}, renderer="r")
    assert parse_actor(f"mine={one},{one}") == Actor("mine", (str(one), str(one)), "r", {"psnr": 1.0})
    pretrained = write_actor(tmp_path / "c.safetensors", tiny_predictor, 0, renderer="r, validation 30 dB")
    assert parse_actor(f"mine={pretrained}") == Actor("mine", (str(pretrained),))
    with pytest.raises(ValueError, match="'mine' were trained for several rewards"):
        parse_actor(f"mine={one},{two}")
    for bad in ("mine", "mine=", f"={one}"):
        with pytest.raises(ValueError, match="is not LABEL=FILE"):
            parse_actor(bad)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        parse_actor("mine=nowhere.safetensors")


def test_plan() -> None:
    lpips, niqe = Actor("a", ("a",), "r", {"lpips": 1.0}), Actor("b", ("b",), "s", {"niqe": 1.0})

    def pairs(*arguments: Any) -> list[tuple[str, dict[str, float]]]:
        return [(task.renderer, dict(task.reward)) for task in plan(*arguments)]

    assert pairs([], 4, None, None) == [("amnet_l_x4", {"lpips": 1.0})]
    assert pairs([lpips, lpips, niqe], 4, None, None) == [("r", {"lpips": 1.0}), ("s", {"niqe": 1.0})]
    assert pairs([lpips, niqe], 4, ["t"], None) == [("t", {"lpips": 1.0}), ("t", {"niqe": 1.0})]
    assert pairs([lpips], 4, None, [{"psnr": 1.0}]) == [("r", {"psnr": 1.0})]


def test_row_by_hand() -> None:
    pretrained = Scores({"score": np.array([[1.0, 2.0], [3.0, 4.0]]), "psnr": np.array([[1.0, 2.0], [3.0, 4.0]])})
    oracle = Scores({"score": pretrained.values["score"] + 2})

    def shifted(*by: float) -> Scores:
        return Scores({name: value + np.array(by)[:, None] for name, value in pretrained.values.items()})

    row = make_row([shifted(1.0, -0.5), shifted(2.0, -0.5)], pretrained, oracle, 2)
    assert row.gain == [1.5, -0.5]
    assert row.spread == pytest.approx(np.std([0.25, 0.75], ddof=1))
    assert row.share == pytest.approx(0.25)
    assert row.values == {"psnr": [3.0, 3.0]}
    assert row.spreads == {"psnr": row.spread}
    assert row.standard_error == 0
    table = Comparison("folder/r.safetensors", {"psnr": 1.0}, "Set5", 2, [0.2, 2.6], {PRETRAINED: row, "a": row}, PSNR)
    row.seeds = 2
    table.rows[PRETRAINED] = make_row([pretrained], pretrained)
    (line,) = verdicts(table)
    assert "a is better than the pretrained actor (+0.5000 ± 0.0000); it falls at kernel width 2.6 (-0.5000)." in line
    assert mean_cells(table)[2][:5] == ["a", "2", "+0.5000 ± 0.0000 (sd 0.3536)", "25% ± 0%", "-0.5000 at 2.6"]
    assert width_cells(table)[-1] == ["a", "2.6", "-0.5000", "3.00"]
    assert table.title == "Set5 (2 images), r, reward psnr"


def test_standard_error_counts_photos() -> None:
    """A photo at several widths is one sample; a seed is none."""
    base = Scores({"score": np.zeros((3, 4))})
    gains = np.array([0.1, 0.3, -0.2, 0.6])
    row = make_row([Scores({"score": np.tile(gains, (3, 1))})] * 5, base, None, 5)
    assert row.standard_error == pytest.approx(gains.std(ddof=1) / 2)
    assert row.share is None
    table = Comparison("r", {"psnr": 1.0}, "Set5", 4, [1.0, 2.0, 3.0], {"a": row}, PSNR)
    assert "not measurably better than" in verdicts(table)[0]
