"""The augmentation once more, one image at a time in float64: what the kernels are held against."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastresnet.augment import Choices

MEAN, STD = (0.49, 0.48, 0.44), (0.247, 0.243, 0.261)


def augment(images: Tensor, indices: Tensor, choices: Choices, size: tuple[int, int] | None = None) -> Tensor:
    """Finished images (B,3,h,w) in float64."""
    done = [one_image(images[int(i)].numpy(), choices, row) for row, i in enumerate(indices)]
    out = torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2)
    if size is not None and size != tuple(images.shape[1:3]):
        out = F.interpolate(out, size=size, mode="bilinear", align_corners=False)
    return out


def one_image(stored: np.ndarray, choices: Choices, row: int) -> np.ndarray:
    """(H,W,3) uint8 to (H,W,3) float64, in the order that the documentation gives."""
    spec, (height, width) = choices.spec, stored.shape[:2]
    pixels, erased = stored.astype(np.float64), np.zeros((height, width), dtype=bool)
    if choices.dy is not None and choices.dx is not None:
        pad, y, x = spec.crop_padding_px, int(choices.dy[row]), int(choices.dx[row])
        mode = {"mode": "reflect"} if spec.crop_mode == "reflect" else {"mode": "constant"}
        pixels = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), **mode)[y : y + height, x : x + width]
        if spec.crop_mode == "mean":
            erased = np.pad(erased, pad, constant_values=True)[y : y + height, x : x + width]
    if choices.flip is not None and bool(choices.flip[row]):
        pixels, erased = pixels[:, ::-1], erased[:, ::-1]
    gain = 1.0 if choices.contrast is None else 1.0 + float(choices.contrast[row])
    shift = 0.0 if choices.brightness is None else float(choices.brightness[row])
    out = ((pixels / 255 - MEAN) * gain + shift) / STD
    if choices.cut_y is not None and choices.cut_x is not None:
        side = spec.cutout_px
        top, left = (int(centre[row]) - side // 2 for centre in (choices.cut_y, choices.cut_x))
        erased = erased.copy()
        erased[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
    return np.where(erased[..., None], 0.0, out)


def assert_within_twice_the_rounding(result: Tensor, reference: Tensor, exact: Tensor) -> None:
    """`result` may be off by twice what the float32 reference is once it is rounded to the same dtype.

    The reference itself, float32, by 16 roundings of numbers as large as the largest: a pixel times a scale,
    an offset, and four of their products where it is downsampled. Otherwise a wrong one would allow anything.
    """
    assert result.shape == exact.shape
    rounding = torch.finfo(torch.float32).eps * (1 + exact.abs().max())
    assert (reference.double() - exact).abs().max() <= 16 * rounding
    allowed = 2 * (reference.to(result.dtype).double() - exact).abs().max()
    assert (result.double() - exact).abs().max() <= allowed
