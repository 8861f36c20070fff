"""Line drawings of the documentation: boxes and arrows as SVG files that need no network.

    python docs/make_drawings.py

writes ``docs/drawings``. A drawing is 520 units wide, so that its words can be read on a telephone;
its colours follow the reader's choice of light or dark. ``tests/test_drawings.py`` checks that
the files are what this makes, and that no box or arrow runs into another box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "drawings"
WIDTH = 520
LINE, SMALL_LINE = 19, 16
"""Height of a line of text: in a box, beside an arrow."""
STYLE = """
:root{--page:#ffffff;--ink:#1f2933;--soft:#52606d;--edge:#7b8794;--box:#eef2f6;--group:#f8fafb;
--yes:#e3f4e8;--yes-edge:#2f855a;--no:#fdecea;--no-edge:#b42318;--open:#fdf3d7;--open-edge:#a16207}
@media (prefers-color-scheme:dark){:root{--page:#1a1c1e;--ink:#e6e9ec;--soft:#b4bcc4;--edge:#8a94a0;
--box:#2b3138;--group:#212529;--yes:#1d3a2a;--yes-edge:#5fbf8a;--no:#46211e;--no-edge:#ef8d84;
--open:#40351a;--open-edge:#dcb457}}
text{font:15px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--ink);
text-anchor:middle}
.page{fill:var(--page)}.group{fill:var(--group);stroke:var(--edge);stroke-dasharray:2 4}
.box{fill:var(--box);stroke:var(--edge);stroke-width:1.3}
.yes{fill:var(--yes);stroke:var(--yes-edge)}.no{fill:var(--no);stroke:var(--no-edge)}
.open{fill:var(--open);stroke:var(--open-edge)}
.name{font-weight:600}.note{font-size:13.5px;fill:var(--soft);stroke:var(--page);stroke-width:5px;
paint-order:stroke;stroke-linejoin:round}
.arrow{fill:none;stroke:var(--edge);stroke-width:1.5}.dashed{stroke-dasharray:6 4}
.head{fill:var(--edge)}
""".strip()

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box of text.

    Attributes:
        x, y: of its centre.
        text: its lines.
        width, height: of the box.
        kind: ``box``, or the answer that it stands for: ``yes``, ``no``, ``open``.
        named: whether the first line is a name, in bold.
    """

    x: float
    y: float
    text: Sequence[str]
    width: float = 110
    height: float = 36
    kind: str = "box"
    named: bool = False

    @property
    def sides(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        half, tall = self.width / 2, self.height / 2
        return self.x - half, self.y - tall, self.x + half, self.y + tall

    def svg(self) -> str:
        """The box and its lines."""
        left, top, _, _ = self.sides
        shape = (
            f'<rect class="box {self.kind}" x="{left:g}" y="{top:g}" width="{self.width:g}" '
            f'height="{self.height:g}" rx="7"/>'
        )
        first = self.y - LINE * (len(self.text) - 1) / 2 + 5
        lines = [
            f'<text{_name(self.named and row == 0)} x="{self.x:g}" y="{first + LINE * row:g}">'
            f"{escape(line)}</text>"
            for row, line in enumerate(self.text)
        ]
        return "\n".join([shape, *lines])


@dataclass(frozen=True)
class Arrow:
    """A line from box to box.

    Attributes:
        points: its corners, the last of which gets the head.
        note: lines of text beside it.
        at: centre of the note; None: the middle of the first piece of the line.
        dashed: whether the line is.
    """

    points: Sequence[Point]
    note: Sequence[str] = ()
    at: Point | None = None
    dashed: bool = False

    def svg(self) -> str:
        """The line and its head."""
        (x0, y0), (x1, y1) = self.points[-2:]
        length = max(1e-9, ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)
        across, down = (x1 - x0) / length, (y1 - y0) / length
        base = x1 - 9 * across, y1 - 9 * down
        corners = [
            (x1, y1),
            (base[0] - 4.5 * down, base[1] + 4.5 * across),
            (base[0] + 4.5 * down, base[1] - 4.5 * across),
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*self.points[:-1], base])
        head = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        kind = "arrow dashed" if self.dashed else "arrow"
        return (
            f'<polyline class="{kind}" points="{line}"/>\n<polygon class="head" points="{head}"/>'
        )

    def note_svg(self) -> str:
        """The text beside the line."""
        (x0, y0), (x1, y1) = self.points[:2]
        x, y = self.at or ((x0 + x1) / 2, (y0 + y1) / 2)
        first = y - SMALL_LINE * (len(self.note) - 1) / 2 + 5
        return "\n".join(
            f'<text class="note" x="{x:g}" y="{first + SMALL_LINE * row:g}">{escape(line)}</text>'
            for row, line in enumerate(self.note)
        )


@dataclass(frozen=True)
class Drawing:
    """Boxes, arrows and groups.

    Attributes:
        title: what a screen reader says.
        height: of the drawing.
        boxes: by name.
        arrows: in any order.
        groups: boxes behind the others, whose text stands at their top.
    """

    title: str
    height: float
    boxes: Mapping[str, Box]
    arrows: Sequence[Arrow]
    groups: Sequence[Box] = field(default_factory=list)

    def svg(self) -> str:
        """The file."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" '
            f'height="{self.height:g}" viewBox="0 0 {WIDTH} {self.height:g}">',
            f"<title>{escape(self.title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{self.height:g}" rx="8"/>',
        ]
        for group in self.groups:
            left, top, _, _ = group.sides
            parts.append(
                f'<rect class="group" x="{left:g}" y="{top:g}" width="{group.width:g}" '
                f'height="{group.height:g}" rx="10"/>\n'
                f'<text class="name" x="{group.x:g}" y="{top + 22:g}">{group.text[0]}</text>'
            )
        parts += [arrow.svg() for arrow in self.arrows]
        parts += [box.svg() for box in self.boxes.values()]
        parts += [arrow.note_svg() for arrow in self.arrows if arrow.note]
        return "\n".join([*parts, "</svg>", ""])


def _name(named: bool) -> str:
    return ' class="name"' if named else ""


def join(
    boxes: Mapping[str, Box], start: str, end: str, note: Sequence[str] = (), *,
    leave: float | None = None, reach: float | None = None, at: Point | None = None,
) -> Arrow:  # fmt: skip
    """A straight arrow from the bottom of a box to the top of another.

    Args:
        boxes: by name.
        start, end: names of the two.
        note, at: see :class:`Arrow`.
        leave, reach: where it touches them, from left to right; None: half-way towards the other.
    """
    first, last = boxes[start], boxes[end]
    x0 = leave if leave is not None else _towards(first, last.x)
    x1 = reach if reach is not None else _towards(last, first.x)
    return Arrow([(x0, first.sides[3]), (x1, last.sides[1])], note, at)


def _towards(box: Box, x: float) -> float:
    """A place on a box's edge on the side of another one."""
    room = box.width / 2 - 14
    return box.x + max(-room, min(room, 0.3 * (x - box.x)))


def way_of_an_image() -> Drawing:
    """What the packages hand to each other."""
    rows = (
        ("faces", "read, detect, align, split"),
        ("anonymizers", "conditions, anonymize"),
        ("attackers", "fit, embed"),
        ("gallery", "score, rank"),
        ("evaluation", "rates, bounds, decision"),
        ("results", "typed records"),
    )
    boxes = {
        name: Box(225, 40 + 96 * row, (name, does), 230, 52, named=True)
        for row, (name, does) in enumerate(rows)
    }
    boxes["report"] = Box(120, 616, ("report", "page, terminal, figures"), 200, 52, named=True)
    boxes["tracking"] = Box(340, 616, ("tracking", "MLflow"), 130, 52, named=True)
    notes = ("originals", "anonymized images", "embeddings", "ranks, comparison scores", "")
    arrows = [
        join(boxes, start, end, (note,) if note else ())
        for (start, _), (end, _), note in zip(rows, rows[1:], notes, strict=False)
    ]
    side = boxes["faces"].sides[2]
    references = [(side, 40.0), (430.0, 40.0), (430.0, 232.0), (side, 232.0)]
    arrows.append(Arrow(references, ("references",), (430, 136)))
    arrows += [join(boxes, "results", "report"), join(boxes, "results", "tracking")]
    title = "The way of an image through the packages of cldmray"
    return Drawing(title, 656, boxes, arrows)


def packages() -> Drawing:
    """Which package imports which."""
    places = {
        "cli · jobs/": (325, 0, 110),
        "pipelines": (325, 1, 110),
        "models": (65, 2, 100),
        "config": (180, 2, 100),
        "engine": (65, 3, 100),
        "tracking": (195, 3, 100),
        "evaluation": (325, 3, 104),
        "report": (455, 3, 100),
        "anonymizers": (65, 4, 110),
        "attackers": (195, 4, 100),
        "results": (455, 4, 104),
        "conditions": (135, 5, 104),
        "recognizers": (250, 5, 106),
        "gallery": (408, 5, 92),
        "faces": (58, 6, 84),
        "metrics": (340, 6, 100),
        "detection": (160, 7, 104),
    }
    boxes = {
        name: Box(x, 36 + 76 * row, (name,), width) for name, (x, row, width) in places.items()
    }
    modules = ("arrays · errors · hashing · settings · storage",)
    boxes["root"] = Box(260, 36 + 76 * 8, modules, 500)
    imports = {
        "cli · jobs/": ["pipelines"],
        "pipelines": ["models", "config", "report", "tracking", "evaluation"],
        "config": ["evaluation", "tracking", "engine"],
        "models": ["engine"],
        "report": ["results"],
        "tracking": ["results"],
        "evaluation": ["gallery", "metrics", "results"],
        "engine": ["attackers", "anonymizers"],
        "attackers": ["recognizers", "conditions", "gallery"],
        "anonymizers": ["conditions", "faces"],
        "recognizers": ["detection"],
        "conditions": ["faces"],
        "faces": ["detection"],
        "gallery": ["metrics"],
        "metrics": ["root"],
        "results": ["root"],
        "detection": ["root"],
    }
    ends = {
        ("pipelines", "tracking"): (300, 215),
        ("evaluation", "metrics"): (325, 331),
        ("anonymizers", "faces"): (44, 44),
        ("results", "root"): (488, 488),
        ("metrics", "root"): (340, 340),
        ("detection", "root"): (160, 160),
        ("recognizers", "detection"): (228, 186),
    }
    arrows = []
    for start, others in imports.items():
        for end in others:
            leave, reach = ends.get((start, end), (None, None))
            arrows.append(join(boxes, start, end, leave=leave, reach=reach))
    return Drawing("Which package of cldmray imports which", 680, boxes, arrows)


def release() -> Drawing:
    """The questions that decide on a release."""
    boxes = {
        "attack": Box(160, 45, ("an attack significantly", "above chance and 1/20"), 230, 58),
        "bound": Box(160, 155, ("upper bound of every", "attack at most 1/20"), 230, 58),
        "ability": Box(160, 265, ("attackers have", "shown their ability"), 230, 58),
        "rules": Box(160, 375, ("rules of audit.fail_on", "kept"), 230, 58),
        "no": Box(435, 45, ("no",), 120, 44, "no", True),
        "inconclusive": Box(435, 265, ("inconclusive",), 120, 150, "open", True),
        "yes": Box(160, 475, ("yes",), 120, 44, "yes", True),
    }
    down = (
        ("attack", "bound", "no"),
        ("bound", "ability", "yes"),
        ("ability", "rules", "yes"),
        ("rules", "yes", "yes"),
    )
    arrows = [join(boxes, start, end, (note,)) for start, end, note in down]
    arrows.append(Arrow([(275, 45), (375, 45)], ("yes",)))
    for name, y in (("bound", 215), ("ability", 265), ("rules", 315)):
        start = boxes[name].y
        corner = [(325.0, start), (325.0, float(y))] if start != y else []
        arrows.append(Arrow([(275, start), *corner, (375, y)], ("no",), (300, start)))
    return Drawing("The questions that decide on a release", 512, boxes, arrows)


def threat_model() -> Drawing:
    """Who knows what."""
    boxes = {
        "original": Box(80, 80, ("original", "of a person"), 116, 54),
        "anonymizer": Box(80, 200, ("anonymizer",), 116, 54),
        "probe": Box(80, 320, ("anonymized", "image"), 116, 54),
        "others": Box(389, 200, ("images of other people",), 210, 54),
        "attacker": Box(389, 320, ("attacker",), 210, 54, named=True),
        "known": Box(327, 446, ("images", "with names", "(gallery)"), 108, 74),
        "answer": Box(451, 446, ("who is it?", "ranked", "identities"), 108, 74),
    }
    groups = [
        Box(80, 256, ("who publishes",), 136, 492),
        Box(389, 256, ("who attacks",), 250, 492),
    ]
    left, right = boxes["anonymizer"].sides[2], boxes["others"].sides[0]
    arrows = [
        join(boxes, "original", "anonymizer"),
        join(boxes, "anonymizer", "probe"),
        Arrow([(left, 320), (right, 320)], ("published",), (206, 320)),
        Arrow([(389, 227), (389, 293)], ("learns from",), (389, 260), dashed=True),
        Arrow([(327, 409), (327, 347)]),
        Arrow([(451, 347), (451, 409)]),
        Arrow(
            [(right, 200), (left, 200)],
            ("only adaptive", "attackers", "may query it"), (206, 160), dashed=True,
        ),
    ]  # fmt: skip
    title = "Who publishes, who attacks, and what passes between them"
    return Drawing(title, 516, boxes, arrows, groups)


def splits() -> Drawing:
    """Who may learn from whom."""
    evaluated = ("evaluation", "100 people with", "5 images or more")
    boxes = {
        "people": Box(260, 36, ("all people",), 130, 40, named=True),
        "attacker": Box(105, 140, ("attacker",), 120, 64, named=True),
        "evaluation": Box(265, 140, evaluated, 152, 74, named=True),
        "auxiliary": Box(435, 140, ("auxiliary",), 120, 64, named=True),
        "training": Box(62, 256, ("training",), 92, 48),
        "validation": Box(170, 256, ("validation", "15 %"), 96, 52),
        "anonymizer": Box(435, 256, ("anonymizer",), 120, 48),
        "gallery": Box(295, 372, ("gallery",), 100, 44),
        "probes": Box(435, 372, ("probes",), 100, 44),
        "attackers": Box(260, 492, ("attackers",), 490, 48, named=True),
    }
    arrows = [
        join(boxes, "people", "attacker"),
        join(boxes, "people", "evaluation"),
        join(boxes, "people", "auxiliary"),
        join(boxes, "attacker", "training"),
        join(boxes, "attacker", "validation"),
        join(boxes, "auxiliary", "anonymizer", ("may train",)),
        join(boxes, "evaluation", "gallery", ("originals",), leave=285, reach=295, at=(291, 300)),
        join(boxes, "evaluation", "anonymizer", leave=325, reach=395),
        join(boxes, "anonymizer", "probes", ("anonymized images",)),
        join(boxes, "training", "attackers", ("pairs of", "image and", "anonymized", "image"),
             leave=62, reach=62, at=(62, 372)),
        join(boxes, "validation", "attackers", ("choose steps", "and weights"),
             leave=170, reach=170, at=(170, 372)),
        join(boxes, "gallery", "attackers", leave=295, reach=295),
        join(boxes, "probes", "attackers", leave=435, reach=435),
    ]  # fmt: skip
    return Drawing("How people are divided, and who may learn from whom", 532, boxes, arrows)


DRAWINGS = {
    "way_of_an_image": way_of_an_image,
    "packages": packages,
    "release": release,
    "threat_model": threat_model,
    "splits": splits,
}
"""What makes each file."""


def main(folder: Path = FOLDER) -> None:
    """Write all drawings."""
    folder.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (folder / f"{name}.svg").write_text(draw().svg(), "utf-8")


if __name__ == "__main__":
    main()
