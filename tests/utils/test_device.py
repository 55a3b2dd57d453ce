"""Devices as users have them, pretended: a driver too old, a P100, a T4, an A100, fewer GPUs than processes; no git."""

import logging
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from utils import device as module
from utils.device import (
    autocast,
    choose_device,
    choose_precision,
    environment,
    is_out_of_memory,
    memory_to_spare,
)
from utils.errors import UserError

PYPI = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]  # torch 2.11 for CUDA 13.0


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """A machine with `count` GPUs of that capability, and a build of torch with those kernels."""
    monkeypatch.setattr(module, "DRIVER", tmp_path / "no driver")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(capability=(7, 5), kernels=PYPI, count=1, available=True, name="Tesla T4"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(kernels))
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)

    make.driver = tmp_path / "no driver"
    return make


def install_driver(path):
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n")


@pytest.mark.parametrize(
    ("capability", "kernels", "works"),
    [
        ((7, 5), PYPI, True),
        ((8, 9), PYPI, True),  # binaries of 8.6 run there
        ((6, 0), PYPI, False),
        ((7, 0), PYPI, False),  # not those of 7.5
        ((9, 0), ["sm_75", "sm_80"], False),
        ((9, 0), ["sm_75", "compute_80"], True),  # compiled for it when it is loaded
        ((6, 0), ["sm_60", "sm_75"], True),
        ((10, 3), ["sm_100"], True),
        ((9, 0), ["sm_90a"], True),
    ],
)
def test_kernels_for_a_gpu(pretend, capability, kernels, works):
    pretend(capability, kernels)
    if works:
        assert choose_device("auto") == torch.device("cuda", 0)
        return
    for name in ("auto", "cuda"):
        with pytest.raises(UserError, match="so it cannot compute there") as error:
            choose_device(name)
        for words in (f"sm_{capability[0]}{capability[1]}", kernels[0], "pip install", "training.device=cpu"):
            assert words in str(error.value)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "words"),
    [("13.0", ("550.54.15", "13.0", "update the driver")), (None, ("550.54.15", "has no CUDA", "pip install"))],
    ids=["driver too old", "build without CUDA"],
)
def test_never_silently_the_cpu(pretend, monkeypatch, caplog, cuda, words):
    pretend(available=False)
    install_driver(pretend.driver)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert choose_device("auto") == torch.device("cpu")
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    with pytest.raises(UserError) as error:
        choose_device("cuda")
    for word in words:
        assert word in record.getMessage()
        assert word in str(error.value)


def test_a_machine_without_a_gpu_is_no_warning(pretend, monkeypatch, caplog):
    pretend(available=False)
    assert choose_device("auto") == torch.device("cpu")
    install_driver(pretend.driver)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # somebody wants the CPU
    assert choose_device("auto") == torch.device("cpu")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(UserError, match="this machine has no CUDA device; expected auto or cpu"):
        choose_device("cuda")


def test_more_processes_than_gpus(pretend, monkeypatch):
    pretend(count=2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"found a process for GPU 2, but this machine shows 2 .*--nproc_per_node=2"):
        choose_device("auto")


@pytest.mark.parametrize("name", ["gpu", "cuda:1", ""])
def test_a_device_of_no_kind_is_not_the_cpu(name):
    """As a caller from Python may write it."""
    with pytest.raises(UserError, match=f"device: found {name}, expected auto, cpu, cuda, mps"):
        choose_device(name, "device")


def test_mps_only_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="found mps, but this machine has no such device"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")
    assert choose_device("mps") == torch.device("mps")
    assert choose_precision("auto", torch.device("mps")) == "float32"


@pytest.mark.parametrize(
    ("capability", "auto"),
    [((6, 0), "float32"), ((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")],
)
def test_precision_of_a_gpu(pretend, capability, auto):
    pretend(capability)
    device = torch.device("cuda", 0)
    assert choose_precision("auto", device) == auto
    assert [choose_precision(name, device) for name in ("float32", "fp16")] == ["float32", "fp16"]
    if capability < (8, 0):
        own = f"{capability[0]}{capability[1]}"
        with pytest.raises(UserError, match=rf"found bf16, which Tesla T4 \(sm_{own}\) only emulates"):
            choose_precision("bf16", device)
    else:
        assert choose_precision("bf16", device) == "bf16"


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_autocast_computes_in_the_precision(precision):
    expected = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with autocast(torch.device("cpu"), precision):
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_out_of_memory_in_all_its_forms(error, expected):
    assert is_out_of_memory(error) == expected


@pytest.mark.parametrize(
    ("capabilities", "auto"),
    [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx2": True, "amx_bf16": False}, "float32")],
)
def test_precision_of_a_cpu(monkeypatch, capabilities, auto):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == auto
    for name in ("float32", "bf16", "fp16"):
        assert choose_precision(name, torch.device("cpu")) == name


def test_memory_to_spare_is_half_of_what_a_gpu_and_torch_have_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 16 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 * 10**9)
    assert memory_to_spare(torch.device("cuda", 0)) == 15 * 10**8
    assert memory_to_spare(torch.device("cpu")) == 128 * 2**20


def test_the_environment_of_a_run(pretend, monkeypatch):
    """Versions, device and commit; a machine without git has no commit, and that is said."""
    pretend(name="Tesla T4")
    expected = {"python": platform.python_version(), "torch": torch.__version__, "device": "Tesla T4"}
    described = environment(torch.device("cuda", 0))
    assert {key: described[key] for key in expected} == expected
    processor = environment(torch.device("cpu"))["device"]
    assert processor not in ("", "Tesla T4")
    about = Path("/proc/cpuinfo")
    if about.exists() and "model name" in about.read_text():
        assert f"model name\t: {processor}\n" in about.read_text()

    def git(stdout):
        return lambda command, **_: subprocess.CompletedProcess(command, 0, stdout, "")

    monkeypatch.setattr(subprocess, "run", git("4913ed8-dirty\n"))
    assert environment(torch.device("cpu"))["commit"] == "4913ed8-dirty"
    monkeypatch.setattr(subprocess, "run", git(""))
    assert environment(torch.device("cpu"))["commit"] == "none"

    def missing(command, **_):
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", missing)
    assert environment(torch.device("cpu"))["commit"] == "none"
