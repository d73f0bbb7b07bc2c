"""A model card in Markdown, made from a run's record and its checkpoint; nothing in it is typed by hand."""

from __future__ import annotations

from typing import Any

from fastresnet.base import words
from fastresnet.base.sinks import for_markdown
from fastresnet.inference.trained import Trained
from fastresnet.machine import hardware


def text(network: Trained, record: dict[str, Any] | None) -> str:
    """The card. `record`: what result.json of the run holds, or None where there is none."""
    settings = network.cfg
    parameters = sum(value.numel() for value in network.model.parameters())
    data = (record or {}).get("data") or network.facts.get("data", {})
    name, classes = for_markdown(data.get("name", "unknown data")), ", ".join(network.class_names)
    several = f"{settings.model.members} x " if settings.model.members > 1 else ""
    depth = f"-{settings.model.depth}" if settings.model.arch == "resnet" else ""
    lines = [
        f"# {settings.recipe}: {several}{settings.model.arch}{depth} on {name}",
        "",
        "Made by fastresnet from the run's record.",
        "",
        "## Use",
        f"- Input: RGB images, uint8, {network.image_size} x {network.image_size} px. The exported files "
        "normalise by "
        "themselves; for the bare weights subtract the mean and divide by the deviation (0..1 units): "
        f"mean {_numbers(network.mean)}, deviation {_numbers(network.std)}.",
        f"- Output: {len(network.class_names)} logits, in this order: {for_markdown(classes)}.",
        f"- {parameters:,} parameters.",
        "",
        "## Results",
        *_results(record),
        "",
        "## Training",
        f"- {settings.train.epochs:g} epochs of batches of {settings.train.batch_size}, "
        f"{settings.optim.name}, peak learning "
        f"rate {settings.optim.lr:g}, schedule {settings.schedule.name}, seed {settings.run.seed}.",
        f"- Data: {name}, digest {for_markdown(data.get('digest', 'unknown'))}"
        + (", SYNTHETIC: drawn shapes, no photographs" if data.get("synthetic") else "")
        + ".",
        *_origin(record),
        "",
        "## Limits",
        "- It knows its classes alone and answers with one of them for any picture.",
        "- Accuracy is that of one run on one test set; other seeds differ by about 0.15 points (standard "
        "deviation) at 94 %.",
        "- It was not examined for bias, for robustness against noise or attack, or for any use where a "
        "mistake harms.",
    ]
    return "\n".join(lines) + "\n"


def _results(record: dict[str, Any] | None) -> list[str]:
    if not record:
        return ["- There is no record of this run beside the checkpoint."]
    accuracy, data = record["accuracy"], record["data"]
    tested = f"test accuracy of the last weights, {data['test_size']:,} images"
    rows = [["what", "value"], [tested, words.percent(accuracy["test"])]]
    if accuracy.get("test_tta") is not None:
        rows.append(["the same with test-time augmentation", words.percent(accuracy["test_tta"])])
    if record["loss"] is not None:
        rows.append(["test loss", f"{record['loss']:.4f} nats"])
    took = words.duration(record["seconds"]["train"])
    rows.append(["training time", f"{took} on {hardware.used_name(record)}"])
    if record.get("flops_per_image"):
        rows.append(["forward pass of one image", f"{record['flops_per_image'] / 1e9:.3f} GFLOP"])
    return words.markdown(rows)


def _origin(record: dict[str, Any] | None) -> list[str]:
    if not record:
        return []
    git, software = record["git"], record["software"]
    dirty = ", with uncommitted changes" if git.get("dirty") else ""
    commit, torch, python = map(
        for_markdown, (git["commit"] or "unknown", software["torch"], software["python"])
    )
    return [
        f"- Training images: {record['data']['train_size']:,}.",
        f"- Code: commit {commit}{dirty}; PyTorch {torch}, Python {python}.",
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"
