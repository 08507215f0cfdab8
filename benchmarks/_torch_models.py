"""The models of `benchmarks.training` and `.reference_gpt` in PyTorch, written by hand: for comparison only.

PyTorch is no dependency of the project; without it the benchmark leaves this column out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def _mlp() -> nn.Module:
    sizes = (784, 512, 256)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


def _cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(7 * 7 * 32, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


class _Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.second = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.one, self.two = nn.BatchNorm2d(features), nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.one(self.first(x)))
        return functional.relu(self.two(self.second(y)) + x)


def _resnet() -> nn.Module:
    layers: list[nn.Module] = []
    before = 1
    for stage, features in enumerate((16, 32)):
        stride = 2 if stage else 1
        layers += [nn.Conv2d(before, features, 3, stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(features), nn.ReLU(), _Block(features)]
        before = features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


class _Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x)[0][:, -1])  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward, self.outward = nn.Linear(features, 3 * features), nn.Linear(features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, length, features = x.shape
        split = self.inward(x).view(count, length, 3, self.heads, features // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.outward(seen.transpose(1, 2).reshape(count, length, features))  # type: ignore[no-any-return]


class _Gpt(nn.Module):
    def __init__(self, vocabulary: int, length: int, features: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, features), nn.Embedding(length, features)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.LayerNorm(features),
                    _Attention(features, heads),
                    nn.LayerNorm(features),
                    nn.Sequential(
                        nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features)
                    ),
                ]
            )
            for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(features), nn.Linear(features, vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.tokens(x) + self.places.weight
        for before, attend, between, feed in self.blocks:  # type: ignore[misc]
            x = x + attend(before(x))
            x = x + feed(between(x))
        return self.head(self.norm(x))  # type: ignore[no-any-return]


MODELS: Final[dict[str, Callable[[], nn.Module]]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "lstm": _Lstm,
    "transformer": lambda: _Gpt(96, 64, 64, 2, 4),
    "reference_gpt": lambda: _Gpt(65, 256, 384, 6, 6),
}


def trainer(family: str, x: np.ndarray, y: np.ndarray, batch_size: int) -> Callable[[int], None]:
    """Runs so many steps: AdamW with clipped gradients, batches drawn from tensors that stay in memory.

    On a GPU the model is compiled, and computes in bfloat16 with float32 masters.
    """
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MODELS[family]().to(device)
    compute: Any = model
    if device == "cuda":
        compute = torch.compile(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)
    samples, targets = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    image = x.dtype == np.uint8
    if image:
        samples = samples.permute(0, 3, 1, 2).contiguous()
    loss_of: Any = functional.mse_loss if y.dtype == np.float32 else functional.cross_entropy
    if y.dtype != np.float32:
        targets = targets.long()

    def run(steps: int) -> None:
        for _ in range(steps):
            drawn = torch.randint(0, len(samples), (batch_size,), device=device)
            batch = samples[drawn].float() / 255 if image else samples[drawn]
            if batch.dtype == torch.int32:
                batch = batch.long()
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                outputs = compute(batch)
            if outputs.ndim == 3:
                outputs = outputs.transpose(1, 2)
            loss = loss_of(outputs.float(), targets[drawn])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run
