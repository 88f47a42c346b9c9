"""A small 2D U-Net trained as nnU-Net trains, for studies of losses and labels that a CPU can afford.

Kept from nnU-Net: its network class, instance norm, leaky ReLU, SGD with Nesterov momentum 0.99 and initial
rate 0.01 (or AdamW, which learns small lesions in far fewer steps), polynomial decay, gradients clipped at
12, Dice summed over the batch as in its 2D plans. Left out: deep supervision, augmentation beyond
mirroring, patches (an image is a patch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

# f(logits, target, progress): progress runs from 0 to 1 over the training
StudyLoss = Callable[[Tensor, Tensor, float], Tensor]
Augmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class NetworkBudget:
    """What every training of a study gets: `iterations` steps with `batch_size` images each."""

    iterations: int = 800
    batch_size: int = 4
    optimizer: Literal["sgd", "adamw"] = "sgd"
    features: int = 8
    stages: int = 4

    def __str__(self) -> str:
        return (
            f"{self.iterations} iterations of {self.optimizer}, batch {self.batch_size}, "
            f"{self.features} features, {self.stages} stages"
        )


def build_network(n_outputs: int, budget: NetworkBudget) -> nn.Module:
    """nnU-Net's plain U-Net with one convolution per stage."""
    return PlainConvUNet(
        1,
        budget.stages,
        [budget.features * 2**stage for stage in range(budget.stages)],
        nn.Conv2d,
        3,
        [1] + [2] * (budget.stages - 1),
        1,
        n_outputs,
        1,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )


def train(
    images: np.ndarray,
    foreground: np.ndarray,
    loss: StudyLoss,
    *,
    seed: int,
    budget: NetworkBudget,
    draw: np.ndarray | None = None,
    mirrors: bool = True,
    augment: Augmentation | None = None,
    watch: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train a network.

    Args:
        images: ``(N, H, W)``, normalised.
        foreground: ``(N, C, H, W)`` probabilities of the foreground classes.
        loss: takes logits and target ``(B, 1 + C, H, W)`` and the progress of the training.
        seed: of the weights, the order of the images and the mirroring; runs that differ in labels or loss
            only see the same images in the same order.
        budget: see `NetworkBudget`.
        draw: ``(N,)`` bool, images with foreground; a third of each batch is drawn from them, as in
            nnU-Net.
        mirrors: whether images are mirrored at random.
        augment: changes a batch of images ``(B, 1, H, W)`` and targets ``(B, 1 + C, H, W)``.
        watch: called after every iteration with its number, from 1, and the network, in evaluation mode.

    Returns:
        The network, ready to predict.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = build_network(1 + foreground.shape[1], budget)
    optimizer, rate = _optimizer(network, budget)
    x = torch.from_numpy(images.astype(np.float32))[:, None]
    q = torch.from_numpy(with_background(foreground))
    with_lesion = np.arange(len(images)) if draw is None or not draw.any() else np.flatnonzero(draw)
    n_forced = 0 if draw is None else round(budget.batch_size / 3)
    for iteration in range(budget.iterations):
        progress = iteration / budget.iterations
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - progress) ** 0.9
        chosen = rng.choice(len(images), budget.batch_size)
        chosen[:n_forced] = rng.choice(with_lesion, n_forced)
        axes = [axis for axis in (2, 3) if mirrors and rng.random() < 0.5]
        batch, target = x[chosen].flip(axes), q[chosen].flip(axes)
        if augment is not None:
            batch, target = augment(batch, target)
        optimizer.zero_grad()
        value = loss(network(batch), target, progress)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        if watch is not None:
            watch(iteration + 1, network.eval())
            network.train()
    return network.eval()


def _optimizer(network: nn.Module, budget: NetworkBudget) -> tuple[torch.optim.Optimizer, float]:
    """The optimizer and its initial rate."""
    if budget.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2), 2e-3
    sgd = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    return sgd, 0.01


@torch.no_grad()
def predict(network: nn.Module, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """Foreground probabilities ``(N, C, H, W)``, float32."""
    x = torch.from_numpy(images.astype(np.float32))[:, None]
    parts = [torch.softmax(network(part), dim=1)[:, 1:] for part in x.split(batch_size)]
    return torch.cat(parts).numpy()


def normalised(image: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 over the image, float32."""
    return ((image - image.mean()) / image.std()).astype(np.float32)


def with_background(foreground: np.ndarray) -> np.ndarray:
    """``(N, C, H, W)`` to ``(N, 1 + C, H, W)`` float32 that sum to 1."""
    soft = foreground.astype(np.float32)
    return np.concatenate([1 - soft.sum(axis=1, keepdims=True), soft], axis=1)
