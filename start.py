"""Start QFT Workbench: make .venv, install what is missing, open the app.

  python3 start.py [OPTIONS]           open the app; the first start installs it into .venv
  python3 start.py test [PYTEST ARGS]  install the test requirements too, then check everything
  python3 start.py demo [ARGS]         tune the starter model with each method, print the table

Options of start.py, in all three uses:
  --wheels DIR  install from the wheels in DIR, with no network (or set QFT_WHEELS=DIR);
                fill DIR on a computer of the same kind: pip download -r requirements.txt -d DIR
  -h, --help    show this text; installs nothing

Options of the app:
  [--host H] [--port P] [--runs DIR] [--allow-host NAME] [--no-browser] [--offline]
"""
# Standard library only, and parsed by Python 3.6 and later, so that an old Python says a sentence
# and no SyntaxError: no `match`, no `:=`, no `from __future__`, nothing but ASCII.

import argparse
import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def python_refusal(major: int, minor: int) -> str:  # a SyntaxError? Python 3.10 to 3.13 is needed
    """One sentence for a Python that the project does not support, "" for one that it does."""
    needs = f"QFT Workbench needs Python 3.10 to 3.13, and this is {major}.{minor}"
    is_right = (3, 10) <= (major, minor) <= (3, 13)
    return "" if is_right else f"{needs}: take one of those, for example python3.12 start.py"


if python_refusal(*sys.version_info[:2]):
    sys.exit(python_refusal(*sys.version_info[:2]))

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "installed.txt"  # written last: what the finished installation was made from
PIP_LOG = VENV / "pip.log"
LOCK = HERE / ".venv.lock"  # locked: an installation runs; free but not empty: one was killed
# The default wheel for Windows has no CUDA. A test keeps the version that of requirements.txt.
CUDA_TORCH = ["torch==2.13.0+cu130", "--index-url", "https://download.pytorch.org/whl/cu130"]
PIP_FAILURES = {  # what pip's log holds: why it failed and the way out; the first that fits
    r"No space left|not enough space": "the disk is full: free {size} and",
    r"Retry\(total=0|connection error|timed out": "no network: connect or use --wheels DIR, and",
    r"No matching distribution found for (.+)": "no {found} for {computer}: change that and",
    r"ERROR: (.+)": "pip says '{found}' (all of it is in .venv/pip.log): mend that and",
    r"": "pip did not say why:",
}


def main(arguments: list[str]) -> int:
    """Install what the use needs, then run it; returns the exit code."""
    usage = "python3 start.py [test | demo] [--wheels DIR] [OPTIONS], more with --help"
    parser = argparse.ArgumentParser(usage=usage, add_help=False, allow_abbrev=False)
    parser.add_argument("--wheels", metavar="DIR", default=os.environ.get("QFT_WHEELS"))
    options, rest = parser.parse_known_args(arguments)
    if "-h" in rest or "--help" in rest:
        print((__doc__ or "").strip())
        return 0
    wheels = Path(options.wheels).resolve() if options.wheels else None
    if wheels and not wheels.is_dir():
        parser.error(f"the folder of wheels, {wheels}, is not there")
    word = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    if word not in ("", "test", "demo"):
        parser.error(f"'{word}' is not known here: say 'test', 'demo', or options alone")
    with_tests = ["requirements-test.txt"] if word == "test" else []
    ensure_installed(["requirements.txt", *with_tests], wheels)
    if word == "test":
        return run_checks(rest)
    return hand_over(["-m", "engine.demo", *rest] if word else [str(HERE / "app.py"), *rest])


def hand_over(arguments: list[str]) -> int:
    """Run .venv's Python in this process's place; its exit code is ours."""
    command = [str(PYTHON), *arguments]
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}  # from any folder, `-m engine` is found
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)
    process = subprocess.Popen(command, env=environment)
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C reaches the child too: it ends
            return process.wait()


def run_checks(pytest_arguments: list[str]) -> int:
    """Run every check, also after one that failed; 1 if any failed."""
    in_ci = os.environ.get("CI", "").lower() == "true"
    # Two workers have a core each. Elsewhere a missing browser is a skip.
    more = {"OMP_NUM_THREADS": "1", **({"QFT_REQUIRE_BROWSER": "1"} if in_ci else {})}
    checks = {
        "ruff format --check": ["-m", "ruff", "format", "--check", "."],
        "ruff check": ["-m", "ruff", "check", "."],
        "pyright": ["-m", "pyright"],
        "lint-imports": ["-c", "from importlinter import cli; cli.lint_imports_command()"],
        "pytest": ["-m", "pytest", "-n", "2", "--dist", "loadfile", *pytest_arguments],
    }
    summary, failed = ["\n== summary"], 0
    for name, words in checks.items():
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        code = subprocess.call([str(PYTHON), *words], cwd=HERE, env={**os.environ, **more})
        failed += code != 0
        verdict = f"failed, exit code {code}" if code else "ok"
        summary.append(f"{name:20}{time.monotonic() - began:7.1f} s  {verdict}")
    print(*summary, sep="\n", flush=True)
    return 1 if failed else 0


def ensure_installed(files: list[str], wheels: Path | None) -> None:
    """Bring .venv to what the requirement files ask for; a matching stamp makes this instant."""
    system, needs_torch = platform.system(), "\ntorch==" in read(HERE / "requirements.txt")
    has_nvidia = system == "Windows" and has_nvidia_gpu()
    torch_arguments = torch_install_arguments(system, has_nvidia) if needs_torch else []
    if is_installed(files, torch_arguments):
        return
    with installation_lock() as cut_short:
        if is_installed(files, torch_arguments):  # the holder before this one did it
            return
        moved = STAMP.exists() and f"folder {VENV}" not in read(STAMP)
        STAMP.unlink(missing_ok=True)
        gigabytes = 6 if system == "Linux" or has_nvidia else 2  # with the libraries of CUDA
        if cut_short or moved or not venv_python() or ask(PYTHON, "-c", "import pip")[0]:
            make_venv(gigabytes if needs_torch else 0)
        else:
            print("Bringing .venv up to date with the requirements.", flush=True)
        if torch_arguments and not wheels:
            pip_install(torch_arguments, None, gigabytes)
        pip_install([f"-r{HERE / name}" for name in files], wheels, gigabytes)
        if needs_torch:
            check_torch(has_nvidia_gpu())
        STAMP.write_text("\n".join(sorted(stamp(files, torch_arguments))), "utf-8")


def is_installed(files: list[str], torch_arguments: list[str]) -> bool:
    """Whether a finished installation holds at least these requirement files, unchanged."""
    return bool(venv_python()) and stamp(files, torch_arguments) <= set(read(STAMP).splitlines())


def stamp(files: list[str], torch_arguments: list[str]) -> set[str]:
    """What an installation is made from, a line each; unchanged, there is nothing to do."""
    lines = {f"{name} {hashlib.sha256((HERE / name).read_bytes()).hexdigest()}" for name in files}
    return lines | {f"torch {torch_arguments}", f"python {venv_python()}", f"folder {VENV}"}


def read(path: Path) -> str:
    """The text of a file, "" if there is none."""
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def torch_install_arguments(system: str, has_nvidia: bool) -> list[str]:
    """What pip installs before the requirements; `system` is what `platform.system()` says."""
    return list(CUDA_TORCH) if system == "Windows" and has_nvidia else []


def has_nvidia_gpu() -> bool:
    """Whether NVIDIA's driver is there and lists a GPU."""
    system32 = Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvidia-smi.exe")
    try:
        return ask(shutil.which("nvidia-smi") or system32, "--list-gpus", limit_s=20)[0] == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def ask(*command: "str | Path", limit_s: "float | None" = None) -> tuple[int, str]:
    """Exit code and last line of a program, the last line of its errors if it failed."""
    # close_fds: where this process is killed, its child still holds the lock of the installation.
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=limit_s, close_fds=False
    )
    text = answer.stderr.strip() if answer.returncode else ""
    return answer.returncode, (text or answer.stdout.strip()).rpartition("\n")[2]


def check_torch(has_nvidia: bool) -> None:
    """End the program if torch does not load; print a line if it leaves an NVIDIA GPU unused."""
    question = "import torch; print(torch.version.cuda, torch.cuda.is_available())"
    code, answer = ask(PYTHON, "-c", question)
    if code:
        sys.exit(f"torch does not load ({answer}): on Windows, install Microsoft's VC++ runtime.")
    cuda, usable = answer.split()
    if has_nvidia and usable == "False":
        print(cuda_sentence(cuda), flush=True)


def cuda_sentence(cuda: str) -> str:
    """Why a torch built for this version of CUDA, or "None", does not use the NVIDIA GPU."""
    if cuda == "None":
        return "This torch is built without CUDA: training runs on the CPU, not the NVIDIA GPU."
    why = f"The driver of the NVIDIA GPU is too old for CUDA {cuda}"
    return f"{why}: install 580 or newer, nvidia.com/drivers; until then training runs on the CPU."


def venv_python() -> str:
    """Version and true path of .venv's Python, "" if it is not there (any more)."""
    pairs = [line.partition("=") for line in read(VENV / "pyvenv.cfg").splitlines()]
    settings = {key.strip(): value.strip() for key, _, value in pairs}
    is_there = PYTHON.exists() and Path(settings.get("home", "missing")).is_dir()
    return f"{settings.get('version')} {PYTHON.resolve()}" if is_there else ""


def make_venv(gigabytes: int) -> None:
    """Make .venv anew, whatever is there now, for an installation of up to this size."""
    size = f"installing up to {gigabytes} GB into .venv" if gigabytes else "making .venv"
    why = "The installation in .venv is not usable" if VENV.exists() else "First start"
    print(f"{why}: {size}. This happens once.", flush=True)
    if VENV.exists():
        shutil.rmtree(VENV)
    free = shutil.disk_usage(HERE).free / 1e9
    if free < min(gigabytes, 2):  # less than the smallest torch; the largest may need them all
        sys.exit(f"The disk is nearly full, {free:.1f} GB are free: free up to {gigabytes} GB.")
    if not importlib.util.find_spec("ensurepip"):
        sys.exit("This Python has no venv: on Debian or Ubuntu, sudo apt install python3-venv.")
    base = getattr(sys, "_base_executable", sys.executable)  # not the Python in .venv itself
    code, answer = ask(base, "-m", "venv", VENV)
    if code:
        sys.exit(f"Making .venv failed ({answer}): try another Python, 3.10 to 3.13.")


def pip_install(arguments: list[str], wheels: Path | None, gigabytes: int) -> None:
    """Install into .venv; a failure ends the program with why and the way out."""
    PIP_LOG.unlink(missing_ok=True)
    command = [str(PYTHON), "-m", "pip", "--log", str(PIP_LOG), "install", *arguments]
    command += ["--no-index", "--find-links", str(wheels)] if wheels else []
    command += [] if sys.stdout.isatty() else ["--quiet", "--progress-bar=off"]
    errors = subprocess.DEVNULL  # pip's log has them too
    with tempfile.TemporaryDirectory(dir=VENV, ignore_cleanup_errors=True) as folder:
        # Downloads go where .venv is: /tmp is in memory on many systems, and too small.
        more = {"TMPDIR": folder, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0"}
        code = subprocess.call(command, env={**os.environ, **more}, stderr=errors, close_fds=False)
    if code:
        sys.exit(pip_failure(read(PIP_LOG), wheels, gigabytes))
    PIP_LOG.unlink(missing_ok=True)


def pip_failure(log: str, wheels: Path | None, gigabytes: int) -> str:
    """The sentence for an installation whose log this is."""
    computer = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    computer += f", in {wheels}" if wheels else ""
    matches = ((re.search(sign, log), why) for sign, why in PIP_FAILURES.items())
    found, why = next((match[match.re.groups], why) for match, why in matches if match)
    why = why.format(size=f"up to {gigabytes} GB", computer=computer, found=found)
    return f"Installing failed, {why} start again."


@contextlib.contextmanager
def installation_lock() -> Iterator[bool]:
    """Let one installation run at a time; yields whether the one before was cut short."""
    with LOCK.open("a+", encoding="utf-8") as file:
        if not try_lock(file.fileno()):
            print("Another start is installing into .venv: waiting for it.", flush=True)
            while not try_lock(file.fileno()):
                time.sleep(0.2)
        os.set_inheritable(file.fileno(), True)
        file.seek(0)
        cut_short = bool(file.read())
        file.write("installing\n")
        file.flush()
        try:
            yield cut_short
        except SystemExit:  # pip gave up by itself and left .venv in order
            file.truncate(0)
            raise
        file.truncate(0)


def try_lock(descriptor: int) -> bool:
    """Lock a file until it is closed, without waiting; False if another process holds it."""
    with contextlib.suppress(BlockingIOError, PermissionError):
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)  # it locks from where the file stands
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("Stopped. The next start finishes what is missing.")
    except OSError as error:
        sys.exit(f"start.py cannot go on in {HERE}: {error}")
