"""Every setting of a run: its type, default, unit, range, choices and meaning. Reads nothing from outside."""

import math
import reprlib
from typing import Any

from fastargs import Config as Declarations
from fastargs import Param, Section
from fastargs.validation import Checker

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class Rule(Checker):
    """What a value must be: its type (or its items', for a list), range and choices."""

    def __init__(
        self,
        kind: type,
        items: bool,
        optional: bool,
        low: float | None,
        high: float | None,
        choices: tuple[str, ...],
        above: float | None,
        hint: str,
    ) -> None:
        self.kind, self.items, self.optional = kind, items, optional
        self.low, self.high, self.choices, self.above, self.hint = low, high, choices, above, hint

    def check(self, value: Any) -> Any:
        """The value in its proper type; ValueError says in words which rule it breaks and what it is."""
        if value is None and self.optional:
            return None
        if not self.items:
            return self._scalar(value)
        if not isinstance(value, (list, tuple)) or (not value and self.kind is not str):
            raise ValueError(self._complain(value))
        return [
            [self._scalar(x, value) for x in item]
            if isinstance(item, (list, tuple))
            else self._scalar(item, value)
            for item in value
        ]

    def _scalar(self, value: Any, whole: Any = None) -> Any:
        shown = value if whole is None else whole
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not self.kind or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(self._complain(shown))
        if self.choices and value not in self.choices:
            raise ValueError(self._complain(shown))
        if isinstance(value, (int, float)) and (
            (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.above is not None and value <= self.above)
        ):
            raise ValueError(self._complain(shown))
        return value

    def _complain(self, value: Any) -> str:
        shown = (
            str(value).lower().replace("none", "null")
            if value is None or isinstance(value, bool)
            else reprlib.repr(value)
        )
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        right_type = number and not (self.kind is int and isinstance(value, float))
        rule = self.range() if right_type and self.kind in (int, float) and not self.items else ""
        text = f"must {rule}, got {shown}" if rule else f"must be {self.help()}, got {shown}"
        return text + (f" ({self.hint})" if self.hint else "")

    def range(self) -> str:
        """The range in words ("lie between 0 and 1"), or an empty string where there is none."""
        low, high, above = (
            "" if x is None else f"{x:,}" if isinstance(x, int) else f"{x:g}"
            for x in (self.low, self.high, self.above)
        )
        if low and high:
            return f"lie between {low} and {high}"
        if above:
            return f"be above {above}" + (f" and at most {high}" if high else "")
        return f"be at least {low}" if low else f"be at most {high}" if high else ""

    def help(self) -> str:
        """The rule in words, for messages and --help."""
        words = f"one of {', '.join(self.choices)}" if self.choices else KINDS[self.kind]
        if self.items:
            words = "a list of " + {int: "whole numbers", float: "numbers", str: "names"}[self.kind]
            words += f" from {', '.join(self.choices)}" if self.choices else ""
        limits = self.range().removeprefix("be ").replace("lie between", "between")
        return words + (f" {limits}" if limits else "") + (" or null" if self.optional else "")


class Setting(Param):
    """One setting: a fastargs parameter with a strict rule, a unit and a help text."""

    def __init__(
        self,
        kind: type,
        default: Any,
        help: str,
        *,
        unit: str = "",
        choices: str = "",
        items: bool = False,
        low: float | None = None,
        high: float | None = None,
        above: float | None = None,
        hint: str = "",
    ) -> None:
        self.type, self.unit, self.items, self.help = kind, unit, items, help
        self.choices, self.optional = tuple(choices.split()), default is None
        self.rule = Rule(kind, items, self.optional, low, high, self.choices, above, hint)
        super().__init__(self.rule, help, self.rule.check(default))

    def type_name(self) -> str:
        """The type as --help prints it: `int`, `list of float`, `str or null`."""
        return ("list of " if self.items else "") + self.type.__name__ + (" or null" if self.optional else "")


S = Setting
DECLARATIONS = Declarations()  # our own: fastargs' default is shared by the whole process


def _section(name: str, what: str, /, **settings: Setting) -> None:
    Section(name, what, config_descriptor=DECLARATIONS).params(**settings)


_section(
    "data",
    "Where the images come from and how they reach the device",
    source=S(
        str,
        "auto",
        "where images come from; auto: betons, FASTRESNET_DATA, data/, download",
        choices="auto torchvision batches parquet imagefolder synthetic",
    ),
    root=S(str, None, "folder that the source reads (null: the source's usual place)"),
    name=S(
        str, "cifar10", "which data set, for torchvision and batches", choices="cifar10 cifar100 svhn stl10"
    ),
    train=S(str, None, "training beton (null: <data.betons>/<name>/train.beton)"),
    test=S(str, None, "test beton (null: <data.betons>/<name>/test.beton)"),
    betons=S(str, "data/betons", "folder where converted betons are kept"),
    loader=S(
        str,
        "auto",
        "who makes the batches; auto: resident where the set fits on the device",
        choices="auto resident ffcv torchvision",
    ),
    subset=S(
        float,
        None,
        "part of the training set, stratified and seeded: a count, or a share below 1",
        above=0,
        unit="images or share",
    ),
    val_fraction=S(
        float, 0.0, "share of the training set held out for validation", low=0, high=0.9, unit="share"
    ),
    allow_synthetic=S(bool, False, "when no data is found, draw a synthetic set instead of stopping"),
    synthetic_train=S(int, 10000, "synthetic training images", low=10, unit="images"),
    synthetic_test=S(int, 2000, "synthetic test images", low=10, unit="images"),
    synthetic_size=S(int, 32, "height and width of synthetic images", low=8, high=512, unit="px"),
    write_mode=S(str, "raw", "how betons store images", choices="raw jpg proportion smart"),
    jpeg_quality=S(int, 90, "quality of JPEGs in betons", low=1, high=100),
    workers=S(int, 0, "threads that read, write and decode (0: one a core)", low=0, unit="threads"),
    on_error=S(str, "raise", "what an unreadable image does", choices="raise skip"),
    order=S(str, "random", "order of samples when streaming", choices="random quasi_random sequential"),
    kernel=S(
        str,
        "auto",
        "what augments; auto: triton on a GPU, fused on a CPU with numba, else rows",
        choices="auto triton compiled fused rows reference",
    ),
    image_size=S(
        int,
        0,
        "height and width of batches (0: as stored; else crop for images of several sizes)",
        low=0,
        high=4096,
        unit="px",
    ),
)

_section(
    "model",
    "The network",
    arch=S(
        str,
        "resnet",
        "family; resnet9: DAWNBench's, resnet9_ffcv: the one of FFCV's CIFAR example",
        choices="resnet speednet resnet9 resnet9_ffcv",
    ),
    depth=S(
        int,
        18,
        "layers: 18 34 50 101 152 (ImageNet family) or 20 32 44 56 110 (CIFAR family)",
        low=1,
        unit="layers",
    ),
    width=S(float, 1.0, "multiplier of all channel counts (rounded to a multiple of 8)", above=0, high=64),
    stem=S(str, "auto", "first layers; auto: by image size", choices="auto cifar imagenet"),
    block=S(
        str,
        "auto",
        "residual block; auto: by depth",
        choices="auto basic bottleneck preactivation preactivation_bottleneck",
    ),
    shortcut=S(
        str,
        "auto",
        "where a block changes the shape; projection: 1x1 convolution, padding: subsample "
        "and add zero channels; auto: padding in the CIFAR family as published, else projection",
        choices="auto projection padding",
    ),
    stage_blocks=S(int, None, "blocks in each stage (null: by depth)", items=True, low=1, unit="blocks"),
    stage_widths=S(int, None, "channels of each stage (null: by family)", items=True, low=1, unit="channels"),
    convs_per_block=S(int, 2, "3x3 convolutions in a basic or speednet block", low=1, high=8),
    zero_init_last_norm=S(bool, True, "start each residual branch at zero"),
    activation=S(str, "relu", "nonlinearity", choices="relu gelu silu"),
    pretrained=S(str, None, "state dict to start from, where shapes allow (path)"),
    whiten=S(bool, True, "speednet: frozen 2x2 whitening convolution first"),
    residual=S(bool, False, "speednet: residual connection in each group"),
    head_scale=S(
        float, None, "factor of the logits (null: speednet 1/9, resnet9 1/8, resnet9_ffcv 1/5)", above=0
    ),
    head_std=S(
        float, None, "speednet: standard deviation of the head's initial weights (null: PyTorch's)", above=0
    ),
    norm_momentum=S(
        float,
        0.4,
        "speednet: weight of the new batch in the running statistics (PyTorch's momentum)",
        low=0,
        high=1,
    ),
    dirac_init=S(bool, True, "speednet: convolutions start as the identity on their first input channels"),
)

_section(
    "optim",
    "The optimizer",
    name=S(str, "sgd", "optimizer; muon: Muon on filters, SGD on the rest", choices="sgd adam adamw muon"),
    lr=S(float, 0.1, "peak learning rate", above=0, unit="per step"),
    momentum=S(float, 0.9, "momentum of SGD and Muon", low=0, high=0.9999),
    nesterov=S(bool, True, "Nesterov momentum"),
    beta1=S(float, 0.9, "Adam: decay of the mean gradient", low=0, high=0.9999),
    beta2=S(float, 0.999, "Adam: decay of the mean square", low=0, high=0.999999),
    eps=S(float, 1e-8, "Adam: added to the root mean square", above=0),
    weight_decay=S(
        float,
        5e-4,
        "share of a weight lost in a step, times the learning rate (muon: times the schedule's factor)",
        low=0,
        unit="per step",
    ),
    decoupled=S(bool, False, "SGD: shrink the weights directly instead of through the gradient"),
    decay_norms_and_biases=S(bool, False, "apply weight decay to norms and biases too"),
    lr_bias=S(
        float, None, "peak learning rate of biases and norms (null: optim.lr)", above=0, unit="per step"
    ),
    lr_head=S(float, None, "peak learning rate of the last layer (null: optim.lr)", above=0, unit="per step"),
    bias_momentum=S(float, 0.85, "muon: momentum of its SGD side (biases, norms, head)", low=0, high=0.9999),
    muon_steps=S(int, 3, "muon: Newton-Schulz iterations", low=1, high=20),
    renormalize_every=S(
        int, 1, "muon: renormalise filters every so many steps (0: never)", low=0, unit="steps"
    ),
    lookahead=S(int, 0, "Lookahead: steps between updates of the slow weights (0: off)", low=0, unit="steps"),
    lookahead_alpha=S(float, 0.5, "Lookahead: how far the slow weights move", above=0, high=1),
    lookahead_ramp=S(bool, False, "Lookahead: alpha falls from 1 with the cube of the share of the run done"),
)

_section(
    "schedule",
    "The learning rate over the run",
    name=S(str, "onecycle", "shape", choices="onecycle cosine linear piecewise constant"),
    warmup_fraction=S(
        float,
        0.2,
        "share of the run spent rising to the peak",
        low=0,
        high=1,
        unit="share",
        hint="a share of the run, not epochs",
    ),
    initial_factor=S(float, 0.04, "first learning rate as a share of the peak", low=0, high=1, unit="share"),
    final_factor=S(float, 0.0, "last learning rate as a share of the peak", low=0, high=1, unit="share"),
    momentum_low=S(
        float, None, "momentum at the peak learning rate (null: constant momentum)", low=0, high=0.9999
    ),
    momentum_high=S(float, None, "momentum at both ends (null: constant momentum)", low=0, high=0.9999),
    points=S(float, None, "piecewise: [[epoch, factor], ...], straight lines between", items=True, low=0),
    anneal=S(str, "cos", "onecycle: how the learning rate rises and falls", choices="cos linear"),
)

_section(
    "train",
    "The training loop and its augmentation",
    epochs=S(
        float, 16.0, "passes over the training set, fractions allowed", above=0, high=100000, unit="epochs"
    ),
    max_steps=S(int, 0, "stop after so many steps (0: no limit)", low=0, unit="steps"),
    batch_size=S(int, 512, "images a step", low=1, unit="images"),
    precision=S(
        str,
        "auto",
        "number format of the arithmetic; auto: what the device is fast at",
        choices="auto fp32 tf32 fp16 bf16",
    ),
    compile=S(
        str,
        "off",
        "torch.compile mode; auto: default on a GPU, off on a CPU",
        choices="auto off default reduce-overhead max-autotune",
    ),
    cuda_graph=S(bool, False, "capture the whole step in a CUDA graph"),
    channels_last=S(bool, True, "NHWC memory format"),
    label_smoothing=S(
        float, 0.0, "share of each label spread over all classes", low=0, high=0.9999, unit="share"
    ),
    loss_reduction=S(str, "mean", "loss of a batch", choices="mean sum"),
    clip_norm=S(float, 0.0, "largest gradient norm (0: no clipping)", low=0),
    accumulate=S(
        int, 1, "micro-batches that a batch is cut into; one optimizer step a batch", low=1, unit="parts"
    ),
    ema_decay=S(
        float,
        0.0,
        "moving average of the weights: decay a step (0: off)",
        low=0,
        high=0.99999,
        unit="per step",
    ),
    average_tail=S(
        float, 0.0, "share of the last steps whose weights are averaged (0: off)", low=0, high=1, unit="share"
    ),
    drop_last=S(bool, True, "leave out the last, smaller batch of an epoch"),
    crop_padding_px=S(int, 4, "random crop: padding on each side (0: no crop)", low=0, high=512, unit="px"),
    crop_mode=S(str, "reflect", "what the padding holds", choices="reflect zero mean"),
    flip=S(
        str,
        "random",
        "mirroring; alternating: at random once, then everything every other epoch",
        choices="none random alternating",
    ),
    cutout_px=S(int, 0, "side of the square that cutout erases (0: off)", low=0, high=512, unit="px"),
    brightness=S(float, 0.0, "brightness jitter, plus or minus", low=0, high=1, unit="share"),
    contrast=S(float, 0.0, "contrast jitter, plus or minus", low=0, high=1, unit="share"),
    resolutions=S(
        float, None, "lower resolution first: [[until share of the run, px], ...]", items=True, above=0
    ),
    freeze_whiten_after=S(
        float, 3.0, "speednet: the whitening bias is trained only before this epoch", low=0, unit="epochs"
    ),
    hard_fraction=S(
        float, 1.0, "hardest share of each batch that is trained on", above=0, high=1, unit="share"
    ),
    proxy_width=S(
        float,
        0.0,
        "width multiplier of the net that picks the hard share (0: the model itself)",
        low=0,
        high=64,
    ),
    checkpoint_every=S(str, "60s", "last.pt inside epochs too: 60s, 500 steps, off"),
)

_section(
    "eval",
    "Measuring accuracy",
    batch_size=S(int, 1000, "images a step", low=1, unit="images"),
    tta=S(
        str, "none", "test-time augmentation; crops: flip and two one-pixel shifts", choices="none flip crops"
    ),
    tta_share=S(float, 1.0, "least confident share of the images that gets it", low=0, high=1, unit="share"),
    every=S(int, 1, "evaluate every so many epochs (0: only at the end)", low=0, unit="epochs"),
    best_on=S(
        str,
        "validation",
        "what chooses best.pt (validation needs data.val_fraction, else the last weights)",
        choices="validation test none",
    ),
    target=S(
        float,
        None,
        "accuracy that the recipe is meant to reach on the test set",
        above=0,
        high=1,
        unit="share",
    ),
)

_section(
    "run",
    "The run itself",
    seed=S(int, 0, "seed of every random choice", low=0, high=2**31 - 1),
    device=S(str, "auto", "where to train; auto: cuda when there is one", choices="auto cpu cuda"),
    dir=S(str, None, "the run's folder (null: runs/<recipe>/<time>-s<seed>)"),
    resume=S(str, None, "checkpoint, or folder of a run, to continue; auto: what run.dir holds, if anything"),
    loggers=S(str, [], "besides metrics.jsonl and metrics.csv", items=True, choices="tensorboard wandb"),
    deterministic=S(bool, False, "only algorithms that repeat bit for bit, slower on a GPU"),
    threads=S(int, 0, "CPU threads of PyTorch (0: one a core)", low=0, high=4096, unit="threads"),
    save_checkpoints=S(bool, True, "write checkpoints/last.pt and best.pt"),
    report=S(bool, True, "write plots and report.html"),
    progress=S(
        str, "auto", "auto: a live line on a terminal, plain lines elsewhere", choices="auto plain off"
    ),
)

SETTINGS: dict[str, Setting] = {".".join(path): setting for path, setting in DECLARATIONS.entries.items()}
SECTIONS: dict[str, str] = {".".join(path): section.desc for path, section in DECLARATIONS.sections.items()}
