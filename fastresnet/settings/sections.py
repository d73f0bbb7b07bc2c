"""Every setting of a run: type, default, meaning, unit, range. Adding one is adding a line.

Refuses to read, to check and to act: `reading` and `overrides`, `rule` and `conflicts`, and others do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastresnet.base import parts
from fastresnet.settings.declarations import Setting, declare, setting

# A table: name and type in one line, default and meaning in the next where it is long, then the rest.
# fmt: off


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the images come from and how they reach the device."""

    source: str = setting(
        "auto", "where images come from; auto: betons, FASTRESNET_DATA, data/, download; or module:SOURCE",
        choices="auto " + parts.names(parts.SOURCES), pattern="auto|" + parts.pattern(parts.SOURCES))
    root: str | None = setting(None, "folder that the source reads (null: the source's usual place)")
    name: Literal["cifar10", "cifar100", "svhn", "stl10"] = setting(
        "cifar10", "which data set, for torchvision and batches")
    train: str | None = setting(None, "training beton (null: <data.betons>/<name>/train.beton)")
    test: str | None = setting(None, "test beton (null: <data.betons>/<name>/test.beton)")
    label_field: str | None = setting(
        None, "integer field of a beton that holds the labels (null: the one called label, or the only one)")
    betons: str = setting("data/betons", "folder where converted betons are kept")
    loader: Literal["auto", "resident", "ffcv", "torchvision"] = setting(
        "auto", "who makes the batches; auto: resident where the set fits on the device")
    subset: float | None = setting(
        None, "part of the training set, stratified and seeded: a count, or a share below 1",
        above=0, unit="images or share")
    test_fraction: float = setting(
        0.2, "share of each class that is the test set, where a folder of classes has none of its own",
        above=0, high=0.9, unit="share")
    val_fraction: float = setting(
        0.0, "share of the training set held out for validation", low=0, high=0.9, unit="share")
    allow_synthetic: bool = setting(False, "when no data is found, draw a synthetic set instead of stopping")
    synthetic_train: int = setting(10000, "synthetic training images", low=10, unit="images")
    synthetic_test: int = setting(2000, "synthetic test images", low=10, unit="images")
    synthetic_size: int = setting(32, "height and width of synthetic images", low=8, high=512, unit="px")
    write_mode: Literal["raw", "jpg", "proportion", "smart"] = setting("raw", "how betons store images")
    jpeg_quality: int = setting(90, "quality of JPEGs in betons", low=1, high=100)
    workers: int = setting(
        0, "threads that read, write and decode (0: one a core)", low=0, high=1024, unit="threads")
    on_error: Literal["raise", "skip"] = setting("raise", "what an unreadable image does")
    order: Literal["random", "quasi_random", "sequential"] = setting(
        "random", "order of samples when streaming")
    kernel: Literal["auto", "triton", "compiled", "fused", "rows", "reference"] = setting(
        "auto", "what augments; auto: triton on a GPU, fused on a CPU with numba, else rows")
    image_size: int = setting(
        0, "height and width of batches (0: as stored; else crop for images of several sizes)",
        low=0, high=4096, unit="px")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network."""

    arch: str = setting(
        "resnet", "family; resnet9: DAWNBench's, resnet9_ffcv: FFCV's; or your own, module:function",
        choices=parts.names(parts.MODELS), pattern=parts.pattern(parts.MODELS))
    depth: int = setting(
        18, "layers: 18 34 50 101 152 (ImageNet family) or 20 32 44 56 110 (CIFAR family)",
        low=1, unit="layers")
    members: int = setting(1, "so many of them learn side by side, and their mean answers", low=1, high=100)
    width: float = setting(
        1.0, "multiplier of all channel counts (rounded to a multiple of 8)", above=0, high=64)
    stem: Literal["auto", "cifar", "imagenet"] = setting("auto", "first layers; auto: by image size")
    block: Literal["auto", "basic", "bottleneck", "preactivation", "preactivation_bottleneck"] = setting(
        "auto", "residual block; auto: by depth")
    shortcut: Literal["auto", "projection", "padding"] = setting(
        "auto", "where a block changes the shape; projection: 1x1 convolution, padding: subsample and add "
        "zero channels; auto: padding in the CIFAR family as published, else projection")
    stage_blocks: list[int] | None = setting(
        None, "blocks in each stage (null: by depth)", low=1, high=1000, unit="blocks")
    stage_widths: list[int] | None = setting(
        None, "channels of each stage (null: by family)", low=1, high=10**5, unit="channels")
    convs_per_block: int = setting(2, "3x3 convolutions in a basic or speednet block", low=1, high=8)
    zero_init_last_norm: bool = setting(True, "start each residual branch at zero")
    activation: Literal["relu", "gelu", "silu"] = setting("relu", "nonlinearity")
    whiten_activation: Literal["relu", "gelu", "silu"] | None = setting(
        None, "speednet: nonlinearity after the whitening (null: model.activation)")
    pretrained: str | None = setting(
        None, "weights to start from, where shapes allow: a state dict, a checkpoint or a run's folder")
    freeze: list[str] = setting(
        [], "parts that don't learn, by their names (layer1, fc); trunk: all but the last block",
        pattern=r"\w+(\.\w+)*")
    whiten: bool = setting(True, "speednet: frozen 2x2 whitening convolution first")
    whiten_channels: int = setting(
        24, "speednet: channels that the whitening gives; those beyond 24 are zeros and change speed alone",
        low=24, high=512, unit="channels")
    residual: bool = setting(False, "speednet: residual connection in each group")
    head_scale: float | None = setting(
        None, "factor of the logits (null: speednet 1/9, resnet9 1/8, resnet9_ffcv 1/5)", above=0)
    head_std: float | None = setting(
        None, "speednet: standard deviation of the head's initial weights (null: PyTorch's)", above=0)
    norm_momentum: float = setting(
        0.4, "speednet: weight of the new batch in the running statistics (PyTorch's momentum)",
        low=0, high=1)
    dirac_init: bool = setting(
        True, "speednet: convolutions start as the identity on their first input channels")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """The optimizer."""

    name: str = setting(
        "sgd", "optimizer; muon: Muon on filters, SGD on the rest; or your own, module:function",
        choices=parts.names(parts.OPTIMIZERS), pattern=parts.pattern(parts.OPTIMIZERS))
    lr: float = setting(0.1, "peak learning rate", above=0, unit="per step")
    lr_scaling: Literal["none", "linear", "sqrt"] = setting(
        "none", "how all peak rates grow with train.batch_size over optim.lr_base_batch; linear: SGD's rule, "
        "sqrt: Adam's and Muon's")
    lr_base_batch: int | None = setting(
        None, "batch that the peak rates were chosen for, where optim.lr_scaling scales them",
        low=1, unit="images")
    momentum: float = setting(0.9, "momentum of SGD and Muon", low=0, high=0.9999)
    nesterov: bool = setting(True, "Nesterov momentum")
    beta1: float = setting(0.9, "Adam: decay of the mean gradient", low=0, high=0.9999)
    beta2: float = setting(0.999, "Adam: decay of the mean square", low=0, high=0.999999)
    eps: float = setting(1e-8, "Adam: added to the root mean square", above=0)
    weight_decay: float = setting(
        5e-4, "share of a weight lost in a step, times the learning rate (muon: times the schedule's factor)",
        low=0, unit="per step")
    decoupled: bool = setting(False, "SGD: shrink the weights directly instead of through the gradient")
    decay_norms_and_biases: bool = setting(False, "apply weight decay to norms and biases too")
    layer_decay: float = setting(
        1.0, "learning rate of each block as a share of that of the block after it",
        above=0, high=1, unit="share")
    lr_bias: float | None = setting(
        None, "peak learning rate of biases and norms (null: optim.lr)", above=0, unit="per step")
    lr_head: float | None = setting(
        None, "peak learning rate of the last layer (null: optim.lr)", above=0, unit="per step")
    bias_momentum: float = setting(
        0.85, "muon: momentum of its SGD side (biases, norms, head)", low=0, high=0.9999)
    muon_steps: int = setting(3, "muon: Newton-Schulz iterations", low=1, high=20)
    renormalize_every: int = setting(
        1, "muon: renormalise filters every so many steps (0: never)", low=0, unit="steps")
    renormalize_slower: float = setting(
        0.0, "muon: so many steps more between renormalisations at the run's end", low=0, unit="steps")
    newton_schulz: list[float] = setting(
        [3.4445, -4.7750, 2.0315], "muon: a, b, c of its iteration x -> a x + b x³ + c x⁵")
    filter_decay: float | None = setting(
        None, "muon: share of a filter lost in a step at the peak (null: optim.weight_decay, or none where "
        "filters are renormalised)", low=0, high=1, unit="per step")
    lookahead: int = setting(
        0, "Lookahead: steps between updates of the slow weights (0: off)", low=0, unit="steps")
    lookahead_alpha: float = setting(0.5, "Lookahead: how far the slow weights move", above=0, high=1)
    lookahead_ramp: bool = setting(
        False, "Lookahead: alpha falls from 1 with the cube of the share of the run done")
    lookahead_after: float = setting(
        0.0, "Lookahead: share of the run after which it begins", low=0, high=1, unit="share")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over the run."""

    name: str = setting(
        "onecycle", "shape; or your own, module:function",
        choices=parts.names(parts.SCHEDULES), pattern=parts.pattern(parts.SCHEDULES))
    warmup_fraction: float = setting(
        0.2, "share of the run spent rising to the peak",
        low=0, high=1, unit="share", hint="a share of the run, not epochs")
    initial_factor: float = setting(
        0.04, "first learning rate as a share of the peak", low=0, high=1, unit="share")
    final_factor: float = setting(
        0.0, "last learning rate as a share of the peak", low=0, high=1, unit="share")
    floor_factor: float = setting(
        0.0, "after the peak the learning rate stays above this share of it", low=0, high=1, unit="share")
    tail_fraction: float = setting(
        0.0, "share of the run after the schedule's end, at its last rate", low=0, high=0.9, unit="share")
    momentum_low: float | None = setting(
        None, "momentum at the peak learning rate (null: constant momentum)", low=0, high=0.9999)
    momentum_high: float | None = setting(
        None, "momentum at both ends (null: constant momentum)", low=0, high=0.9999)
    points: list[list[float]] | None = setting(
        None, "piecewise: [[epoch, factor], ...], straight lines between", low=0)
    anneal: Literal["cos", "linear"] = setting("cos", "onecycle: how the learning rate rises and falls")


@dataclass(frozen=True, kw_only=True)
class Train:
    """The training loop and its augmentation."""

    epochs: float = setting(
        16.0, "passes over the training set, fractions allowed", above=0, high=100000, unit="epochs")
    max_steps: int = setting(0, "stop after so many steps (0: no limit)", low=0, unit="steps")
    batch_size: int = setting(
        512, "images a step", low=1, high=10**6, unit="images",
        hint="train.accumulate=0 finds parts that fit")
    precision: Literal["auto", "fp32", "tf32", "fp16", "bf16"] = setting(
        "auto", "number format of the arithmetic; auto: what the device is fast at")
    compile: Literal[
        "auto", "off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"
    ] = setting("off", "torch.compile mode; auto: default on a GPU, off on a CPU")
    cpu_kernels: Literal["auto", "on", "exact", "off"] = setting(
        "auto", "ours where a network learns on a CPU; auto: where they fit; exact: no Winograd")
    cuda_graph: bool = setting(False, "capture the whole step in a CUDA graph")
    channels_last: bool = setting(True, "NHWC memory format")
    label_smoothing: float = setting(
        0.0, "share of each label spread over all classes", low=0, high=0.9999, unit="share")
    loss_reduction: Literal["mean", "sum"] = setting("mean", "loss of a batch")
    clip_norm: float = setting(0.0, "largest gradient norm (0: no clipping)", low=0)
    sync_batch_norm: bool = setting(
        False, "batch norm over the images of all processes instead of each one's own")
    accumulate: int = setting(
        1, "micro-batches that a batch is cut into; one optimizer step a batch (0: as few as fit in memory)",
        low=0, unit="parts", hint="0 finds how many fit")
    ema_decay: float = setting(
        0.0, "moving average of the weights: decay a step (0: off)", low=0, high=0.99999, unit="per step")
    average_tail: float = setting(
        0.0, "share of the last steps whose weights are averaged (0: off)", low=0, high=1, unit="share")
    drop_last: bool = setting(True, "leave out the last, smaller batch of an epoch")
    crop_padding_px: int = setting(
        4, "random crop: padding on each side (0: no crop)", low=0, high=512, unit="px")
    crop_mode: Literal["reflect", "zero", "mean"] = setting("reflect", "what the padding holds")
    flip: Literal["none", "random", "alternating"] = setting(
        "random", "mirroring; alternating: at random once, then the other way each time one is shown")
    cutout_px: int = setting(0, "side of the square that cutout erases (0: off)", low=0, high=512, unit="px")
    brightness: float = setting(0.0, "brightness jitter, plus or minus", low=0, high=1, unit="share")
    contrast: float = setting(0.0, "contrast jitter, plus or minus", low=0, high=1, unit="share")
    extras: list[str] = setting(
        [], "further augmentations, each with the share of images that get it",
        pattern=r"[a-z_]+ (0?\.\d+|[01](\.0*)?)", hint="erasing 0.25 is one, say")
    resolutions: list[list[float]] | None = setting(
        None, "lower resolution first: [[until share of the run, px], ...]", above=0)
    freeze_epochs: float | None = setting(
        None, "epochs for which model.freeze holds (null: the whole run)", above=0, unit="epochs")
    freeze_late: list[str] = setting(
        [], "parts that stop learning, each with the share of the run from which",
        pattern=r"[\w.]+ (0?\.\d+|[01](\.0*)?)", hint="groups.0 0.75 is one, say")
    freeze_whiten_after: float = setting(
        3.0, "speednet: the whitening bias is trained only before this epoch", low=0, unit="epochs")
    epoch_share: float = setting(
        1.0, "share of the images an epoch shows: unseen, then hardest", above=0, high=1, unit="share")
    hard_fraction: float = setting(
        1.0, "hardest share of each batch that is trained on", above=0, high=1, unit="share")
    proxy_width: float = setting(
        0.0, "width multiplier of the net that picks the hard share (0: the model itself)", low=0, high=64)
    proxy_every: int = setting(1, "that net learns once in so many steps", low=1, high=10**6, unit="steps")
    checkpoint_every: str = setting(
        "60s", "last.pt inside epochs too", pattern=r"off|\d+ ?(s|steps)", hint="60s, 500 steps or off")


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measuring accuracy."""

    batch_size: int = setting(1000, "images a step", low=1, high=10**6, unit="images")
    tta: Literal["none", "flip", "crops"] = setting(
        "none", "test-time augmentation; crops: flip and two one-pixel shifts")
    tta_share: float = setting(
        1.0, "least confident share of the images that gets it", low=0, high=1, unit="share")
    every: int = setting(1, "evaluate every so many epochs (0: only at the end)", low=0, unit="epochs")
    best_on: Literal["validation", "test", "none"] = setting(
        "validation", "what chooses best.pt (validation needs data.val_fraction, else the last weights)")
    target: float | None = setting(
        None, "accuracy that the recipe is meant to reach on the test set", above=0, high=1, unit="share")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The run itself."""

    seed: int = setting(0, "seed of every random choice", low=0, high=2**31 - 1)
    device: str = setting(
        "auto", "where to train; auto: a GPU where there is one",
        choices="auto cpu cuda cuda:1 mps", pattern=r"auto|cpu|cuda(:\d+)?|mps")
    dir: str | None = setting(None, "the run's folder (null: runs/<recipe>/<time>-s<seed>)")
    resume: str | None = setting(
        None, "checkpoint, or folder of a run, to continue; auto: what run.dir holds, if anything")
    loggers: list[str] = setting(
        [], "besides metrics.jsonl and metrics.csv; or your own, module:class",
        choices=parts.names(parts.LOGGERS), pattern=parts.pattern(parts.LOGGERS))
    deterministic: bool = setting(False, "only algorithms that repeat bit for bit, slower on a GPU")
    hang_after: int | None = setting(
        None, "end with stack traces where nothing is done for so long (0: never; null: 100 times the "
        "longest step, at least 600 s)", low=0, unit="s")
    threads: int = setting(0, "CPU threads of PyTorch (0: one a core)", low=0, high=4096, unit="threads")
    save_checkpoints: bool = setting(True, "write checkpoints/last.pt and best.pt")
    report: bool = setting(True, "write plots and report.html")
    progress: Literal["auto", "plain", "off"] = setting("auto", "auto: live on a terminal, else plain lines")


# fmt: on
CLASSES: dict[str, type] = {
    one.__name__.lower(): one for one in (Data, Model, Optim, Schedule, Train, Eval, Run)
}
SECTIONS = {name: (section.__doc__ or "").rstrip(".") for name, section in CLASSES.items()}
SETTINGS: dict[str, Setting] = {
    key: one for name, section in CLASSES.items() for key, one in declare(name, section).items()
}
