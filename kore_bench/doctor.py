"""What `kore-bench doctor` finds out about this machine and installation; it prints no key and calls nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from kore_bench import __version__
from kore_bench.cache import cache_folder
from kore_bench.words import facts, one_line, size

OPTIONAL = {
    "lm-eval": "pip install lm-eval",
    "vlmeval": "git clone https://github.com/open-compass/VLMEvalKit && pip install -e VLMEvalKit",
    "ray": "pip install ray",
    "tensorboard": "pip install tensorboard",
    "wandb": "pip install wandb",
    "openai": "pip install openai",
}
"""Distribution -> how it is installed."""

_SHOWN = (
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "KORE_BENCH_CACHE",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip
_KEYS = ("KORE_BENCH_JUDGE_KEY", "OPENAI_API_KEY", "WANDB_API_KEY")
_ADDRESSES = ("HF_ENDPOINT", "OPENAI_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY")
"""May hold a key too: of both, only whether they are set is shown."""
_LEAST_DISK = 2 * 2**30

Facts = dict[str, str | Text]


def doctor_session(out: Console) -> None:
    """Print versions, devices, memory, disk, caches, environment and optional packages, and what is wrong."""
    problems: list[str] = []
    for title, found in (
        (f"kore-bench {__version__}", _program()),
        ("Packages", _packages(problems)),
        ("Devices", _devices(problems)),
        ("Memory and disk", _room(problems)),
        ("Caches", _caches()),
        ("Environment", _environment()),
        ("Optional packages", {name: _optional(name, line) for name, line in OPTIONAL.items()}),
    ):
        out.print(Text(title, "bold"))
        out.print(Padding(facts(found), (0, 0, 1, 2)))
    for problem in problems:
        out.print(Text.assemble(("problem: ", "bold red"), problem), soft_wrap=True)
    if not problems:
        out.print(Text("No problem found.", "green"))


def _program() -> Facts:
    return {
        "installed in": str(Path(__file__).parent),
        "Python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
    }


def _packages(problems: list[str]) -> Facts:
    found: Facts = {}
    for requirement in requirements():
        wanted = f"{requirement.name} {requirement.specifier}"
        version = installed(requirement.name)
        if version is None:
            problems.append(f'{requirement.name} is not installed: pip install "{wanted.replace(" ", "")}"')
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(
                f'{requirement.name} {version} is too old or too new: pip install "{wanted.replace(" ", "")}"'
            )
        else:
            found[requirement.name] = version
            continue
        found[requirement.name] = Text(f"{version or 'not installed'}, needs {requirement.specifier}", "red")
    return found


def requirements() -> list[Requirement]:
    """Return what kore-bench needs: as its checkout's pyproject.toml says, or as installed."""
    file = Path(__file__).parents[1] / "pyproject.toml"
    if file.exists():
        lines = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        lines = importlib.metadata.requires("kore-bench") or []
    found = map(Requirement, lines)
    return [need for need in found if need.marker is None or need.marker.evaluate({"extra": ""})]


def installed(name: str) -> str | None:
    """Return the version of an installed distribution, or None; nothing is imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _optional(name: str, line: str) -> Text:
    version = installed(name)
    return Text(version, "green") if version else Text.assemble("not installed: ", (line, "cyan"))


def _devices(problems: list[str]) -> Facts:
    found: Facts = {"CPU": f"{_processor()}, {_cores()} cores to use of {os.cpu_count()}"}
    try:
        import torch
    except Exception as error:  # noqa: BLE001 (a broken torch is what a doctor has to report)
        problems.append(f"torch cannot be imported: {one_line(f'{type(error).__name__}: {error}')}")
        return found
    found["torch built for"] = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found[f"GPU {index}"] = f"{card.name}, {size(total)} ({size(free)} free), compute {card.major}.{card.minor}"
    if torch.cuda.device_count() == 0:
        found["GPU"] = "Apple's (MPS)" if torch.backends.mps.is_available() else "none"
        if torch.version.cuda and shutil.which("nvidia-smi"):
            problems.append("there is an NVIDIA driver, but torch sees no GPU: compare the driver's CUDA with torch's")
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _room(problems: list[str]) -> Facts:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available, limit = _meminfo("MemAvailable"), _limit()
    memory = size(total) + (f", {size(available)} available" if available else "")
    found: Facts = {"memory": memory + (f", limited to {size(limit)}" if limit and limit < total else "")}
    for name, folder in (("here", Path.cwd()), ("cache", cache_folder())):
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        found[f"disk, {name}"] = f"{size(free)} free under {existing}"
        if free < _LEAST_DISK:
            problems.append(f"only {size(free)} are free under {existing}")
        if not os.access(existing, os.W_OK):
            problems.append(f"{existing} cannot be written to")
    return found


def _meminfo(name: str) -> int | None:
    """Return an entry of /proc/meminfo in bytes; None on other systems."""
    try:
        return int(Path("/proc/meminfo").read_text(encoding="utf-8").split(f"{name}:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def _limit() -> int | None:
    """Return the memory in bytes that a container leaves this process; None without a limit."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _caches() -> Facts:
    from huggingface_hub import constants

    own = cache_folder()
    found: Facts = {"kore-bench": _kept(own)}
    for part in sorted(path for path in own.iterdir() if path.is_dir()) if own.is_dir() else ():
        found[f"  {part.name}"] = size(used(part))
    found["models"] = _kept(Path(constants.HF_HUB_CACHE))
    found["datasets"] = _kept(Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets")))
    return found


def _kept(folder: Path) -> str:
    return f"{size(used(folder))} in {folder}" if folder.is_dir() else f"nothing yet in {folder}"


def used(folder: Path) -> int:
    """Return the bytes of the files below ``folder``; links are not followed."""
    return sum(_length(Path(root) / name) for root, _, names in os.walk(folder) for name in names)


def _length(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:  # removed meanwhile, or not ours to read
        return 0


def _environment() -> Facts:
    from huggingface_hub import constants, get_token

    found: Facts = {"Hugging Face hub": "offline" if constants.HF_HUB_OFFLINE else "online"}
    found["Hugging Face token"] = "set" if get_token() else "not set"
    return found | dict(_variables())


def _variables() -> Iterator[tuple[str, str]]:
    for name in _SHOWN:
        if name in os.environ:
            yield name, one_line(os.environ[name]) or "(empty)"
    for name in _KEYS:
        yield name, "set" if os.environ.get(name) else "not set"
    for name in _ADDRESSES:
        if os.environ.get(name):
            yield name, "set"
