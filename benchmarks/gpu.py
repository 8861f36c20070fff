"""What one GPU does: Stable Diffusion 1.5 with a ControlNet; contrastive training and search.

    python benchmarks/gpu.py --out DIR [--mode drawing|training|both] [--ours NAME=VALUE ...]

Needs no Ray, no network and no weights: models have the true shapes and random weights.

- *drawing*: images per second, image to PNG file, at 512x512, 20 steps, one ControlNet, of
  (a) the script that a user would write with diffusers, one image a call, (b) the same with
  several images a call, (c) ours, ``Diffusion.open()``. Beside them the share of the peak of bf16
  matrix products measured in the same run (the models' FLOPs are counted, not estimated), the share
  of time in which the GPU is idle, and peak memory. Goals: (c) at least 4 times (a), at least 1.3
  times (b), at least 45 % of the peak.
- *training*: pairs per second of contrastive training beside pytorch-metric-learning's loss, with
  and without gradient caching, and queries per second of the gallery on GPU and CPU.

Writes ``MODE.json`` and ``MODE.md``; ``benchmarks/RESULTS.md`` keeps the newest table. Each mode is
made to take less than ten minutes on one H100. ``--quick`` runs everything tiny on the CPU, to see
that it works.
"""

import argparse
import json
from pathlib import Path
from typing import Any


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=("drawing", "training", "both"), default="drawing")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--quick", action="store_true", help="a smoke test: tiny, on the CPU")
    drawing = parser.add_argument_group("drawing")
    drawing.add_argument("--steps", type=int, default=20)
    drawing.add_argument("--dtype", default="float16", help="of weights and arithmetic")
    drawing.add_argument("--batch", type=int, default=16, help="images at once of (b)")
    drawing.add_argument("--our-batch", type=int, help="images at once of (c); as (b)")
    drawing.add_argument("--alone", type=int, default=12, help="images that (a) is timed on")
    drawing.add_argument("--batches", type=int, default=4, help="that (b) and (c) are timed on")
    drawing.add_argument(
        "--ours", nargs="+", default=[], metavar="NAME=VALUE", help="settings of Diffusion for (c)"
    )
    training = parser.add_argument_group("training")
    training.add_argument("--backbone", default="transformers:resnet-50")
    training.add_argument("--side", type=int, default=112, help="of the faces, pixels")
    training.add_argument("--pairs", type=int, nargs="+", default=[256, 4096], help="in a batch")
    training.add_argument("--chunk", type=int, default=512, help="images, of gradient caching")
    training.add_argument("--seconds", type=float, default=4.0, help="that a block takes about")
    training.add_argument("--blocks", type=int, default=5)
    training.add_argument("--gallery", type=int, default=1_000_000, help="references")
    training.add_argument("--probes", type=int, default=100_000, help="that the GPU looks for")
    training.add_argument("--cpu-probes", type=int, default=2_000, help="that the CPU looks for")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(
            steps=2, dtype="float32", batch=2, alone=2, batches=2, backbone="small", side=32,
            pairs=[4, 16], chunk=8, seconds=0.05, blocks=2, gallery=2000, probes=50, cpu_probes=50,
        )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    arguments = parsed()
    import torch
    from on_gpu import device, drawing, training
    from on_gpu.architecture import TINY, Shape
    from on_gpu.device import EXPECTED
    from on_gpu.sides import speed_options

    where = device.find(arguments.quick)
    if arguments.quick:
        torch.set_num_threads(1)
    modes: dict[str, Any] = {}
    if arguments.mode != "training":
        plan = drawing.Plan(
            TINY if arguments.quick else Shape(),
            arguments.steps,
            arguments.dtype,
            arguments.batch,
            arguments.our_batch or arguments.batch,
            arguments.alone,
            arguments.batches,
            (128,) if arguments.quick else (4096, 8192, 16384),
            speed_options(arguments.ours),
        )
        modes["drawing"] = drawing, plan
    if arguments.mode != "drawing":
        learning = training.Plan(
            arguments.backbone,
            arguments.side,
            tuple(arguments.pairs),
            arguments.chunk,
            arguments.seconds,
            arguments.blocks,
            arguments.gallery,
            arguments.probes,
            arguments.cpu_probes,
        )
        modes["training"] = training, learning
    arguments.out.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for name, (module, plan) in modes.items():
        report = module.measure(plan, where)
        table = module.markdown(report)
        print(f"\n{table}")
        for suffix, text in (("json", json.dumps(report, indent=1) + "\n"), ("md", table)):
            path = arguments.out / f"{name}.{suffix}"
            path.write_text(text, "utf-8")
            print(path)
        broken = {row["failure"] for row in report["rows"]} - {None, *EXPECTED}
        failures += [f"{name}: {failure}" for failure in sorted(broken)]
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
