"""What leaves this repository: the wheel, the editable install, and the pinned requirements."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
MAPPED: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
DATA_PATTERNS: list[str] = PROJECT["tool"]["setuptools"]["package-data"]["*"]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The output of a command that is given 100 s and has to succeed; the developer's PYTHONPATH does not count."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        command, cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def tree_files() -> set[str]:
    """The modules and data files of the mapped folders, by the path that they have in a wheel."""
    return {
        f"{package.replace('.', '/')}/{path.relative_to(REPOSITORY / folder).as_posix()}"
        for package, folder in MAPPED.items()
        for pattern in ("*.py", *DATA_PATTERNS)
        for path in (REPOSITORY / folder).rglob(pattern)
    }


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tree, so that what earlier builds left here cannot creep in."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy / name)
    for name in (*MAPPED.values(), "tests"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", cwd=copy)
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the wheel; its dependencies are read from the developer's.

    The path of the developer's packages comes last, and without its ``.pth`` files, among them the editable install.
    """
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_package_list_is_the_tree() -> None:
    """A folder of modules that nobody listed in pyproject.toml would be missing from wheels only."""
    packages = {str(Path(file).parent).replace("/", ".") for file in tree_files() if file.endswith(".py")}
    assert packages == set(PROJECT["tool"]["setuptools"]["packages"])


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """Every module, ``py.typed`` and template is in the wheel; tests, docs and stray folders are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = f"manent-{PROJECT['project']['version']}.dist-info"
    assert {name for name in names if not name.startswith(f"{metadata}/")} == tree_files()
    assert {f"{package.replace('.', '/')}/py.typed" for package in MAPPED} <= names
    assert f"{metadata}/licenses/LICENSE" in names


def test_the_installed_wheel_runs(environment: Path, tmp_path: Path) -> None:
    """In an environment that has only the wheel, ``manent --version`` runs, from the wheel's own files."""
    version = PROJECT["project"]["version"]
    assert run(environment / "bin" / "manent", "--version", cwd=tmp_path) == f"manent {version}\n"
    program = "import manent.domain, manent.adapters, manent.app, manent.migrations as m; print(m.__file__)"
    assert run(environment / "bin" / "python", "-c", program, cwd=tmp_path).startswith(str(environment))


def test_the_installed_wheel_leaves_common_names_alone(environment: Path, tmp_path: Path) -> None:
    """Nothing called ``app``, ``domain`` or ``tests`` lands in anyone's site-packages."""
    program = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    names = (*MAPPED.values(), "tests", "docs")
    assert run(environment / "bin" / "python", "-c", program, *names, cwd=tmp_path) == "[]\n"


@pytest.mark.parametrize(("package", "folder"), MAPPED.items(), ids=MAPPED)
def test_the_editable_install_maps_the_folders(package: str, folder: str, tmp_path: Path) -> None:
    """From any folder, the editable install imports the working tree under the mapped names."""
    found = run(sys.executable, "-c", f"import {package} as package; print(package.__file__)", cwd=tmp_path)
    assert Path(found.strip()) == REPOSITORY / folder / "__init__.py"


@pytest.mark.parametrize("folder", MAPPED.values())
def test_a_folder_is_not_imported_by_its_bare_name(folder: str) -> None:
    """Two copies of one module under two names would be two sets of classes: the bare name is refused."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import {folder}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert f"ImportError: import manent.{folder}, not {folder}" in ended.stderr


@pytest.mark.parametrize("name", ["runtime.txt", "vision.txt", "dev.txt", "clients.txt", "llamaindex.txt"])
def test_requirements_are_pinned_by_digest_and_name_no_index(name: str) -> None:
    """What is installed is what was tested, byte for byte, from whichever index a machine uses."""
    text = (REPOSITORY / "requirements" / name).read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|^-", text, re.MULTILINE)
    logical = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    unpinned = [
        line for line in logical if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+.* --hash=sha256:[0-9a-f]{64}", line)
    ]
    assert (len(logical) > 50, unpinned) == (True, [])


def test_the_packages_of_node_are_pinned_by_digest_and_name_no_registry() -> None:
    """The same of what the tests of Node's clients install; it is what ``package.json`` asks for."""
    folder = REPOSITORY / "tests" / "clients" / "node"
    text = (folder / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    asked = packages.pop("")["dependencies"]
    assert asked == json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert asked.keys() <= {path.removeprefix("node_modules/") for path in packages}
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert '"resolved"' not in text


def test_every_dependency_is_pinned() -> None:
    """A dependency that is added to pyproject.toml and not compiled would be missing from ``make install``."""
    pins = set(re.findall(r"^([\w.-]+)==", (REPOSITORY / "requirements" / "runtime.txt").read_text(), re.MULTILINE))
    declared = {re.split(r"[\s\[<>=;]", line)[0].lower() for line in PROJECT["project"]["dependencies"]}
    assert declared - pins == set()
    assert "setuptools" in pins, "the editable install is made without build isolation"
