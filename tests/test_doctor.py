"""`kore-bench doctor`: what it tells, what it calls a problem, and that it never shows a key."""

from __future__ import annotations

import builtins
import importlib.metadata
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kore_bench import __version__, doctor
from kore_bench.cli import main


def diagnose(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["doctor"])
    assert not exit_.value.code
    return capsys.readouterr().out


def lines_of(shown: str, name: str) -> str:
    return next(" ".join(line.split()) for line in shown.splitlines() if line.strip().startswith(name))


def test_versions_machine_and_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path))
    (tmp_path / "tensors").mkdir()
    (tmp_path / "tensors" / "a.safetensors").write_bytes(b"x" * 3 * 2**20)
    (tmp_path / "tensors" / "link").symlink_to("/usr/lib")  # what it points to is not in the cache
    shown = diagnose(capsys)
    assert shown.startswith(f"kore-bench {__version__}\n")
    assert lines_of(shown, "torch ") == f"torch {importlib.metadata.version('torch')}"
    assert lines_of(shown, "tensors") == "tensors 3.0 MiB"
    assert str(tmp_path) in "".join(shown.split())  # a long path is broken over lines
    assert "cores to use of" in shown
    assert "free under" in shown
    assert "No problem found." in shown


def test_keys_are_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "sk-0123456789abcdef"
    for name in ("OPENAI_API_KEY", "WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, secret)
    for name in ("HF_ENDPOINT", "HTTPS_PROXY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, f"https://me:{secret}@example.org")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shown = diagnose(capsys)
    assert secret not in shown
    assert "example.org" not in shown
    for name in ("OPENAI_API_KEY", "WANDB_API_KEY", "HF_ENDPOINT", "HTTPS_PROXY"):
        assert lines_of(shown, name) == f"{name} set"
    assert lines_of(shown, "Hugging Face token") == "Hugging Face token set"
    assert lines_of(shown, "OMP_NUM_THREADS") == "OMP_NUM_THREADS 1"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert lines_of(diagnose(capsys), "OPENAI_API_KEY") == "OPENAI_API_KEY not set"


def test_missing_and_old_packages_are_problems(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = doctor.installed
    versions = {"peft": "0.1.0", "scipy": None, "ray": "2.50.0", "wandb": None}
    monkeypatch.setattr(doctor, "installed", lambda name: versions[name] if name in versions else real(name))
    shown = diagnose(capsys)
    assert lines_of(shown, "peft") == "peft 0.1.0, needs >=0.21"
    assert lines_of(shown, "scipy").startswith("scipy not installed, needs >=")
    assert 'problem: peft 0.1.0 is too old or too new: pip install "peft>=0.21"' in shown
    assert "problem: scipy is not installed: pip install" in shown
    assert lines_of(shown, "ray") == "ray 2.50.0"
    assert lines_of(shown, "wandb") == "wandb not installed: pip install wandb"
    assert "No problem found." not in shown


def test_gpus_are_listed_with_their_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    card = SimpleNamespace(name="NVIDIA H100", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (60 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    shown = diagnose(capsys)
    assert lines_of(shown, "torch built for") == "torch built for CUDA 13.0"
    assert lines_of(shown, "GPU 1") == "GPU 1 NVIDIA H100, 80.0 GiB (60.0 GiB free), compute 9.0"


def test_a_torch_that_does_not_load_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def broken(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "torch":
            raise OSError("libcudart.so.13: cannot open shared object file")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", broken)
    shown = diagnose(capsys)
    assert "problem: torch cannot be imported: OSError: libcudart.so.13: cannot open shared object file" in shown
    assert "Optional packages" in shown


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    assert "problem: only 1.0 MiB are free under" in diagnose(capsys)


def test_requirements_come_from_the_metadata_without_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "kore_bench" / "doctor.py"))
    lines = ["torch>=2.6", 'ray>=2; extra == "ray"', 'tomli>=2; python_version < "3"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert [str(need) for need in doctor.requirements()] == ["torch>=2.6"]
