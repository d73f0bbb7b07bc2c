"""A trained network for other programs: safetensors, ONNX, torch.export, torchvision's ResNet.

Normalisation is inside, so what is exported takes uint8 images as they come from a file and gives logits.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastresnet.base import files
from fastresnet.inference.trained import Trained

LAYOUTS = ("nhwc", "nchw")
OPSET = 18


class WithNormalisation(nn.Module):
    """uint8 images (N, H, W, 3) or (N, 3, H, W) -> logits (N, K), fp32."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: Trained, layout: str = "nhwc") -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"the layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        self.model, self.channels_last = copy.deepcopy(network.model), layout == "nhwc"
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", 255 * torch.tensor(network.mean).view(shape))
        self.register_buffer("scale", 1 / (255 * torch.tensor(network.std).view(shape)))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2) if self.channels_last else images
        return self.model((pixels.to(torch.float32) - self.mean) * self.scale)


def ready(network: Trained, layout: str = "nhwc") -> tuple[WithNormalisation, Tensor]:
    """The module in evaluation mode on the CPU, with ordinary strides, and a batch of two images for it."""
    module = WithNormalisation(network, layout).cpu().eval().to(memory_format=torch.contiguous_format)
    size = network.image_size
    shape = (2, size, size, 3) if layout == "nhwc" else (2, 3, size, size)
    return module, torch.zeros(shape, dtype=torch.uint8)


def to_safetensors(network: Trained, path: Path) -> Path:
    """The weights alone; class names, normalisation and settings stand in the file's metadata as JSON."""
    from safetensors.torch import save_file

    facts = {
        "class_names": list(network.class_names),
        "mean": list(network.mean),
        "std": list(network.std),
        "image_size": network.image_size,
        "model": network.cfg.to_dict()["model"],
    }
    weights = {key: value.cpu().contiguous().clone() for key, value in network.model.state_dict().items()}
    with files.replacing(path) as temporary:
        save_file(weights, temporary, metadata={"format": "pt", "fastresnet": json.dumps(facts)})
    return path


def to_torch_export(network: Trained, path: Path, layout: str = "nhwc") -> Path:
    """A program of torch.export (.pt2) for any batch size; `torch.export.load(path).module()` runs it."""
    module, example = ready(network, layout)
    batch = torch.export.Dim("batch", min=1, max=65536)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file)
    return path


def to_onnx(network: Trained, path: Path, layout: str = "nhwc") -> Path:
    """An ONNX model for any batch size: input "images" (uint8), output "logits" (fp32)."""
    module, example = ready(network, layout)
    batch = torch.export.Dim("batch", min=1, max=65536)
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        opset_version=OPSET,
        dynamic_shapes=({0: batch},),
        verbose=False,
    )
    assert program is not None
    with files.replacing(path) as temporary:
        program.save(str(temporary))
    return path


def to_torchvision(network: Trained, path: Path) -> Path:
    """The state dict under torchvision's names. Raises ValueError where torchvision has no such network."""
    model_of_torchvision(network)
    with files.replacing(path) as temporary:
        torch.save({key: value.cpu() for key, value in network.model.state_dict().items()}, temporary)
    return path


def model_of_torchvision(network: Trained) -> nn.Module:
    """torchvision's ResNet with this network's weights, and our first layers where the stem is CIFAR's."""
    import torchvision

    settings = network.cfg.model
    name = f"resnet{settings.depth}"
    if settings.members > 1:
        raise ValueError(f"torchvision has no ensembles, and this one has {settings.members} members")
    if settings.arch != "resnet" or not hasattr(torchvision.models, name):
        raise ValueError(
            f"torchvision has no network like model.arch={settings.arch}, model.depth={settings.depth}: "
            "its ResNets are 18, 34, 50, 101 and 152"
        )
    other = getattr(torchvision.models, name)(num_classes=len(network.class_names))
    own = network.model.state_dict()
    if own["conv1.weight"].shape[-1] == 3:
        other.conv1 = nn.Conv2d(3, own["conv1.weight"].shape[0], 3, 1, 1, bias=False)
        other.maxpool = nn.Identity()
    theirs = other.state_dict()
    unlike = [
        key
        for key in {**own, **theirs}
        if key not in own or key not in theirs or own[key].shape != theirs[key].shape
    ]
    if unlike:
        raise ValueError(
            f"this network differs from torchvision's {name} in {', '.join(sorted(unlike)[:3])}: only the "
            "published depths at width 1 match"
        )
    other.load_state_dict(own)
    return other.eval()


def largest_difference(
    network: Trained, path: Path, images_NHWC: np.ndarray, layout: str = "nhwc"
) -> dict[str, Any]:
    """How far an exported file (.onnx by onnxruntime, .pt2 by torch) is from the network.

    On uint8 images (N,H,W,3): the largest difference of a logit, the largest logit, the images whose class
    changed.
    """
    batch = np.ascontiguousarray(images_NHWC if layout == "nhwc" else images_NHWC.transpose(0, 3, 1, 2))
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        theirs = session.run(None, {"images": batch})[0]
    else:
        with torch.inference_mode():
            theirs = torch.export.load(path).module()(torch.from_numpy(batch)).numpy()
    ours = network.exact().logits(images_NHWC)
    return {
        "images": len(images_NHWC),
        "largest_difference": float(np.abs(theirs - ours).max()),
        "largest_logit": float(np.abs(ours).max()),
        "changed_classes": int((theirs.argmax(axis=1) != ours.argmax(axis=1)).sum()),
    }
