"""Tables and ratios of what was measured at several numbers of images."""

from collections.abc import Iterator
from typing import Any

Run = dict[str, Any]
"""What ``scale.measure`` returns."""

STAGES = ("faces", "anonymize", "embed", "rank")


def goals(small: Run, large: Run) -> dict[str, float]:
    """Ratios of two runs: peaks of memory as they are, times divided by the ratio of images."""
    images = large["images"] / small["images"]
    ratios = {kind: large["memory"][kind] / small["memory"][kind] for kind in ("rss", "pss", "own")}
    for kind in ("seconds", "cpu"):
        ratios[kind] = total(large, kind) / total(small, kind) / images
    ratios["spilled"] = large["spilled"]
    return {key: round(value, 3) for key, value in ratios.items()}


def total(run: Run, kind: str) -> float:
    """Seconds of all stages; starting Ray is not one."""
    return float(sum(run["stages"][name][kind] for name in STAGES))


def cost(small: Run, large: Run, stage: str, kind: str) -> float:
    """Of one further image, in the unit of ``kind``."""
    more = large["stages"][stage][kind] - small["stages"][stage][kind]
    return float(more / (large["images"] - small["images"]))


def head(anonymizer: str, attacker: str) -> Iterator[str]:
    """Title of the table of one anonymizer."""
    yield f"\n{anonymizer}, attacked by {attacker}"
    formatting = (
        "images",
        "stage",
        "seconds",
        "CPU s",
        "RSS MiB",
        "PSS MiB",
        "own",
        "store",
        "files",
    )
    yield ("{:>9} {:10}" + "{:>9}" * 7).format(*formatting)


def rows(run: Run) -> Iterator[str]:
    """Lines of one run."""
    for stage, costs in run["stages"].items():
        yield _line(run["images"], stage, costs["seconds"], costs["cpu"], costs["memory"])
    whole = total(run, "seconds"), total(run, "cpu")
    yield _line(run["images"], "all", *whole, run["memory"])
    yield (
        f"{'':10}object store: peak {run['store_peak']:.0f} MiB, spilled "
        f"{run['spilled']:.0f} MiB; rank 1 of {run['probes']} probes: {run['rank_1']:.3f}"
    )


def summary(small: Run, large: Run) -> Iterator[str]:
    """What the largest run took against the smallest, and what an image costs."""
    costs = goals(small, large)
    yield f"{large['images']} against {small['images']} images:"
    yield (
        f"  peak of memory: RSS {costs['rss']:.2f}, PSS {costs['pss']:.2f}, own "
        f"{costs['own']:.2f} times (goal: 1.2)"
    )
    yield (
        f"  time against proportional: {costs['seconds']:.2f} by the clock, {costs['cpu']:.2f} "
        "of the processor (goal: 1.05)"
    )
    yield "an image costs:"
    for stage in STAGES:
        yield (
            f"  {stage:10}{1000 * cost(small, large, stage, 'seconds'):8.2f} ms"
            f"{1000 * cost(small, large, stage, 'cpu'):10.2f} CPU ms"
            f"{cost(small, large, stage, 'bytes'):9.0f} bytes written"
        )


def _line(images: int, stage: str, seconds: float, cpu: float, memory: dict[str, float]) -> str:
    sizes = "".join(f"{memory[k]:9.0f}" for k in ("rss", "pss", "own", "store", "files"))
    return f"{images:9} {stage:10}{seconds:9.1f}{cpu:9.1f}{sizes}"
