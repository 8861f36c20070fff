"""Images per second of the three sides, and how much of the device they use."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from on_gpu import architecture, sides
from on_gpu.device import (
    Device,
    failure,
    fresh_memory,
    idle_share,
    matrix_peak,
    number,
    peak_memory,
    versions,
)
from on_gpu.sides import Side, Task

GOALS = {"to_script": 4.0, "to_batched": 1.3, "share_of_peak": 0.45}


class Plan(NamedTuple):
    """What is drawn.

    Attributes:
        shape: of the model.
        steps: of denoising.
        dtype: of weights and arithmetic.
        batch: images at once, of the script in batches.
        our_batch: images at once, of ours.
        alone: images that the script is timed on.
        batches: that the other two are timed on.
        peak_sides: rows of the matrices whose product gives the peak.
        options: of ours, see :func:`sides.speed_options`.
    """

    shape: architecture.Shape
    steps: int
    dtype: str
    batch: int
    our_batch: int
    alone: int
    batches: int
    peak_sides: tuple[int, ...]
    options: dict[str, Any]


class Row(NamedTuple):
    """One side. Numbers are None where the device has no such thing or memory did not suffice.

    Attributes:
        name: of the side.
        batch: images at once.
        rate: images per second.
        share: of the peak, FLOPs of the models only.
        idle: share of the time in which the GPU did nothing; measured on one batch more.
        gib: peak memory, GiB.
        beside: seconds of one CPU thread for an image's edges and PNG file, within the time of (a)
            and (b), beside that of ours.
        start: seconds of loading, compiling and drawing the first batch.
        failure: what went wrong; None: nothing.
    """

    name: str
    batch: int
    rate: float | None = None
    share: float | None = None
    idle: float | None = None
    gib: float | None = None
    beside: float | None = None
    start: float | None = None
    failure: str | None = None


def measure(plan: Plan, device: Device) -> dict[str, Any]:
    """Everything of this mode, as JSON data."""
    flops = architecture.count(plan.shape)
    peak = matrix_peak(device, plan.peak_sides)
    print(f"{device.name}: {peak / 1e12:.4g} TFLOP/s in bf16 products; one image takes "
          f"{flops.of_image(plan.steps) / 1e12:.4g} TFLOP", flush=True)  # fmt: skip
    folder = Path(tempfile.mkdtemp())
    try:
        architecture.save(plan.shape, device.torch, folder / "model")
        task = Task(folder / "model", device.torch, plan.dtype, plan.steps, plan.batch)
        cases: list[tuple[str, int, int, Callable[[Task], Side]]] = [
            ("(a) script", 1, plan.alone, sides.script),
            ("(b) script, batched", plan.batch, plan.batches * plan.batch, sides.batched),
            (
                "(c) ours",
                plan.our_batch,
                plan.batches * plan.our_batch,
                lambda task: sides.ours(task, plan.options),
            ),
        ]
        rows = []
        for name, batch, count, make in cases:
            own = task._replace(batch=batch)
            row = time_side(Row(name, batch), lambda m=make, t=own: m(t), count, plan, device)
            if row.rate is not None:
                row = row._replace(share=row.rate * flops.of_image(plan.steps) / peak)
            rows.append(row)
            print(line(row), flush=True)
    finally:
        shutil.rmtree(folder)
    return {
        "mode": "drawing",
        "versions": versions(device),
        "settings": plan._replace(shape=plan.shape._asdict())._asdict(),
        "parameters": architecture.parameters(plan.shape),
        "flops": flops._asdict() | {"image": flops.of_image(plan.steps)},
        "peak_flops": peak,
        "rows": [row._asdict() for row in rows],
        "reached": reached(rows),
    }


def time_side(row: Row, make: Callable[[], Side], count: int, plan: Plan, device: Device) -> Row:
    """The row of one side, which is loaded, warmed up, timed on ``count`` images and profiled."""
    images = sides.sample_images(count, plan.shape.side)
    fresh_memory(device)
    with tempfile.TemporaryDirectory() as out:
        try:
            started = time.perf_counter()
            run = make()
            run(images[: row.batch], Path(out))
            device.wait()
            start = time.perf_counter() - started
            started = time.perf_counter()
            run(images, Path(out))
            device.wait()
            rate = count / (time.perf_counter() - started)
            gib = peak_memory(device)
            written = list(Path(out).glob("*.png"))
            if len(written) != count:
                raise RuntimeError(f"{row.name} wrote {len(written)} images of {count}")
            beside = sides.beside(images[0], written[0])
            several = images[: max(2 * row.batch, 2)]
            idle = idle_share(device, lambda: run(several, Path(out)))
        except Exception as error:
            return row._replace(failure=failure(error))
    return row._replace(rate=rate, idle=idle, gib=gib, beside=beside, start=start)


def reached(rows: list[Row]) -> dict[str, float | None]:
    """What the goals are about, from the rows in their order."""
    script, batched, ours = rows

    def ratio(rate: float | None, other: float | None) -> float | None:
        return rate / other if rate is not None and other is not None else None

    return {
        "to_script": ratio(ours.rate, script.rate),
        "to_batched": ratio(ours.rate, batched.rate),
        "share_of_peak": ours.share,
    }


def line(row: Row) -> str:
    """A row as text."""
    if row.failure is not None:
        return f"{row.name:22} {row.batch:4d} at once: {row.failure}"
    return (
        f"{row.name:22} {row.batch:4d} at once: {number(row.rate, '.3g')} images/s, "
        f"{number(row.share, '.1%')} of the peak, idle {number(row.idle, '.1%')}, "
        f"{number(row.gib, '.1f')} GiB, ready after {number(row.start, '.0f')} s"
    )


def markdown(report: dict[str, Any]) -> str:
    """The table with the goals beside what was reached."""
    versions, settings = report["versions"], report["settings"]
    options = ", ".join(f"{name}={value}" for name, value in settings["options"].items())
    side = settings["shape"]["side"]
    lines = [
        f"**{versions['device']}**, torch {versions['torch']}, "
        f"CUDA {versions.get('cuda', '-')}, diffusers {versions['diffusers']}. "
        f"{side}x{side} pixels, {settings['steps']} steps, one ControlNet, "
        f"guidance {sides.GUIDANCE}, {settings['dtype']}; ours with {options or 'no options'}. "
        f"Peak of bf16 products in this run: {report['peak_flops'] / 1e12:.4g} TFLOP/s; the models "
        f"need {report['flops']['image'] / 1e12:.4g} TFLOP an image.",
        "",
        "| | images at once | images/s | share of peak | GPU idle | peak memory, GiB "
        "| edges and PNG, ms | ready after, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in (Row(**values) for values in report["rows"]):
        cells = [
            row.failure or number(row.rate, ".3g"),
            number(row.share, ".1%"),
            number(row.idle, ".1%"),
            number(row.gib, ".1f"),
            "-" if row.beside is None else f"{1000 * row.beside:.0f}",
            number(row.start, ".0f"),
        ]
        lines.append(f"| {row.name} | {row.batch} | {' | '.join(cells)} |")
    lines += ["", "| goal | wanted | reached |", "|---|---|---|"]
    named = {
        "to_script": ("(c) : (a)", ".2f"),
        "to_batched": ("(c) : (b)", ".2f"),
        "share_of_peak": ("(c), share of peak", ".1%"),
    }
    for key, (name, form) in named.items():
        value = report["reached"][key]
        verdict = "" if value is None else " (yes)" if value >= GOALS[key] else " (no)"
        lines.append(
            f"| {name} | at least {format(GOALS[key], form)} | {number(value, form)}{verdict} |"
        )
    return "\n".join(lines) + "\n"
