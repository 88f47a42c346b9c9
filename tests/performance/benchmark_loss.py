"""Time and memory of the default loss against nnU-Net's, side by side in one run.

``python tests/performance/benchmark_loss.py [--device cuda] [--out file.csv]``

Time is that of forward and backward: the losses take turns, the median counts. Memory is what they need on
top of logits and target: on the CPU the peak of a fresh process each, on a GPU PyTorch's own count.
``x traffic`` is the time over that of reading logits and target and writing the gradient once at the
bandwidth of a copy.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses import (
    CompactTargetLoss,
    FusedSoftLoss,
    TermWeights,
    WeightedSum,
    cross_entropy,
    dice_semimetric_loss,
    normalized_kl_divergence,
    total_variation,
)

STOCK = "nnU-Net Dice + CE"
DEFAULT, FUSED = "FusedSoftLoss, DML + CE", "FusedSoftLoss, DML + CE + NKL + TV"
UNFUSED = "the latter, not fused"
START, FULL_START = "balanced start, DML + CE", "balanced start, DML + CE + NKL + TV"
LOSSES = (STOCK, DEFAULT, FUSED, UNFUSED, START, FULL_START)
MIB = 2**20


def build(name: str, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of that name; nnU-Net's as its trainer builds it, its Dice compiled on a GPU."""
    if name == DEFAULT:
        return FusedSoftLoss(TermWeights(nkl=0.0, tv=0.0))
    if name == FUSED:
        return FusedSoftLoss()
    if name == START:
        return FusedSoftLoss(TermWeights(nkl=0.0, tv=0.0), balanced=True)
    if name == FULL_START:
        return FusedSoftLoss(balanced=True)
    if name == UNFUSED:
        terms = (dice_semimetric_loss, cross_entropy, normalized_kl_divergence, total_variation)
        return CompactTargetLoss(WeightedSum(*((1.0, term) for term in terms)))
    settings = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(settings, {}, dice_class=MemoryEfficientSoftDiceLoss)
    if device == "cuda":
        loss.dc = torch.compile(loss.dc)
    return loss


def make_inputs(
    name: str, channels: int, size: int, device: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Random logits, and a random target that is soft everywhere (hard for nnU-Net's loss)."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, channels, size, size, size)
    logits = torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()
    if name == STOCK:
        hard = torch.randint(channels, (2, 1, *shape[2:]), generator=generator, dtype=torch.int16)
        return logits, hard.to(device)
    foreground = torch.rand((2, channels - 1, *shape[2:]), generator=generator) / (channels - 1)
    return logits, (foreground * SCALE).to(torch.int16).to(device)


def step(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor) -> None:
    """One forward and backward pass, as in a training step."""
    logits.grad = None
    with torch.autocast(logits.device.type, enabled=logits.dtype == torch.float16):
        value = loss(logits, target)
    value.backward()


def seconds(call: Callable[[], object], device: str) -> float:
    """Duration of one call, the device's queue emptied before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_losses(arguments: argparse.Namespace, channels: int) -> dict[str, float]:
    """Median seconds of every loss, the losses taking turns."""
    calls: dict[str, Callable[[], None]] = {}
    for name in LOSSES:
        logits, target = make_inputs(name, channels, arguments.size, arguments.device, arguments.dtype)
        calls[name] = partial(step, build(name, arguments.device), logits, target)
        calls[name]()
        calls[name]()
    durations: dict[str, list[float]] = {name: [] for name in LOSSES}
    for _ in range(arguments.repeats):
        for name, call in calls.items():
            durations[name].append(seconds(call, arguments.device))
    return {name: statistics.median(values) for name, values in durations.items()}


def peak_memory_cuda(name: str, channels: int, size: int, dtype: torch.dtype) -> float:
    """Bytes allocated at the peak of a step beyond what is there before it."""
    logits, target = make_inputs(name, channels, size, "cuda", dtype)
    loss = build(name, "cuda")
    step(loss, logits, target)
    logits.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(loss, logits, target)
    return torch.cuda.max_memory_allocated() - before


def status_bytes(field: str) -> int:
    """A memory field of this process, such as VmRSS (now) or VmHWM (peak), as Linux reports it."""
    line = next(
        x for x in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if x.startswith(field)
    )
    return int(line.split()[1]) * 1024


def print_peak_memory_cpu(name: str, channels: int, size: int) -> None:
    """What the child process prints: bytes at the peak of a first step beyond what is there before it."""
    step(build(name, "cpu"), *make_inputs(name, channels, 8, "cpu", torch.float32))  # load the code
    logits, target = make_inputs(name, channels, size, "cpu", torch.float32)
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    step(build(name, "cpu"), logits, target)
    print(status_bytes("VmHWM") - before)


def peak_memory(arguments: argparse.Namespace, name: str, channels: int) -> float:
    """Bytes at the peak of a step beyond logits and target."""
    if arguments.device == "cuda":
        return peak_memory_cuda(name, channels, arguments.size, arguments.dtype)
    command = [sys.executable, __file__, "--size", str(arguments.size), "--memory-of", name, str(channels)]
    return float(subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout)


def copy_bandwidth(device: str) -> float:
    """Bytes read and written per second by a large copy."""
    source = torch.empty(2**28, device=device).fill_(1.0)
    destination = torch.empty_like(source).fill_(0.0)
    times = [seconds(lambda: destination.copy_(source), device) for _ in range(9)]
    return 2 * source.nbytes / statistics.median(times)


def traffic(channels: int, size: int, dtype: torch.dtype) -> int:
    """Bytes of logits and their gradient and of an int16 target."""
    voxels = 2 * size**3
    return voxels * (2 * channels * dtype.itemsize + 2 * (channels - 1))


def measure(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row per loss and number of channels."""
    bandwidth = copy_bandwidth(arguments.device) if arguments.device == "cuda" else None
    rows: list[dict[str, object]] = []
    for channels in arguments.channels:
        times = time_losses(arguments, channels)
        memory = {name: peak_memory(arguments, name, channels) for name in LOSSES}
        for name in LOSSES:
            row = {
                "channels": channels,
                "loss": name,
                "ms": f"{1000 * times[name]:.2f}",
                "time ratio": f"{times[name] / times[STOCK]:.2f}",
                "peak MiB": f"{memory[name] / MIB:.0f}",
                "memory ratio": f"{memory[name] / memory[STOCK]:.2f}",
            }
            if bandwidth:
                ideal = traffic(channels, arguments.size, arguments.dtype) / bandwidth
                row["x traffic"] = f"{times[name] / ideal:.2f}"
            rows.append(row)
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--channels", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--size", type=int, default=128, help="Edge of the patch; the batch is 2.")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="Of the logits.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="Of PyTorch on the CPU.")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="CSV file for the rows.")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.dtype = getattr(torch, arguments.dtype)
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        name, channels = arguments.memory_of
        print_peak_memory_cpu(name, int(channels), arguments.size)
        return
    rows = measure(arguments)
    on_gpu = arguments.device == "cuda"
    machine = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    shape = f"(2, C, {arguments.size}, {arguments.size}, {arguments.size})"
    print(f"{machine}, torch {torch.__version__}, {shape}, {arguments.dtype}\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    if arguments.out:
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
