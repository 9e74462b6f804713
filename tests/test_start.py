"""start.py, run for real in a small project folder; its decisions as functions."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import start

ROOT = Path(__file__).resolve().parent.parent
APP = """
import os, sys
print(os.getpid(), sys.prefix, *sys.argv[1:], flush=True)
if "--use-tiny" in sys.argv:
    import tiny
if "--wait" in sys.argv:
    sys.stdin.read()
sys.exit(7)
"""


def make_project(folder: Path) -> Path:
    """A project with no requirements, whose app prints its arguments and exits with 7."""
    folder.mkdir()
    shutil.copy(ROOT / "start.py", folder)
    (folder / "requirements.txt").write_text("# nothing\n")
    (folder / "app.py").write_text(APP)
    return folder


def open_start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "QFT_WHEELS"}
    return subprocess.Popen(
        [sys.executable, str(project / "start.py"), *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_start(project: Path, *arguments: str) -> tuple[int, str, str]:
    return finished(open_start(project, *arguments))


def of_children_s() -> float:
    """Processor time of ended children: other processes' load is not in it."""
    return os.times().children_user + os.times().children_system


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    with process:
        output, errors = process.communicate(timeout=100)
    return process.returncode, output, errors


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def two_first_starts(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[tuple[int, str, str]]]:
    """A project in which two first starts ran at the same time, and what each of them said."""
    project = make_project(tmp_path_factory.mktemp("start") / "project")
    first, second = open_start(project, "--port", "1"), open_start(project, "--port", "2")
    return project, [finished(first), finished(second)]


@pytest.fixture
def project(two_first_starts: tuple[Path, list[tuple[int, str, str]]]) -> Iterator[Path]:
    """An installed project; its requirements are put back afterwards."""
    project = two_first_starts[0]
    yield project
    (project / "requirements.txt").write_text("# nothing\n")


def test_two_first_starts_at_once_install_once_and_open_the_app(two_first_starts):
    project, results = two_first_starts
    assert [code for code, _, _ in results] == [7, 7]
    assert [errors for _, _, errors in results] == ["", ""]
    everything = results[0][1] + results[1][1]
    assert everything.count("First start: making .venv. This happens once.\n") == 1
    assert everything.count("Another start is installing into .venv: waiting for it.\n") <= 1
    for port, (_, output, _) in enumerate(results, 1):
        assert output.endswith(f" {project / '.venv'} --port {port}\n")


def test_a_later_start_installs_nothing_and_is_quick(project):
    began = of_children_s()
    code, output, errors = run_start(project, "--port", "1")
    assert of_children_s() - began < 2
    assert (code, errors) == (7, "")
    assert output.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="POSIX replaces the process")
def test_the_app_takes_the_place_of_start_so_that_signals_reach_it(project):
    with open_start(project, "--wait") as process:
        assert process.stdout
        assert process.stdout.readline().split()[0] == str(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == -signal.SIGINT


def make_wheel(folder: Path) -> None:
    """The smallest wheel there is: a package named tiny."""
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")


def test_changed_requirements_are_installed_from_a_folder_of_wheels(project, tmp_path):
    make_wheel(tmp_path)
    (project / "requirements.txt").write_text("tiny==1.0\n")
    code, output, errors = run_start(project, "--wheels", str(tmp_path), "--use-tiny")
    assert (code, errors) == (7, "")
    assert output.startswith("Bringing .venv up to date with the requirements.\n")
    assert output.endswith(" --use-tiny\n")
    assert run_start(project, "--use-tiny")[1].count("\n") == 1


def test_a_failed_installation_is_one_sentence_and_is_tried_again(project, tmp_path):
    (project / "requirements.txt").write_text("tiny==3.0\n")
    for _ in range(2):
        code, output, errors = run_start(project, f"--wheels={tmp_path}")
        assert code == 1
        assert output == "Bringing .venv up to date with the requirements.\n"
        assert errors.startswith("Installing failed, no tiny==3.0 for ")
        assert errors.endswith("start again.\n")
        assert errors.count("\n") == 1
    (project / "requirements.txt").write_text("# nothing at all\n")
    assert run_start(project)[0] == 7


@pytest.mark.slow
def test_a_killed_installation_is_finished_by_the_next_start(tmp_path):
    project = make_project(tmp_path / "project")
    with open_start(project) as process:
        wait_for(project / ".venv" / "pyvenv.cfg")
        process.kill()
        process.communicate()
    code, output, errors = run_start(project)
    assert (code, errors) == (7, "")
    if os.name == "posix":  # the child of the killed start still writes into .venv
        assert output.startswith("Another start is installing into .venv: waiting for it.\n")
    assert "The installation in .venv is not usable: making .venv." in output
    assert run_start(project)[1].count("\n") == 1


def test_a_moved_project_gets_a_new_venv(project, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(project, moved, symlinks=True)
    (moved / "requirements.txt").write_text("# nothing\n")
    code, output, _ = run_start(moved)
    assert code == 7
    assert "The installation in .venv is not usable: making .venv." in output
    assert output.endswith(f"{moved / '.venv'}\n")


def test_help_installs_nothing(tmp_path):
    project = make_project(tmp_path / "project")
    for arguments in (["--help"], ["test", "-h"], ["demo", "--help"], ["--port", "1", "--help"]):
        code, output, _ = run_start(project, *arguments)
        assert code == 0
        assert "start.py test [PYTEST ARGS]" in output
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tests"], "'tests' is not known here: say 'test', 'demo', or options alone"),
        (["app"], "'app' is not known here"),
        (["--wheels", "no/such/folder"], "no/such/folder, is not there"),
        (["--wheels"], "expected one argument"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_installed(tmp_path, arguments, sentence):
    project = make_project(tmp_path / "project")
    code, output, errors = run_start(project, *arguments)
    assert (code, output) == (2, "")
    assert sentence in errors.replace("\\", "/")
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("ci", ["true", ""])
def test_every_check_runs_and_one_failure_fails_them_all(monkeypatch, capsys, ci):
    calls = []

    def call(command, cwd, env):
        assert env["OMP_NUM_THREADS"] == "1"
        calls.append((command[2], command[3:], cwd, env.get("QFT_REQUIRE_BROWSER")))
        return 4 if command[2] == "pyright" else 0

    monkeypatch.setattr(start.subprocess, "call", call)
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("QFT_REQUIRE_BROWSER", raising=False)
    assert start.run_checks(["-m", "not slow"]) == 1
    names = [re.findall(r"\w+", name)[-1] for name, *_ in calls]
    assert names == ["ruff", "ruff", "pyright", "lint_imports_command", "pytest"]
    assert calls[-1] == (
        "pytest",
        [*["-n", "2", "--dist", "loadfile"], "-m", "not slow"],
        ROOT,
        "1" if ci else None,
    )
    summary = capsys.readouterr().out.partition("== summary\n")[2].splitlines()
    assert [line.split()[-1] for line in summary] == ["ok", "ok", "4", "ok", "ok"]
    assert summary[2].endswith("failed, exit code 4")


@pytest.mark.parametrize(
    ("version", "is_supported"),
    [((2, 7), False), ((3, 9), False), ((3, 10), True), ((3, 13), True), ((3, 14), False)],
)
def test_an_unsupported_python_gets_one_sentence(version, is_supported):
    sentence = start.python_refusal(*version)
    assert (sentence == "") == is_supported
    if not is_supported:
        assert f"this is {version[0]}.{version[1]}" in sentence
        assert "\n" not in sentence


def test_an_old_python_can_read_start_far_enough_to_refuse():
    ast.parse((ROOT / "start.py").read_text(encoding="ascii"), feature_version=(3, 7))


@pytest.mark.parametrize(
    ("system", "has_nvidia", "index"),
    [
        ("Windows", True, "https://download.pytorch.org/whl/cu130"),
        ("Windows", False, None),
        ("Linux", True, None),
        ("Linux", False, None),
        ("Darwin", False, None),
    ],
)
def test_only_windows_with_an_nvidia_gpu_needs_another_torch(system, has_nvidia, index):
    arguments = start.torch_install_arguments(system, has_nvidia)
    assert arguments == ([f"{torch_pin()}+cu130", "--index-url", index] if index else [])


def torch_pin() -> str:
    return next(line for line in requirements("requirements.txt") if line.startswith("torch=="))


def requirements(name: str) -> list[str]:
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("cuda", "sentence"),
    [
        ("13.0", "The driver of the NVIDIA GPU is too old for CUDA 13.0: install 580 or newer"),
        ("None", "This torch is built without CUDA: training runs on the CPU"),
    ],
)
def test_an_unused_gpu_is_explained(cuda, sentence):
    assert start.cuda_sentence(cuda).startswith(sentence)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("x\nERROR: Could not install: [Errno 28] No space left on device\n", "the disk is full"),
        ("WARNING: Retrying (Retry(total=0, connect=None\nERROR: No matching", "no network"),
        ("Could not fetch URL u: connection error: x\nERROR: No matching", "no network"),
        ("y\nERROR: No matching distribution found for torch==2.13.0\n", "no torch==2.13.0 for"),
        ("y\nERROR: Something else\nTraceback", "pip says 'Something else'"),
        ("", "pip did not say why"),
    ],
)
def test_a_failed_installation_says_why(log, reason):
    sentence = start.pip_failure(log, None, 6)
    assert sentence.startswith(f"Installing failed, {reason}")
    assert sentence.endswith(" start again.")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-test.txt", "requirements-harness.txt"]
)
def test_requirements_are_pinned_exactly(name):
    for line in requirements(name):
        assert re.fullmatch(r'[\w.-]+(\[\w+\])?==[\d.]+(; python_version (<|>=) "3\.11")?', line)


def test_the_import_rules_name_every_module_of_the_engine():
    children = [path for path in (ROOT / "engine").iterdir() if path.suffix == ".py"]
    packages = [path.parent for path in (ROOT / "engine").glob("*/__init__.py")]
    names = {path.stem for path in (*children, *packages)} - {"__init__", "contract", "memory"}
    rules = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[[tool.importlinter")
    rule = next(text for text in rules if 'id = "page-without-engine"' in text)
    assert set(re.findall(r'"engine\.(\w+)"', rule)) == names
