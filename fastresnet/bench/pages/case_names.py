"""What people call the cases of a benchmark file. Refuses to hide a setting that tells two cases apart."""

from __future__ import annotations

from fastresnet.bench.measuring.file import Row

PARTS = {
    "ceilings": "What the machine can do",
    "loader": "Loaders",
    "step": "Training steps",
    "endtoend": "Epochs, and the costs around them",
    "accuracy": "Time to accuracy",
    "scaling": "Several processes",
}
WORDS = {
    "matmul": "matrix product",
    "conv3x3": "3x3 convolution",
    "memory-copy": "memory copy",
    "host-to-device": "copy to the device",
    "launch": "launch of a kernel",
    "resnet": "ResNet-",
    "step": "training step",
    "forward": "forward pass",
    "forward+backward": "forward and backward pass",
    "contiguous": "NCHW",
    "channels_last": "channels last",
}


def readable(row: Row) -> str:
    """`ResNet-18 training step, batch 32, bf16, channels last`; other cases by their name in words."""
    if row["part"] == "step" and {"model", "work", "batch_size", "precision"} <= set(row["settings"]):
        return _step(row["settings"])
    if row["part"] == "ceilings":
        what, _, kind = row["name"].partition("/")[2].partition("-")
        whole = f"{what}-{kind}"
        return WORDS.get(whole) or ", ".join(filter(None, (WORDS.get(what, what), kind)))
    if row["part"] == "scaling":
        kind, _, count = row["name"].partition("/")
        return f"{kind}, {count} process{'es' * (count != '1')}"
    return row["name"].replace("/", ": ").replace(".yaml", "")


def _step(settings: dict[str, object]) -> str:
    model = str(settings["model"])
    model = model.replace("resnet", WORDS["resnet"]) if model.removeprefix("resnet").isdigit() else model
    batch = settings["batch_size"]
    parts = [
        f"{model} {WORDS.get(str(settings['work']), str(settings['work']))}",
        f"batch {batch}" if batch != "largest" else "largest batch",
        str(settings["precision"]),
        WORDS.get(str(settings.get("memory_format")), ""),
        "" if settings.get("compile", "off") == "off" else f"compiled ({settings['compile']})",
    ]
    return ", ".join(filter(None, parts))
