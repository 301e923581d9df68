"""Plugins installed for a test: what pip would write of a package, in a folder for ``sys.path``."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "docs" / "how-to" / "extend"


def install_example(name: str, folder: Path) -> Path:
    """Install the example package ``name`` of the documents in ``folder``."""
    project = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text(encoding="utf-8"))
    for module in project["tool"]["setuptools"]["py-modules"]:
        shutil.copy(EXAMPLES / name / f"{module}.py", folder)
    about = project["project"]
    points = {group: dict(entries) for group, entries in about["entry-points"].items() if group.startswith("manent.")}
    write_metadata(folder, about["name"], about["version"], points)
    return folder


def install_module(folder: Path, module: str, code: str, points: dict[str, dict[str, str]]) -> Path:
    """Install a module with its entry points, by group and name, in ``folder``."""
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    write_metadata(folder, module.replace("_", "-"), "0.1", points)
    return folder


def write_metadata(folder: Path, name: str, version: str, points: dict[str, dict[str, str]]) -> None:
    """The folder that tells of an installed package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = [
        line
        for group, entries in points.items()
        for line in (f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
