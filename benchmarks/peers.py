"""How private images look, and how private they are: six anonymizers, three measures.

    python -m venv DEFACE && DEFACE/bin/pip install deface onnxruntime
    pip install hifd
    python benchmarks/peers.py --root LFW --work DIR --deface DEFACE/bin/deface

The same images of LFW go through nothing, ``deface`` (the blur that people install from PyPI, on
the whole images), blur, mosaic and the embedded diffusion model without and with Canny edges.
What is measured:

- HiFD's privacy score (package ``hifd``), as its authors define it: half of one less the cosine of
  an image and its own original, averaged over the recognizers SFace and dlib. 0 is the same face.
  What strangers have is measured: originals of other people in the place of the images.
- a fixed recognizer: the share of images that SFace tells from their own original, at the
  threshold of OpenCV's zoo.
- the audit: the rank-1 rate (Full-Ref, source excluded) of the recognizer as it is, and of the
  strongest attack, which may learn from images of other people.

Settings of the audit may follow the options, such as ``preset=large``; with those of another audit
of the same faces and its ``cache_dir``, what that one made is not made again. Needs the extra
`dlib`. Writes peers.md, peers.json and peers.svg. ``--work`` keeps the stages, so that a run that
was cut off goes on; it holds images of real people.
"""

import argparse
import csv
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from deface import ENDING, WAYS, anonymize, main_rates

from cldmray.arrays import Images, Interval
from cldmray.config.audit import AuditConfig, build_audit
from cldmray.config.compose import compose, updated
from cldmray.config.instantiate import settings_of
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import decode
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION
from cldmray.faces.splits import split_listing
from cldmray.hashing import unit_hash
from cldmray.metrics.confidence import bootstrap_mean
from cldmray.metrics.rates import rate_interval
from cldmray.pipelines.jobs import run_anonymization, run_audit
from cldmray.recognizers.base import SAME_IDENTITY, Recognizer
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.sface import SFace

ANONYMIZERS = ("no_op", "precomputed", "blur", "pixelate", "cldm_none", "cldm_canny")
ATTACKERS = (
    "pretrained",
    "condition_match",
    "adaptive_contrastive",
    "adaptive_distilled",
    "score_fusion",
)
BATCH = 64


def composed(options: argparse.Namespace) -> dict[str, Any]:
    """Settings of the audit, without who takes part."""
    layout = ["faces=lfw"] if options.layout == "lfw" else ["faces=folder", "faces.align=none"]
    settings = compose(
        "audit",
        [
            *layout,
            f"anonymizers=[{','.join(ANONYMIZERS)}]",
            f"attackers=[{','.join(options.attacks)}]",
            "~tracking",
            *options.settings,
        ],
    )
    images = str((options.work / "deface").resolve())
    source = {**settings["faces"], "root": str(Path(options.root).resolve())}
    return updated(
        settings,
        {
            "faces": source,
            "anonymizers.precomputed": {"faces": source, "root": images, "label": "deface"},
            "splits.n_evaluation_identities": options.identities,
            "splits.min_images": options.images,
            "audit": {"utility": [], "attribution": False},
            "cache_dir": str(options.cache or options.work / "cache"),
            "output": str(options.work / "audit"),
        },
    )


def participants(config: AuditConfig, attackers: int) -> dict[str, str]:
    """Who is evaluated, and the people drawn by a hash who train the attackers; identity to list.

    Nobody is auxiliary then.
    """
    splits = split_listing(config.faces.listing(), config.splits)
    others = [name for name, split in splits.items() if split in (ATTACKER, ATTACKER_VALIDATION)]
    others.sort(key=lambda name: unit_hash("peers", name))
    taken = dict.fromkeys(others[:attackers], "attacker")
    return taken | {name: "evaluation" for name, split in splits.items() if split == EVALUATION}


def write_lists(participating: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The lists as files; settings of the splits that name them."""
    settings = {}
    for split in sorted(set(participating.values())):
        path = folder / f"{split}.txt"
        names = sorted(name for name, own in participating.items() if own == split)
        path.write_text("\n".join(names) + "\n", "utf-8")
        settings[f"splits.{split}"] = str(path)
    return settings


def defaced_file(folder: Path, place: str) -> Path | None:
    """What deface made of an original; None: nothing yet."""
    return next(folder.glob(f"{Path(place).with_suffix('')}{ENDING}.*"), None)


def deface(program: str, source: FaceSource, places: Sequence[str], folder: Path) -> None:
    """Blurred images, named like their originals; what is there is kept.

    Args:
        places: of the originals, as in the source's listing.
    """
    missing = [place for place in places if defaced_file(folder, place) is None]
    copies = folder.with_name("originals")
    for start in range(0, len(missing), BATCH):
        part = missing[start : start + BATCH]
        for place, content in zip(part, source.read(part), strict=True):
            copy = copies / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content or b"")
        anonymize(program, copies, WAYS["deface_blur"], folder)
        shutil.rmtree(copies)


def exported(manifest: Path, source: FaceSource) -> tuple[list[str], Images]:
    """Where the originals of evaluated people are, and their anonymized images."""
    with manifest.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == EVALUATION]
    files = [(manifest.parent / row["anonymized"]).read_bytes() for row in rows]
    anonymized = [decode(content, None, source.size) for content in files]
    return [row["original"] for row in rows], np.stack(anonymized)


class Originals:
    """Originals as recognizers see them, each embedded once for all anonymizers.

    Args:
        source: of the originals.
        recognizers: of which the first tells faces apart.
    """

    def __init__(self, source: FaceSource, recognizers: Sequence[Recognizer]) -> None:
        self.source, self.recognizers = source, recognizers
        listing = source.listing()
        self.identities = dict(
            zip(listing["location"].to_pylist(), listing["identity"].to_pylist(), strict=True)
        )
        self._embedded: dict[str, dict[str, np.ndarray]] = {}

    def embeddings(self, places: Sequence[str]) -> dict[str, np.ndarray]:
        """(image, dimension) of each recognizer."""
        new = [place for place in places if place not in self._embedded]
        if new:
            read = self.source.read(new)
            images = np.stack([decode(each, self.source.crop, self.source.size) for each in read])
            rows = {each.name: each.embed(images) for each in self.recognizers}
            for index, place in enumerate(new):
                self._embedded[place] = {name: own[index] for name, own in rows.items()}
        return {
            each.name: np.stack([self._embedded[place][each.name] for place in places])
            for each in self.recognizers
        }


def looks(folder: Path, originals: Originals) -> dict[str, Any]:
    """What measures say that compare an image with its own original."""
    places, anonymized = exported(folder / "manifest.csv", originals.source)
    return compared(
        originals, places, {each.name: each.embed(anonymized) for each in originals.recognizers}
    )


def strangers(places: Sequence[str], originals: Originals) -> dict[str, Any]:
    """What the same measures say of originals of other people."""
    names = np.array([originals.identities[place] for place in places])
    order = np.argsort(names, kind="stable")
    # Further along in the order of people than anybody has images.
    others = np.roll(order, -int(np.unique(names, return_counts=True)[1].max()))
    ordered = [places[index] for index in order]
    return compared(originals, ordered, originals.embeddings([places[index] for index in others]))


def compared(
    originals: Originals, places: Sequence[str], images: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Originals beside images that stand for them, by the name of the recognizer."""
    import hifd

    identities = np.array([originals.identities[place] for place in places])
    own = originals.embeddings(places)
    scores = {name: hifd.batch_privacy_score(own[name], images[name]) for name in own}
    first = originals.recognizers[0].name
    told_apart = (own[first] * images[first]).sum(1) < SAME_IDENTITY
    return {
        "images": len(identities),
        "hifd_privacy": list(bootstrap_mean(hifd.privacy_ensemble(scores), identities)),
        "told_from_original": list(rate_interval(told_apart, identities)),
    }


def risks(table: Any) -> dict[str, dict[str, Any]]:
    """What the audit says of each anonymizer: the recognizer as it is, and the strongest attack."""
    kept = main_rates(table)
    by_anonymizer = {}
    for anonymizer, own in kept.groupby("anonymizer"):
        rates = {row.attacker: row for row in own.itertuples()}
        strongest = max(rates.values(), key=lambda row: row.value)
        by_anonymizer[anonymizer] = {
            "pretrained": interval(rates["pretrained"]),
            "strongest": interval(strongest),
            "attacker": strongest.attacker,
            "chance": strongest.chance,
        }
    return by_anonymizer


def interval(row: Any) -> list[float]:
    return [row.value, row.ci_low, row.ci_high]


def percent(bounds: Sequence[float]) -> str:
    value, low, high = (100 * bound for bound in bounds)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    lines = []
    others = report["strangers"]
    for row in report["rows"]:
        score = Interval(*row["hifd_privacy"])
        lines.append(
            f"| `{row['anonymizer']}` | {score.value:.2f} [{score.low:.2f}, {score.high:.2f}] | "
            f"{percent(row['told_from_original'])} | {percent(row['pretrained'])} | "
            f"{percent(row['strongest'])} | `{row['attacker']}` |"
        )
    worst = max(report["rows"][1:], key=lambda row: row["strongest"][0])
    return "\n".join(
        [
            "# How private it looks, and how private it is",
            "",
            "Measures that compare an image with its own original do not tell how well an attacker "
            "does who learns from such images of other people. "
            f"`{worst['anonymizer']}` has "
            f"{100 * worst['hifd_privacy'][0] / others['hifd_privacy'][0]:.0f} % of the privacy "
            "score that originals of other people have, and a recognizer tells "
            f"{100 * worst['told_from_original'][0]:.0f} % of its images from their originals. The "
            f"strongest attack identifies {percent(worst['strongest'])} % of them.",
            "",
            f"{report['images']} images of {report['identities']} people of `{report['source']}`, "
            f"through every anonymizer; {report['attackers']} others train the attackers. "
            f"{report['versions']}. Values and 95 % intervals over people; the audit's rates are "
            "rank-1 rates in % (Full-Ref, source excluded), chance "
            f"{100 * report['chance']:.1f} %.",
            "",
            "| anonymizer | HiFD's privacy score | told from the original by "
            "SFace, % | identified: recognizer as it is | identified: strongest attack | which |",
            "|---|---|---|---|---|---|",
            *lines,
            f"| originals of other people | {others['hifd_privacy'][0]:.2f} | "
            f"{percent(others['told_from_original'])} | | | |",
            "",
            "![Two measures that compare an image with its own original, and the audit](peers.svg)",
            "",
            f"```sh\n# needs: LFW\n{report['command']}\n```",
            "",
        ]
    )


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Three bars an anonymizer: two that say how private it looks, one how private it is."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "peers"
    from matplotlib import pyplot

    rows, of_strangers = report["rows"], report["strangers"]["hifd_privacy"][0]
    bars = {
        "HiFD's privacy score, % of a stranger's": [
            100 * row["hifd_privacy"][0] / of_strangers for row in rows
        ],
        "told from the original by SFace": [100 * row["told_from_original"][0] for row in rows],
        "not identified by the strongest attack": [100 - 100 * row["strongest"][0] for row in rows],
    }
    figure, axes = pyplot.subplots(figsize=(8, 0.7 * len(rows) + 1.2))
    places = np.arange(len(rows))
    for number, ((name, values), colour) in enumerate(
        zip(bars.items(), ("#9bb8d3", "#5b8db8", "#b5403a"), strict=True)
    ):
        axes.barh(places + 0.25 * number, values, 0.24, label=name, color=colour)
        for place, value in zip(places, values, strict=True):
            axes.text(value + 1, place + 0.25 * number, f"{value:.0f}", va="center", fontsize=7)
    axes.set_yticks(places + 0.25, [row["anonymizer"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 120)
    axes.set_xlabel("%; more looks, or is, more private")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3, frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="LFW, or aligned images by person")
    parser.add_argument("--layout", choices=["lfw", "folder"], default="lfw")
    parser.add_argument("--work", type=Path, required=True, help="folder outside of the repository")
    parser.add_argument("--deface", default="deface", help="the program")
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--images", type=int, default=5, help="of everybody evaluated, at least")
    parser.add_argument("--attackers", type=int, help="people who train attackers; default: all")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKERS, default=ATTACKERS)
    parser.add_argument("--cache", type=Path, help="stages of other audits; default: in --work")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("settings", nargs="*", help="of the audit, as key=value")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    version = subprocess.run(
        [options.deface, "--version"], check=True, capture_output=True, text=True
    )
    settings = composed(options)
    (options.work / "deface").mkdir(exist_ok=True)
    source = build_audit(settings).faces
    listing = source.listing()
    if options.attackers is None:
        participating = split_listing(listing, build_audit(settings).splits)
    else:
        participating = participants(build_audit(settings), options.attackers)
        settings = updated(settings, write_lists(participating, options.work))
    pairs = zip(listing["identity"].to_pylist(), listing["location"].to_pylist(), strict=True)
    places = [place for name, place in pairs if name in participating]
    deface(options.deface, source, places, options.work / "deface")
    config = build_audit(settings)
    audited = risks(run_audit(config, settings_of(settings)).table)
    folders = run_anonymization(replace(config, output=str(options.work / "images")))
    originals = Originals(source, [SFace(), DlibResNet()])
    rows = [
        {"anonymizer": Path(folder).name}
        | looks(Path(folder), originals)
        | audited[Path(folder).name]
        for folder in folders
    ]
    import hifd

    report = {
        "command": f"python benchmarks/peers.py --root DIR --layout {options.layout} --work DIR "
        f"--deface PROGRAM --identities {options.identities} --images {options.images} "
        + (f"--attackers {options.attackers} " if options.attackers else "")
        + f"--attacks {' '.join(options.attacks)} {' '.join(options.settings)}".rstrip(),
        "versions": f"deface {version.stdout.split()[-1]}, hifd {hifd.__version__}",
        "source": source.name,
        "identities": options.identities,
        "attackers": sum(split != EVALUATION for split in participating.values()),
        "images": rows[0]["images"],
        "chance": rows[0]["chance"],
        "strangers": strangers(exported(Path(folders[0], "manifest.csv"), source)[0], originals),
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "peers.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    draw(report, options.out / "peers.svg")
    text = markdown(report)
    (options.out / "peers.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
