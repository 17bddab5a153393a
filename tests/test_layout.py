"""The house: which room may import which, how long a file may be, and that the front door stays small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"sr_env": ROOT, "blindsr_agents": ROOT / "agents", "blindsr_pretrain": ROOT / "pretrain"}
PRODUCT = [path for name, home in PACKAGES.items() for path in sorted((home / name).rglob("*.py"))]
SCRIPTS = sorted([*(ROOT / "agents").glob("*.py"), *(ROOT / "pretrain").glob("*.py")])
LONG_SCRIPTS = {"ablation.py", "train_amgan.py"}

#: What each room may import of this project beside itself. A room is a folder, or a file at the top of its package.
ROOMS: dict[str, set[str]] = {
    "sr_env": {"sr_env.registration"},  # the other names are imported when first used
    "sr_env.registration": set(),
    "sr_env.utils": set(),
    "sr_env.degradation": {"sr_env.utils"},
    "sr_env.photos": {"sr_env.utils", "sr_env.degradation"},
    "sr_env.metrics": {"sr_env.utils"},
    "sr_env.models": {"sr_env.utils", "sr_env.degradation"},
    "sr_env.upscale": {"sr_env.utils", "sr_env.degradation", "sr_env.models"},
    "sr_env.simulator": {"sr_env.utils", "sr_env.degradation", "sr_env.photos", "sr_env.metrics", "sr_env.models"},
    "sr_env.envs": {"sr_env.utils", "sr_env.degradation", "sr_env.metrics", "sr_env.simulator"},
    "sr_env.cli": {"sr_env", *(f"sr_env.{room}" for room in
                   ("utils", "degradation", "photos", "metrics", "models", "upscale"))},
    "blindsr_agents": set(),
    "blindsr_agents.exploration": {"sr_env"},
    "blindsr_agents.peers": {"sr_env"},
    "blindsr_agents.evaluation": {"sr_env", "blindsr_agents.peers", "blindsr_agents.exploration"},
    "blindsr_agents.training": {"sr_env", "blindsr_agents.evaluation", "blindsr_agents.exploration"},
    "blindsr_agents.hinge_ddpg": {"sr_env", "blindsr_agents.training", "blindsr_agents.evaluation",
                                  "blindsr_agents.exploration", "blindsr_agents.baselines"},
    "blindsr_agents.iterative": {"sr_env", "blindsr_agents.training", "blindsr_agents.evaluation",
                                 "blindsr_agents.exploration", "blindsr_agents.hinge_ddpg"},
    "blindsr_agents.baselines": {"sr_env", "blindsr_agents.training", "blindsr_agents.evaluation",
                                 "blindsr_agents.exploration"},
    "blindsr_agents.stock": {"sr_env", "blindsr_agents.training", "blindsr_agents.evaluation",
                             "blindsr_agents.exploration"},
    "blindsr_pretrain": {"sr_env"},
}  # fmt: skip


def module_of(path: Path) -> str:
    for home in PACKAGES.values():
        if path.is_relative_to(home) and path.relative_to(home).parts[0] in PACKAGES:
            parts = path.relative_to(home).with_suffix("").parts
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    raise AssertionError(path)


def room_of(module: str) -> str:
    """The room that a module lies in: the longest one that its name begins with."""
    return max((room for room in ROOMS if module == room or module.startswith(room + ".")), key=len)


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports, anywhere in it but under TYPE_CHECKING, which never runs."""
    tree = ast.parse(path.read_text())
    idle = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in idle:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


MODULES = {module_of(path) for path in PRODUCT}
pytestmark = pytest.mark.skipif(not PRODUCT, reason="the packages are installed, and not those of this checkout")


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows(path: Path) -> None:
    """A room imports only the rooms below it; the library knows neither who acts nor who made the renderer."""
    room = room_of(module_of(path))
    for imported in imports(path):
        if imported.split(".")[0] not in PACKAGES:
            continue
        target = room_of(imported)
        allowed = ROOMS[room] | {room}
        whole = {name for name in allowed if "." not in name}  # a package allowed by its name, with all its rooms
        assert target in allowed or (target.split(".")[0] in whole and target.split(".")[0] != room.split(".")[0]), (
            f"{path.relative_to(ROOT)} imports {imported}: {room} must not know {target}"
        )


def test_every_room_is_on_the_plan() -> None:
    """A new folder must say which rooms it may import; a room that is gone must leave the plan."""
    found = {".".join(module.split(".")[:2]) for module in MODULES}
    found = {name for name in found if not name.startswith("blindsr_pretrain.")} | {"blindsr_pretrain"}
    assert found == set(ROOMS)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_import_no_script(path: Path) -> None:
    names = {script.stem for script in SCRIPTS} - {path.stem}
    assert not names & {imported.split(".")[0] for imported in imports(path)}


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_file_is_too_long_to_read() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    limits = {**dict.fromkeys(PRODUCT, 450), **dict.fromkeys(tests, 400), **dict.fromkeys(SCRIPTS, 120)}
    limits |= {path: 450 for path in SCRIPTS if path.name in LONG_SCRIPTS}
    long = {str(path.relative_to(ROOT)): lines(path) for path, limit in limits.items() if lines(path) > limit}
    assert not long


def test_pages_keep_their_lines_short() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "agents" / "README.md"]
    assert len(pages) > 12
    wide = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in pages
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > 120 and not line.startswith(("|", "!["))
    ]
    assert not wide


def test_the_readme_is_read_in_three_minutes() -> None:
    words = (ROOT / "README.md").read_text().split()
    assert len(words) <= 900


def test_folders_of_scripts_hold_scripts_and_one_package() -> None:
    for folder, package in (("agents", "blindsr_agents"), ("pretrain", "blindsr_pretrain")):
        folders = {path.name for path in (ROOT / folder).iterdir() if path.is_dir() and path.name != "__pycache__"}
        assert folders == {package}
        assert not (ROOT / folder / "__init__.py").exists(), f"{folder} must be no package: another has its name"
