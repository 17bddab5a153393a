"""Whole runs, by the script and from Python."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.hinge_ddpg import HingeDDPG, build, train
from blindsr_agents.training import Improvement, Selection, write_state
from train_ddpg import Settings, main

from sr_env.metrics import base
from sr_env.models import load_predictor, load_renderer, save_checkpoint
from sr_env.utils.checks import FileInTheWayError, UsageError
from sr_env.utils.resume import read_verified

from stable_baselines3.common.callbacks import BaseCallback  # isort: skip

Small = Callable[..., Settings]


def test_script_trains_reports_and_resumes(
    small: Small, tiny_predictor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(small(out=out))
    told = capsys.readouterr().out
    assert "replay memory 64 scenes" in told
    assert "peak memory" in told
    assert "than the best constant action" in told
    for row in ("bicubic", "pretrained", "best constant", "trained", "true"):
        assert row in told
    for name in ("curves.png", "before_after.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert name in told
    actor = load_predictor(out / "actor_x4.safetensors", scale=4)
    kept = actor.card["kept"]
    if kept == "pretrained":
        assert "PRETRAINED" in told
        original = load_predictor(tiny_predictor).network.state_dict()
        assert all(torch.equal(value, original[name]) for name, value in actor.network.state_dict().items())
    main(small(out=out, resume=True, steps=32))
    assert "steps 24 to 32" in capsys.readouterr().out


def test_script_stops_in_time(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    main(small(steps=100_000, minutes=1e-9))
    assert "minutes are over at step 0 of 100000" in capsys.readouterr().out.replace("\n", " ")


def test_script_stops_when_nothing_gets_better(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        small(steps=100_000, patience=2, constant_steps=0, learning_starts=100_000)
    )  # never learns: nothing can get better
    assert "no better actor in 2 validations, at step 24" in capsys.readouterr().out.replace("\n", " ")


def test_guards_are_told_when_broken(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"guards": {"lpips": -1.0}}  # demands an LPIPS lower by one
    settings = small(**changes)
    main(settings)
    told = capsys.readouterr().out.replace("\n", " ")
    assert "guard broken: lpips" in told
    assert "PRETRAINED" in told
    for share in (0.5, 0.25, 0):
        assert f"step 8: that start is not taken; {share:g} of it gains" in told
    assert not read_verified(settings.out / "state.pt")["policy"]["critic.offset"].any()


def test_few_photographs_hold_the_actor_to_where_it_began(small: Small) -> None:
    """Few are those of which parts are held out to select by, in place of whole ones."""
    for photos, few, anchor in ((16, True, 1.0), (2, False, 0.003)):
        settings = small(selection_photos=photos)
        improvement = Improvement(settings)
        assert improvement.few is few
        assert build(settings, improvement)[1].config.anchor == anchor


@pytest.mark.parametrize("constant_steps", [8, 32])
def test_resumed_run_is_the_uninterrupted_one(small: Small, tmp_path: Path, constant_steps: int) -> None:
    """Interrupted while it learns, or while it settles where the actor begins."""
    common = {"steps": 48, "actions_per_scene": 2, "test_crops": 0, "envs": 4, "constant_steps": constant_steps}
    main(small(out=tmp_path / "whole", **common))
    state = tmp_path / "cut" / "state.pt"
    main(small(out=tmp_path / "cut", **common | {"steps": 24}))
    assert state.is_file()
    main(small(out=tmp_path / "cut", **common, resume=True))
    whole, cut = (read_verified(tmp_path / name / "state.pt") for name in ("whole", "cut"))
    assert whole["updates"] == cut["updates"] > 0
    for name, value in whole["policy"].items():
        assert torch.equal(value, cut["policy"][name]), name
    assert torch.equal(whole["memory"]["actions"], cut["memory"]["actions"])
    # What the curves are drawn from, the critics' correlation over hundreds of scenes among it.
    for kept in ("selection", "training"):
        assert repr(whole["extra"]["watch"][kept]) == repr(cut["extra"]["watch"][kept])  # nan equals itself
    assert whole["judged"] == cut["judged"]
    assert len(whole["judged"]) > 24


def test_interrupt_saves_and_says_how_to_go_on(
    small: Small, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = HingeDDPG.train

    def interrupted(self: HingeDDPG, gradient_steps: int, batch_size: int = 256) -> None:
        train(self, gradient_steps, batch_size)
        if self.num_timesteps == 12:
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C in the middle of a round

    monkeypatch.setattr(HingeDDPG, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(small())
    assert "--resume" in capsys.readouterr().out
    monkeypatch.setattr(HingeDDPG, "train", train)
    main(small(resume=True))
    assert "steps 12 to 24" in capsys.readouterr().out


def test_script_has_nothing_to_resume(small: Small) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        main(small(resume=True))


def test_another_run_is_not_written_over(small: Small) -> None:
    settings = small(test_crops=0, steps=4)
    main(settings)
    before = {path.name: path.read_bytes() for path in settings.out.iterdir() if path.is_file()}
    with pytest.raises(FileInTheWayError, match=r"state\.pt exists: add --resume to go on, or choose another --out"):
        main(settings)
    assert {path.name: path.read_bytes() for path in settings.out.iterdir() if path.is_file()} == before
    (settings.out / "state.pt").unlink()
    with pytest.raises(FileInTheWayError, match=r"actor_x4\.safetensors of an earlier run exists"):
        main(settings)


def test_other_settings_are_refused_before_any_work(
    small: Small, random_photos: list[np.ndarray], tiny_renderer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would make a card that claims what the run was not made with, or fail at its end."""
    begun = Improvement(small())
    write_state(small().out / "state.pt", {"extra": {"settings": begun.kept}})
    Improvement(small(resume=True, steps=99, minutes=1.0, test_crops=0, patience=3))
    another = load_renderer(tiny_renderer)
    with torch.no_grad():
        another.network.head.bias += 1
    renamed = save_checkpoint(tmp_path / tiny_renderer.name, another.network, another.basis, 4, {})
    monkeypatch.setattr(Selection, "__init__", lambda *_: pytest.fail("scored the selection scenes"))
    changes: dict[str, tuple[dict[str, Any], str]] = {
        "reward": ({"reward": {"lpips": 1.0}}, "--reward was psnr=1 and is lpips=1"),
        "widths": ({"selection_widths": (1.3,)}, r"--selection-widths was 0\.2 2\.6 and is 1\.3"),
        "renderer": ({"renderer": str(renamed)}, r"--renderer was tiny_renderer \(digest \w+\) and is tiny_renderer"),
        "predictor": ({"predictor": None}, r"--predictor was tiny_predictor \(digest \w+\) and is predictor_x4 \("),
        "agent": ({"seed": 5, "anchor": 0.5}, r"--anchor was 0\.003 and is 0\.5; --seed was 0 and is 5"),
    }
    for changed, message in changes.values():
        with pytest.raises(UsageError, match=f"with other settings: {message}"):
            main(small(resume=True, **changed))
    with pytest.raises(UsageError, match=r"--photos was 5 photos .* and is 4 photos"):
        train(small(resume=True), photos=random_photos[:4])


def test_an_agent_is_trained_from_python(small: Small, random_photos: list[np.ndarray], tmp_path: Path) -> None:
    """With photos, a metric and a callback of one's own, selection on held-out photos, saving and loading."""
    seen: list[int] = []

    class Mine(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(self.num_timesteps)
            return True

    settings = small(reward={"ssim": 1.0}, guards={"psnr": 0.1}, selection_photos=2, test_crops=0)
    done = train(settings, photos=random_photos, callbacks=[Mine()])
    assert seen == list(range(4, 25, 4))
    assert done.test == {}
    actor = load_predictor(done.path, scale=4)
    assert actor.card["kept"] == done.kept
    assert actor.card["data"] == "3 photographs of the caller's own; 2 others held out to select by"
    assert set(actor.card["reward"]) == {"ssim"}
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(actor.network.act(images), done.agent.predict(images)[0], atol=1e-6)
    done.agent.save(tmp_path / "agent.zip")
    again = HingeDDPG.load(tmp_path / "agent.zip", device="cpu")
    np.testing.assert_array_equal(again.predict(images)[0], done.agent.predict(images)[0])


def test_run_reports_what_the_files_hold(small: Small) -> None:
    done = main(small())
    card = load_predictor(done.path, scale=4).card
    assert card["test"] == dict(done.test)
    assert set(done.test) == {f"{what}{than}" for what in ("gain", "standard_error") for than in ("", "_over_constant")}
    step = 0 if done.kept == "pretrained" else int(done.kept.split()[1])
    assert step == 0 or done.selection_gain > 0
    assert np.mean(list(card["selection"].values())) == pytest.approx(done.selection_gain)


def test_first_steps_trains_from_python(
    tiny_renderer: Path, tiny_predictor: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's block as it is printed, but for networks and numbers with which it ends in seconds."""
    page = (Path(__file__).parents[3] / "docs" / "first-steps.md").read_text()
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "train(" in block]
    assert block.count("\n") <= 15
    smaller = (
        f"renderer={str(tiny_renderer)!r}, predictor={str(tiny_predictor)!r}, patch_size=64, selection_side=64, "
        "envs=4, steps=24, select_every=12, learning_starts=4, warmup_updates=1, gradient_steps=1, test_crops=3, "
    )
    for printed, taken in {"Settings(out": f"Settings({smaller}out", "save_freq=100": "save_freq=3"}.items():
        assert block.count(printed) == 1
        block = block.replace(printed, taken)
    (tmp_path / "my_photos").symlink_to(photo_folder)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for registry in ("_REGISTRY", "_ORIGINS"):  # what the page registers is not to outlive the test
        monkeypatch.setattr(base, registry, dict(getattr(base, registry)))
    exec(compile(block, "first-steps.md", "exec"), names)
    assert names["agent"].num_timesteps == 24
    assert len(list((tmp_path / "runs" / "mine" / "agents").glob("*.zip"))) == 2
    assert names["done"].path.resolve() == (tmp_path / "runs" / "mine" / "actor_x4.safetensors").resolve()
