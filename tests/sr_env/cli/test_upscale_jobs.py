"""What is to be done is settled before any work, and a run that ended early is taken up where it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sr_env
from sr_env.cli import main as cli
from sr_env.cli import upscale
from sr_env.cli.upscale_jobs import plan_jobs, remove_leftovers
from sr_env.photos import Picture, write_picture


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_files_folders_and_patterns(folder: Path, tmp_path: Path) -> None:
    def targets(*inputs: Any, **options: Any) -> list[str]:
        return [str(job.target.relative_to(tmp_path)) for job in plan_jobs(list(map(str, inputs)), **options)]

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
        ((folder, tmp_path / "other" / "a.png"), {}, "would both write"),
        ((tmp_path / "other",), {"format": "png"}, "would both write"),
        ((folder,), {"out": folder}, "overwrite itself"),
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
    with pytest.raises(ValueError, match="is 10x10, not 4 times"):
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


def test_leftovers_are_only_ours(tmp_path: Path) -> None:
    names = (".a.abcdefgh.png", ".a.abcdefgh.jpg", ".b.abcdefgh.png", ".a.short.png", "a.png")
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers([tmp_path / "a.png"])
    assert set(files(tmp_path)) == set(names[1:])
