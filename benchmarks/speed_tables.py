"""The tables of speed, memory and reliability."""

import json
from collections import defaultdict
from typing import Any

from benchmarks.accuracy_tables import BASELINE
from benchmarks.common import Record, options, record_file, recorded
from benchmarks.speed.export_models import shown

METHODS = [name for name in options("method") if name != "auto"]
"""Methods with a step of their own; `auto` trains one of them."""


def costs() -> str:
    """Cost of a step of every method."""
    return "\n".join(["| method | one step costs |", "| --- | --- |", *(f"| {n} | {c} |" for n, c in _costs().items())])


def cost(method: str) -> str:
    """Cost of a step of one method."""
    return _costs().get(method, "not measured")


def _costs() -> dict[str, str]:
    """Cost of a step of each method, in supervised steps on as many images."""
    record = next(each for each in recorded("step") if "s4l" in each["seconds"] and each["case"] == "unet")
    seconds = dict(record["seconds"])
    seconds["gct"] = seconds.get("gct_cues", seconds["gct"])  # the default; other forms are in the table of steps
    height, width = record["size"]
    setting = f"{height}x{width} pixels, {record['precision']}, UNet, {record['device'].split()[0]}"
    return {
        name: f"{seconds[name] / seconds[BASELINE]:.2f} supervised steps on as many images ({setting})"
        for name in seconds
        if name in METHODS
    }


FORMS = {
    "gct": "GCT, as in the paper",
    "gct_cues": "`detector=cues` (the default)",
    "gct_features": "`detector=features`",
    "gct_half_scale": "`detector_scale=0.5`",
    "gct_low_memory": "`memory=low`",
    "gct_contiguous": "`channels_last=false`",
    "gct_compiled": "`compile=true`",
    "literal": "as released",
    "literal_channels_last": "as released, channels last",
}
"""Columns of the table of steps, by what a record calls them."""


def steps() -> str:
    """Cost of a step of GCT in its forms, in two supervised steps, and its peak memory."""
    records = recorded("step")
    parts = [
        "Multiples of two supervised steps on the same images, then peak memory in GiB where it was measured.",
        "",
        "| case | two supervised steps | " + " | ".join(FORMS.values()) + " |",
        "| --- | --- |" + " --- |" * len(FORMS),
    ]
    for record in records:
        floor = record["seconds"]["floor"]
        row = [_case(record), f"{floor:.2f} s{_memory(record, 'floor')}"]
        for name in FORMS:
            known = name in record["seconds"]
            row.append(f"{record['seconds'][name] / floor:.2f}{_memory(record, name)}" if known else "-")
        parts.append("| " + " | ".join(row) + " |")
    return "\n".join(parts)


COUNTED = {
    "floor": "two supervised steps",
    "gct": "GCT, as in the paper",
    "gct_cues": "`detector=cues`",
    "literal": "as released",
}
"""Columns of the table of operations."""


def operations() -> str:
    """Operations of a step in two supervised steps, and how near to the device's matrix products they are computed."""
    parts = [
        "| case | matrix product | " + " | ".join(COUNTED.values()) + " |",
        "| --- | --- |" + " --- |" * len(COUNTED),
    ]
    for record in recorded("step"):
        flops = record.get("flops", {})
        if not flops:
            continue
        row = [_case(record), f"{record['matrix_flops_per_second'] / 1e9:.0f} G/s"]
        for name in COUNTED:
            if name in flops:
                row.append(f"{flops[name] / flops['floor']:.2f}, {100 * record['matrix_share'][name]:.0f} %")
            else:
                row.append("-")
        parts.append("| " + " | ".join(row) + " |")
    return "\n".join(parts)


def _case(record: Record) -> str:
    """What was measured, of a record of a step."""
    labeled, unlabeled = record["images"]
    height, width = record["size"]
    case = f"{record['case']} {height}x{width}, {labeled} + {unlabeled} images, {record['precision']}"
    beside = ", all methods in memory" if "supervised" in record["seconds"] else ""
    return f"{case}, {record['device']}, {record['threads']} threads{beside}"


def inference() -> str:
    """What shares of the bare model's throughput `predict` and `evaluate` reach."""
    parts = [
        "| images, computing threads | `predict`, by the clock | `predict`, CPU time | `evaluate`, by the clock |",
        "| --- | --- | --- | --- |",
    ]
    for record in recorded("inference"):
        shares = [f"{100 * record[name]:.0f} %" for name in ("predict_share", "predict_share_cpu", "evaluate_share")]
        parts.append(f"| `{record['case']}`, {record['threads']} | " + " | ".join(shares) + " |")
    return "\n".join(parts)


def reliability() -> str:
    """What came of the cases of benchmarks/reliability; nothing before its first full run."""
    path = record_file("reliability")
    if not path.exists():
        return "not measured"
    sections: dict[str, dict[str, Any]] = json.loads(path.read_text())["sections"]
    names = [name for name in next(iter(sections.values())) if name not in ("tried", "seconds", "failed")]
    parts = ["| section | tried | " + " | ".join(names) + " |", "| --- |" + " --- |" * (len(names) + 1)]
    for name, figures in sections.items():
        parts.append(f"| {name} | {figures['tried']} | " + " | ".join(str(figures[each]) for each in names) + " |")
    return "\n".join(parts)


def large_images() -> str:
    """Peak memory and processor time of predicting one image, before images were cut into slabs and since."""
    parts = [
        "| method, classes, megapixels | before: GiB | now: GiB | before: CPU time | now: CPU time |",
        "| --- | --- | --- | --- | --- |",
    ]
    cases: dict[tuple[str, int, int], dict[str, Any]] = defaultdict(dict)
    for record in recorded("large_images"):
        cases[record["method"], record["classes"], record["megapixels"]][record["tree"]] = record
    for (method, classes, megapixels), found in sorted(cases.items(), reverse=True):
        memory = [f"{found[tree]['peak_mib'] / 1024:.1f}" if tree in found else "-" for tree in ("before", "this")]
        times = [f"{found[tree]['cpu_seconds']:.0f} s" if tree in found else "-" for tree in ("before", "this")]
        parts.append(f"| `{method}`, {classes}, {megapixels} | " + " | ".join([*memory, *times]) + " |")
    return "\n".join(parts)


def exports() -> str:
    """Which untrained networks `semipix export` writes, with the largest difference from the source."""
    rows: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in recorded("export"):
        rows[record["model"]][record["format"]] = record
    parts = ["| network | smallest side | torch-export | ONNX |", "| --- | --- | --- | --- |"]
    for name, found in rows.items():
        sides = [str(each["smallest"]) for each in found.values() if "smallest" in each]
        cells = [shown(found[format]) if format in found else "not tried" for format in ("torch-export", "onnx")]
        parts.append(f"| {' | '.join([name, *(sides[:1] or ['-']), *cells])} |")
    return "\n".join(parts)


def loading() -> str:
    """Processor time of a training image by format and size, read each time or from a cache, resized or not."""
    photos = [("jpg", 500), ("png", 500), ("jpg", 4000), ("png", 4000)]
    titles = {"jpg": "JPEG", "png": "PNG"}
    rows = {
        "decoded each time": ("as it is", "none", None),
        "`cache=memory`": ("as it is", "memory", None),
        "`cache=disk`": ("as it is", "disk", None),
        "`resize=500`": ("reduced", "none", 500),
        "`resize=500`, decoded in full as floats": ("full", "none", 500),
    }
    found = {
        (record["format"], record["side"], record["decoding"], record["cache"], record["resize"]): record
        for record in recorded("loading")
        if record["case"] == "speed" and record["workers"] == 0
    }
    parts = [
        "| | " + " | ".join(f"{titles[kind]} {side:,} px" for kind, side in photos) + " |",
        "| --- |" + " --- |" * len(photos),
    ]
    for title, way in rows.items():
        records = [found.get((*photo, *way)) for photo in photos]
        times = [record["cpu_ms_per_image"] if record else None for record in records]
        shown = ["-" if time is None else f"{time:.1f}" if time < 10 else f"{time:.0f}" for time in times]
        parts.append(f"| {title} | " + " | ".join(shown) + " |")
    return "\n".join(parts)


def paper_steps() -> str:
    """Time and memory of one step of GCT in the paper's settings."""
    parts = ["| task | models | size | seconds | peak memory |", "| --- | --- | --- | --- | --- |"]
    order = ("segmentation", "matting", "enhancement", "denoising")
    for record in sorted(recorded("paper_steps"), key=lambda record: order.index(record["setting"])):
        first, second = record["models"]
        models = f"`{first}` twice" if first == second else f"`{first}` and `{second}`"
        models += ", `checkpointing=true`" if record["checkpointing"] else ""
        seconds = min(record["first_step_seconds"], record["seconds"])  # other trainings ran beside: upper bounds
        size = f"{record['size']}x{record['size']}"
        memory = f"{record['peak_memory_gib']:.1f} GiB"
        parts.append(f"| {record['setting']} | {models} | {size} | {seconds:.0f} | {memory} |")
    return "\n".join(parts)


def startup() -> str:
    """How long commands take to start, in a sentence."""
    seconds = {record["command"]: record["wall_s"] for record in recorded("startup")}
    return (
        f"Starting takes {seconds['help']:.2f} s for `semipix --help`, and {seconds['train_to_first_step']:.1f} s from "
        "starting `semipix train`"
    )


def allocator() -> str:
    """What kept memory saves, in a sentence."""
    records = recorded("allocator")
    saved = [1 - record["seconds"]["kept"] / record["seconds"]["returned"] for record in records]
    grown = [abs(record["bytes"]["kept"] / record["bytes"]["returned"] - 1) for record in records]
    return (
        f"saves {min(saved):.0%} to {max(saved):.0%} of a step, by method; the peak of memory differs by at most "
        f"{max(grown):.1%}"
    )


def scaling() -> str:
    """How cost grows with pixels, batch and unlabeled images, in a sentence."""
    slopes = {record["curve"]: f"{record['upper_half_slope']:.2f}" for record in recorded("scaling")}
    return f"finds slopes of {slopes['pixels']}, {slopes['batch']} and {slopes['unlabeled_images']} on logarithmic axes"


def names() -> str:
    """What a million file names cost, in a sentence."""
    record = next(record for record in recorded("loading") if record["case"] == "names")
    start = record["list_cpu_s"] + record["split_cpu_s"]
    grown, of_a_list = (record[f"grown_bytes_per_worker{what}"] / 1e6 for what in ("", "_of_a_list"))
    return (
        f"takes {start:.0f} s of processor time to start, and a worker that has drawn all of them has grown by "
        f"{grown:.1f} MB ({of_a_list:.0f} MB with a Python list)"
    )


def tile_seams() -> str:
    """The share of the labels that are others if an image is computed in tiles."""
    records = recorded("tile_seams")
    parts = ["| tile, overlap | " + " | ".join(f"{each['tile']}, {each['overlap']}" for each in records) + " |"]
    parts.append("| --- |" + " --- |" * len(records))
    parts.append("| other labels | " + " | ".join(f"{100 * each['changed']:.2f} %" for each in records) + " |")
    return "\n".join(parts)


def _memory(record: Record, name: str) -> str:
    return f", {record['bytes'][name] / 2**30:.2f}" if name in record["bytes"] else ""
