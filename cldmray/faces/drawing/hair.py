"""Hair, beard and glasses of a sitter."""

import numpy as np

from cldmray.faces.drawing.canvas import Points, ellipse, smooth
from cldmray.faces.drawing.person import CURLY, FULL_BEARD, GOATEE, LONG, ROUND_GLASSES
from cldmray.faces.drawing.sitter import Sitter

FRAME = np.array([38, 34, 40], np.float32)
STRANDS = 7


def behind(sitter: Sitter) -> None:
    """The part of long hair that falls behind head and shoulders."""
    person, shot = sitter.person, sitter.shot
    w, h = person.width + person.hair_volume + 0.03, person.height
    end = -0.1 * h + 1.4 * person.hair_length
    turn = -0.1 * np.sin(shot.yaw)
    outline = [(turn, -h - person.hair_volume), (0.75 * w + turn, -0.75 * h), (w + turn, -0.1 * h)]
    outline += [(1.08 * w + turn, 0.5 * end + 0.1), (0.95 * w + turn, end + 0.2)]
    outline += [(turn, end + 0.25), (-0.95 * w + turn, end + 0.2)]
    outline += [(-1.08 * w + turn, 0.5 * end + 0.1), (-w + turn, -0.1 * h)]
    outline += [(-0.75 * w + turn, -0.75 * h)]
    sitter.canvas.paint(sitter.place(smooth(outline)), person.hair_colour * 0.72)


def hair(sitter: Sitter) -> None:
    """The cap of hair from temple to temple, its hairline and some strands."""
    person, canvas = sitter.person, sitter.canvas
    crown, line = _crown(sitter), _hairline(sitter)
    edge = line + np.array([0.0, 0.035], np.float32)
    canvas.stroke(edge, 0.05, person.skin * 0.55, 0.45, soft=0.02)
    canvas.paint(np.concatenate([crown, line[::-1]]), person.hair_colour)
    picks = np.linspace(0.12, 0.88, STRANDS)
    for number, place in enumerate(picks):
        top = crown[round(place * (len(crown) - 1))]
        foot = line[round(place * (len(line) - 1))]
        middle = 0.5 * (top + foot) + (0.08 * person.hair_sweep, 0.0)
        tone = 1.45 if number % 2 else 0.6
        strand = smooth([0.9 * top + 0.1 * foot, middle, 0.1 * top + 0.9 * foot], False)
        canvas.stroke(strand, 0.025, person.hair_colour * tone, 0.4, soft=0.008)
    if person.hair == CURLY:
        for number, (x, y) in enumerate(crown[:: max(1, len(crown) // 13)]):
            radius = 0.09 + 0.03 * (number % 3)
            canvas.paint(
                ellipse(x, y, radius, radius), person.hair_colour * (0.9 + 0.1 * (number % 2))
            )
            canvas.stroke(
                ellipse(x, y, 0.6 * radius, 0.6 * radius)[:16], 0.02, person.hair_colour * 1.4, 0.5
            )


def beard(sitter: Sitter) -> None:
    """Moustache, goatee or full beard, under the mouth that is drawn later."""
    person, canvas = sitter.person, sitter.canvas
    w, h = person.width, person.height
    y, half = person.mouth_height * h, person.mouth_width
    colour = person.hair_colour * 0.85
    lip = y - 0.9 * person.upper_lip
    if person.beard == FULL_BEARD:
        side = w * 0.93
        outline = [(-side, 0.05 * h), (-0.74 * w, 0.36 * h), (-half * 1.1, lip - 0.02), (0.0, lip)]
        outline += [(half * 1.1, lip - 0.02), (0.74 * w, 0.36 * h), (side, 0.05 * h)]
        outline += [(w * person.jaw * 0.92, 0.62 * h), (person.chin * w, 1.0 * h), (0.0, 1.1 * h)]
        outline += [(-person.chin * w, 1.0 * h), (-w * person.jaw * 0.92, 0.62 * h)]
        canvas.paint(sitter.face(smooth(outline), 0.04), colour, 0.9, soft=0.012)
    elif person.beard == GOATEE:
        outline = [
            (-half, y + 0.03),
            (0.0, lip - 0.02),
            (half, y + 0.03),
            (0.6 * half, h),
            (0.0, 1.05 * h),
        ]
        outline += [(-0.6 * half, h)]
        canvas.paint(sitter.face(smooth(outline), 0.04), colour, 0.88, soft=0.012)
    whiskers = [(-1.15 * half, y + 0.02), (-0.5 * half, lip - 0.045), (0.0, lip - 0.03)]
    whiskers += [(0.5 * half, lip - 0.045), (1.15 * half, y + 0.02), (0.0, lip + 0.03)]
    canvas.paint(sitter.face(smooth(whiskers), 0.05), colour, 0.9, soft=0.01)


def glasses(sitter: Sitter) -> None:
    """Round or square frames with a bridge and temples."""
    person, canvas = sitter.person, sitter.canvas
    x = person.eye_spacing * person.width
    y = person.eye_height * person.height + 0.015
    half = min(0.85 * x, 1.5 * person.eye_width)
    for side in (-1.0, 1.0):
        if person.glasses == ROUND_GLASSES:
            rim = ellipse(side * x, y, half, half)
        else:
            corners = [(-1, -0.65), (0, -0.72), (1, -0.65), (1, 0.5), (0, 0.72), (-1, 0.5)]
            rim = smooth(np.asarray(corners) * half + (side * x, y))
        seen = sitter.face(rim, 0.06)
        canvas.paint(seen, FRAME + 180, 0.12)
        canvas.stroke(np.concatenate([seen, seen[:1]]), 0.03, FRAME, 0.95)
        arm = [(side * (x + half), y - 0.02), (side * person.width, y - 0.03)]
        canvas.stroke(sitter.face(arm, 0.03), 0.03, FRAME, 0.9)
    bridge = [(half - x, y - 0.02), (0.0, y - 0.05), (x - half, y - 0.02)]
    canvas.stroke(sitter.face(smooth(bridge, False), 0.08), 0.028, FRAME, 0.95)


def _crown(sitter: Sitter) -> Points:
    """The hair's outer edge, from the left temple over the top to the right one."""
    person, shot = sitter.person, sitter.shot
    low = person.sideburn * person.height + (0.35 if person.hair == LONG else 0.0)
    wide, high = person.width + 0.5 * person.hair_volume, person.height + person.hair_volume
    angle = np.linspace(np.pi, 2 * np.pi, 13)
    x = wide * np.cos(angle)
    x -= 0.1 * np.sin(shot.yaw)
    y = high * np.sin(angle) - 0.05 * np.sin(shot.pitch)
    ends = [
        (-wide * 1.02 - 0.06 * np.sin(shot.yaw), low),
        (wide * 1.02 - 0.06 * np.sin(shot.yaw), low),
    ]
    return sitter.place(smooth([ends[0], *np.stack([x, y], axis=1), ends[1]], False))


def _hairline(sitter: Sitter) -> Points:
    """The hair's inner edge on the forehead, from the left temple to the right one."""
    person = sitter.person
    w, h = person.width, person.height
    low = person.sideburn * h + (0.35 if person.hair == LONG else 0.0)
    line, peak, sweep = person.hairline * h, person.hair_peak * h, person.hair_sweep * h
    points = [
        (-0.93 * w, low),
        (-0.88 * w, min(-0.25 * h, low - 0.05)),
        (-0.7 * w, line + 0.2 * h - 0.3 * sweep),
        (-0.38 * w, line - 0.5 * sweep - 0.3 * peak),
        (0.0, line + peak),
        (0.38 * w, line + 0.5 * sweep - 0.3 * peak),
        (0.7 * w, line + 0.2 * h + 0.3 * sweep),
        (0.88 * w, min(-0.25 * h, low - 0.05)),
        (0.93 * w, low),
    ]
    return sitter.face(smooth(points, False))
