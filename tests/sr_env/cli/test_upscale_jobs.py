"""What is to be done is settled before any work, and a run that ended early is taken up where it ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

import sr_env
from sr_env.cli import main as cli
from sr_env.cli import upscale
from sr_env.cli.upscale_jobs import plan_jobs
from sr_env.models import available_checkpoints, load_renderer
from sr_env.models.checkpoint import save_checkpoint
from sr_env.photos import Picture, write_picture
from sr_env.upscale import default_model
from sr_env.utils.checks import FileInTheWayError


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_files_folders_and_patterns(folder: Path, tmp_path: Path) -> None:
    def targets(*inputs: Any, **options: Any) -> list[str]:
        return [str(job.target.relative_to(tmp_path)) for job in plan_jobs(list(map(str, inputs)), **options).jobs]

    out = tmp_path / "out"
    everything = ["out/a.png", "out/b.jpg", "out/sub/c.webp"]
    assert targets(folder, out=out) == everything
    assert targets(folder / "**/*", out=out) == everything
    assert targets(folder / "*.png", folder / "b.jpg", folder / "a.png", out=out) == everything[:2]
    assert targets(folder, out=out, format="tif") == ["out/a.tif", "out/b.tif", "out/sub/c.tif"]
    assert targets(folder / "a.png", out=tmp_path / "x.jpg") == ["x.jpg"]
    inside = folder / "larger"
    inside.mkdir()
    Image.new("RGB", (9, 9)).save(inside / "a.png")
    assert len(targets(folder, out=inside)) == 3  # results inside the searched folder are no inputs
    for name in ("[x].png", "y*.png"):  # names that look like patterns
        Image.new("RGB", (9, 9)).save(tmp_path / name)
        assert targets(tmp_path / name, out=out) == [f"out/{name}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--texture", "nan"), "texture nan: give 0 (faithful) to 1 (textured)"),
        (("--texture", "-1"), "texture -1.0: give 0 (faithful) to 1 (textured)"),
        (("--texture", "2"), "texture 2.0: give 0 (faithful) to 1 (textured)"),
        (("--texture", "0.5", "--scale", "2"), "for x2 there is no perceptual renderer yet"),
        (("--texture", "0.5", "--model", "amnet_x4"), "leave it out, or the model 'amnet_x4'"),
    ],
)
def test_wrong_textures_are_one_line(
    folder: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files(tmp_path)
    monkeypatch.setattr(sys, "argv", ["blindsr", "upscale", str(folder), "-o", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
    assert files(tmp_path) == before


def test_wrong_inputs_are_refused_before_any_work(folder: Path, tmp_path: Path, run: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "other" / "a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "other" / "a.jpg")
    before = files(tmp_path)
    for inputs, options, message in (
        ((), {}, "no pictures given"),
        ((tmp_path / "none.png",), {}, "no file or folder"),
        ((tmp_path / "empty",), {}, "no picture in"),
        ((tmp_path / "*.jpg",), {}, "no picture matches"),
        ((folder,), {"out": folder}, "overwrite itself"),
        ((folder / "a.png",), {"out": tmp_path / "b.gif"}, r"\.gif cannot be written: end it in \.png, \.jpg, \.jpeg"),
        ((folder,), {"out": tmp_path / "b.bmp"}, r"\.bmp cannot be written"),
        ((folder,), {"out": tmp_path / "x.png"}, "is one file and there are 3"),
        ((folder,), {"out": folder / "a.png" / "x"}, "directory"),
        ((folder / "a.png",), {"out": tmp_path / "x.png", "format": "jpg"}, "disagree"),
        ((folder,), {"quality": 0}, "give 1 to 100"),
        ((folder,), {"max_memory": 0.0}, "positive number of GB"),
        ((folder,), {"model": "nothing"}, "no renderer 'nothing'"),
        ((folder,), {"scale": 2}, "for scale 4, not 2"),
        ((folder,), {"resume": True, "force": True}, "give one"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            run(*inputs, **options)
        assert files(tmp_path) == before, message


def test_resume_and_force(folder: Path, tmp_path: Path, run: Any) -> None:
    assert [record.status for record in run(folder)] == ["done"] * 3
    whole = files(tmp_path / "out")
    with pytest.raises(ValueError, match=r"3 of 3 results are there already.*--resume skips"):
        run(folder)
    (tmp_path / "out" / "b.jpg").unlink()
    stamp = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    assert [record.status for record in run(folder, resume=True)] == ["skipped", "done", "skipped"]
    assert files(tmp_path / "out") == whole
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == stamp
    assert [record.status for record in run(folder, force=True)] == ["done"] * 3
    assert files(tmp_path / "out") == whole
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns != stamp
    Image.new("RGB", (10, 10)).save(tmp_path / "out" / "a.png")
    with pytest.raises(ValueError, match="is 10x10, not 144x96 as"):
        run(folder, resume=True)


def test_interruption_leaves_no_partial_file(
    folder: Path, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, picture: Picture, **options: Any) -> None:
        path.write_bytes(b"half")
        if path.suffix == ".jpg":
            raise KeyboardInterrupt
        write_picture(path, picture, **options)

    monkeypatch.setattr(upscale, "write_picture", interrupted)
    s = settings(folder)
    arguments = ["blindsr", "upscale", *s.inputs, "-o", str(s.out), "--model", s.model, "--predictor", s.predictor]
    monkeypatch.setattr(sys, "argv", [*arguments, "--json", str(tmp_path / "r.json")])
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == 130
    assert set(files(tmp_path / "out")) == {"a.png"}
    assert len(json.loads((tmp_path / "r.json").read_text())["files"]) == 1


KILLED = """
import os, signal, sys
from sr_env.cli import main as cli
from sr_env.cli import upscale

write = upscale.write_picture
def die(path, picture, **options):
    write(path, picture, **options)
    if path.suffix == ".jpg":
        os.truncate(path, 100)
        os.kill(os.getpid(), signal.SIGKILL)
upscale.write_picture = die
sys.argv[0] = "blindsr"
cli.run()
"""


def test_killed_then_resumed_is_as_never_killed(folder: Path, tmp_path: Path, settings: Any, run: Any) -> None:
    s = settings(folder)
    arguments = ["upscale", *s.inputs, "-o", str(s.out), "--model", s.model, "--predictor", s.predictor]
    arguments += ["--device", "cpu", "--precision", "fp32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(sr_env.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(files(s.out)) == 2  # one result, one piece of another
    (s.out / ".of another.12345678.png").touch()
    assert [record.status for record in run(folder, resume=True)] == ["skipped", "done", "done"]
    (s.out / ".of another.12345678.png").unlink()  # which was not ours to delete
    run(folder, out=tmp_path / "never killed")
    assert files(s.out) == files(tmp_path / "never killed")


def test_one_that_cannot_be_done_stops_no_other(folder: Path, tmp_path: Path, settings: Any, capsys: Any) -> None:
    """A link to nothing, two pictures for one result, a pipe, a folder in the way; others beside them are mentioned."""
    (folder / "aa.png").symlink_to(tmp_path / "gone.png")
    Image.new("RGB", (9, 9)).save(folder / "a.jpg")
    os.mkfifo(folder / "pipe.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").touch()  # where the subfolder's result would go
    for number in range(5):
        (folder / f"{number}.jxl").touch()
    before = files(tmp_path)
    report = tmp_path / "report.json"
    with pytest.raises(SystemExit) as ended:
        upscale.main(settings(folder, format="png", json=report))
    assert ended.value.code == 1
    assert set(files(tmp_path / "out")) == {"a.png", "b.png", "sub"}
    assert {name: files(tmp_path)[name] for name in before} == before
    told = json.loads(report.read_text())
    status = {Path(record["input"]).name: (record["status"], record["reason"]) for record in told["files"]}
    assert [status[name][0] for name in ("a.jpg", "b.jpg")] == ["done", "done"]
    for name, reason in (
        ("aa.png", r"a link to '.*gone.png'"),
        ("a.png", r"'.*a\.jpg' would both write '.*a\.png': rename one"),
        ("pipe.png", "a pipe or a device"),
        ("c.webp", "sub"),
    ):
        assert status[name][0] == "failed"
        assert re.search(reason, status[name][1]), status[name]
    assert told["left_out"] == [str(folder / f"{number}.jxl") for number in range(5)]
    lines = capsys.readouterr().err.splitlines()
    assert "kinds that are not read" in lines[0]
    assert lines[0].endswith("2.jxl and 2 more")
    assert "2 done, 4 failed" in lines
    # Named one by one, as a shell does with *, it is the same.
    records = upscale.upscale(settings(*sorted(folder.glob("*.png")), out=tmp_path / "2"), Console(quiet=True))
    assert [record.status for record in records] == ["done", "failed", "failed"]


def test_results_beside_their_originals(folder: Path, run: Any) -> None:
    names = {"a_x4.png", "b_x4.jpg", "sub/c_x4.webp"}
    before = files(folder)
    assert [record.status for record in run(folder, out=None)] == ["done"] * 3
    after = files(folder)
    assert set(after) == {*before, *names}
    assert {name: after[name] for name in before} == before
    with pytest.raises(ValueError, match="3 of 3 results are there already"):  # which are no inputs themselves
        run(folder, out=None)
    assert [record.status for record in run(folder / "**/*", out=None, resume=True)] == ["skipped"] * 3
    (alone,) = run(folder / "a_x4.png", out=None, format="jpg")  # unless they are asked for
    assert alone.output == str(folder / "a_x4_x4.jpg")


def test_released_models_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["blindsr", "upscale", "--model", "list"])
    cli.run()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(available_checkpoints("renderer"))
    for ending, clean in (("none is named)", False), ("none is named, with --clean)", True)):
        taken = {line.split()[1]: line.split()[0] for line in lines if line.endswith(ending)}
        names = {f"x{scale}": default_model(scale, clean) for scale in (2, 3, 4)}
        assert taken == {scale: name for scale, name in names.items() if not clean or scale == "x4"}


def test_resume_redoes_what_is_not_whole(folder: Path, tmp_path: Path, run: Any) -> None:
    run(folder)
    whole = files(tmp_path / "out")
    (tmp_path / "out" / "a.png").write_bytes(whole["a.png"][:-400])
    (tmp_path / "out" / "b.jpg").write_bytes(b"")
    (tmp_path / "out" / "sub" / "c.webp").write_bytes(whole["sub/c.webp"][:500] + bytes(len(whole["sub/c.webp"]) - 500))
    assert [record.status for record in run(folder, resume=True)] == ["done"] * 3
    assert files(tmp_path / "out") == whole
    assert [record.status for record in run(folder, resume=True)] == ["skipped"] * 3


def test_resume_with_other_models_or_settings_is_refused(
    folder: Path, tmp_path: Path, run: Any, tiny_renderer: Path
) -> None:
    run(folder)
    same = load_renderer(str(tiny_renderer))
    with torch.no_grad():
        next(same.network.parameters()).mul_(1.1)
    other = save_checkpoint(
        tmp_path / "other" / tiny_renderer.name, same.network, same.basis, 4, {}
    )  # of the same name
    before = files(tmp_path)
    for options, words in (
        ({"model": str(other)}, r"made by 'blindsr: tiny_renderer\.safetensors \("),
        ({"spatially_varying": True}, "this run is .*spatially_varying True"),
        ({"kernel_width": 1.5, "predictor": None}, r"this run is .*kernel_width 1\.5"),
    ):
        with pytest.raises(ValueError, match=words):
            run(folder, resume=True, **options)
    assert files(tmp_path) == before
    assert [record.status for record in run(folder, resume=True, max_memory=1.5, quality=80)] == ["skipped"] * 3
    Image.new("RGB", (144, 96)).save(tmp_path / "out" / "a.png")  # which says nothing of how it was made
    assert [record.status for record in run(folder, resume=True)] == ["skipped"] * 3


TERMINATED = KILLED.replace("SIGKILL", "SIGTERM").replace("os.truncate(path, 100)", "pass")


def test_sigterm_leaves_a_report_and_no_temporary_file(folder: Path, tmp_path: Path, settings: Any) -> None:
    s = settings(folder)
    arguments = ["upscale", *s.inputs, "-o", str(s.out), "--model", s.model, "--predictor", s.predictor]
    arguments += ["--json", str(tmp_path / "r.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(sr_env.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, *arguments], env=environment, capture_output=True, timeout=120
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr.decode()
    assert set(files(s.out)) == {"a.png"}
    assert len(json.loads((tmp_path / "r.json").read_text())["files"]) == 1


def test_any_factor_and_width(folder: Path, tmp_path: Path, run: Any) -> None:
    for options, ending, shape in (
        ({"factor": 2.5}, "x2.5", (90, 60)),
        ({"factor": 8}, "x8", (288, 192)),
        ({"width": 100}, "100px", (100, 67)),
    ):
        records = run(folder / "a.png", out=None, json=tmp_path / "report.json", **options)
        assert [(record.status, record.size) for record in records] == [("done", shape)]
        with Image.open(folder / f"a_{ending}.png") as large:
            assert large.size == shape
        assert [record.status for record in run(folder / "a.png", out=None, resume=True, **options)] == ["skipped"]
    run(folder / "b.jpg", out=tmp_path / "b.jpg", factor=3)
    with pytest.raises(FileInTheWayError, match=r"factor 3.*this run is .*factor 2"):
        run(folder / "b.jpg", out=tmp_path / "b.jpg", factor=2, resume=True)


def test_pictures_as_wide_already_are_named_and_the_others_done(folder: Path, run: Any) -> None:
    Image.new("RGB", (120, 20)).save(folder / "wide.png")
    records = run(folder, width=100)
    assert [record.status for record in records] == ["done", "done", "done", "failed"]
    assert str(records[-1].reason).startswith("the picture is 120 pixels wide: give more, and at most 16 times")


def test_two_passes_are_refused_where_memory_is_short(folder: Path, run: Any) -> None:
    Image.new("RGB", (1000, 700)).save(folder / "large.png")
    (record,) = run(folder / "large.png", factor=16, max_memory=0.6)
    assert "enlarging 1000x700 by 16 takes" in str(record.reason)
