"""Which pictures ``blindsr upscale`` enlarges, and where each result goes: all of it settled before any work."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sr_env.photos import EXTENSIONS, FORMATS, list_files, read_shape
from sr_env.utils.checks import FileInTheWayError, MissingFileError, UsageError


@dataclass(frozen=True)
class Job:
    """A picture and where its enlargement goes."""

    source: Path
    target: Path


def plan_jobs(inputs: Sequence[str], out: Path, format: str = "keep") -> list[Job]:
    """Turn inputs into pictures and the files to write.

    A picture named twice is done once. Pictures under ``out`` are no inputs, so that a result inside a searched folder
    is not enlarged again.

    Args:
        inputs: Files, folders and patterns.
        out: Folder, or the file to write where there is one picture and ``out`` ends like a picture.
        format: ``"keep"`` or a file name ending without its dot.

    Raises:
        MissingFileError: An input is not there or a pattern or folder has no picture.
        UsageError: Two pictures would write one file, or one would overwrite itself, or ``out`` is unsuitable.
    """
    if not inputs:
        raise UsageError("no pictures given: name files, folders or patterns such as 'scans/*.jpg'")
    found: dict[tuple[Path, Path], None] = {}
    outside = out.resolve()
    for given in inputs:
        for source, name in _find(given):
            root = Path(*source.parts[: len(source.parts) - len(name.parts)]).resolve()
            if root in outside.parents and outside in source.resolve().parents:
                continue
            found[source, name] = None
    if not found:
        raise MissingFileError(f"all pictures of {', '.join(inputs)} lie in --out {str(out)!r}: give another folder")
    single = out.suffix.lower() in FORMATS and not out.is_dir()
    if single and len({source.resolve() for source, _ in found}) > 1:
        raise UsageError(f"--out {str(out)!r} is one file and there are {len(found)} pictures: give a folder")
    if not single and out.exists() and not out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a file: give a folder, or a name that ends in {', '.join(FORMATS)}")
    if single and format != "keep" and FORMATS[out.suffix.lower()] != FORMATS[f".{format}"]:
        raise UsageError(f"--out {str(out)!r} and --format {format} disagree: leave one out")
    jobs: dict[str, Job] = {}
    for source, name in found:
        target = out if single else out / _renamed(name, format)
        if target.exists() and target.samefile(source):
            raise FileInTheWayError(f"{str(source)!r} would overwrite itself: give another --out")
        key = os.path.normcase(os.path.abspath(target))
        other = jobs.setdefault(key, Job(source, target))
        if not other.source.samefile(source):
            raise UsageError(
                f"{str(other.source)!r} and {str(source)!r} would both write {str(target)!r}: "
                "rename one, or give them in two runs with two --out folders"
            )
    return list(jobs.values())


def _find(given: str) -> Iterator[tuple[Path, Path]]:
    """Pictures of an input, and the name of each below the output folder."""
    path = Path(given)
    if path.is_dir():
        names, unreadable = list_files(path)
        if unreadable:
            raise UsageError(f"cannot list {unreadable[0]}: make it readable or leave it out")
        if not names:
            raise MissingFileError(f"no picture in {given!r} or below; looked for are {', '.join(EXTENSIONS)}")
        for name in names:
            yield path / name, Path(name)
    elif path.exists():
        yield path, Path(path.name)
    elif glob.has_magic(given):
        plain = [part for part in path.parts if not glob.has_magic(part)]
        count = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
        root = Path(*plain[:count]) if count else Path()
        matches = sorted(m for m in glob.glob(given, recursive=True) if m.lower().endswith(EXTENSIONS))
        matches = [match for match in matches if Path(match).is_file()]
        if not matches:
            raise MissingFileError(f"no picture matches {given!r}; looked for are {', '.join(EXTENSIONS)}")
        for match in matches:
            yield Path(match), Path(match).relative_to(root)
    else:
        raise MissingFileError(f"no file or folder {given!r}: give pictures, folders or patterns")


def _renamed(name: Path, format: str) -> Path:
    if format != "keep":
        return name.with_suffix(f".{format}")
    return name if name.suffix.lower() in FORMATS else name.with_suffix(".png")


def check_outputs(jobs: Sequence[Job], scale: int, *, resume: bool, force: bool) -> set[Path]:
    """Sources whose result is there already, which ``resume`` skips.

    Files are written in one step, so that one that is there is whole; its size tells another magnification.

    Raises:
        FileInTheWayError: Results are there and neither ``resume`` nor ``force`` was given, or one has another size
            than this run would give it.
        UsageError: Both were given.
    """
    if resume and force:
        raise UsageError("--resume keeps results and --force overwrites them: give one")
    present = [job for job in jobs if job.target.exists()]
    if force or not present:
        return set()
    if not resume:
        raise FileInTheWayError(
            f"{len(present)} of {len(jobs)} results are there already, such as {str(present[0].target)!r}: "
            "--resume skips them, --force overwrites them"
        )
    for job in present:
        try:
            (height, width), shape = read_shape(job.source), read_shape(job.target)
        except UsageError:  # over the limit of what is read, or an input that is damaged by now
            continue
        if shape != (scale * height, scale * width):
            raise FileInTheWayError(
                f"{str(job.target)!r} is {shape[1]}x{shape[0]}, not {scale} times {str(job.source)!r}, which is "
                f"{width}x{height}: overwrite with --force or give another --out"
            )
    return {job.source for job in present}


def remove_leftovers(targets: Sequence[Path]) -> None:
    """Delete what a killed run left of these files: ``atomic_write``'s temporary files beside them."""
    names = {(target.parent, target.name) for target in targets}
    for folder in sorted({target.parent for target in targets}):
        for path in folder.glob(".*") if folder.is_dir() else ():
            match = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}(\.[^.]+)", path.name)
            if match and (folder, match[1] + match[2]) in names:
                path.unlink(missing_ok=True)
