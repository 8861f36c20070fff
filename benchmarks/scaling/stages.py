"""The stages of an audit on synthetic people, in a process of its own: ``stages.py SETTINGS``.

``SETTINGS`` is JSON: ``anonymizer``, ``steps``, ``attacker``, ``pictures``, ``distinct``,
``folder``, and ``engine``, which are settings of :class:`cldmray.engine.cluster.EngineConfig`.
Every line of the output is JSON too: ``begin`` names a stage that starts; the last line tells what
was found.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHOTOS = 5
"""Of each person."""


class Store:
    """Watches Ray's object store from a thread of its own.

    Attributes:
        peak: bytes that objects took at most.
        spilled: bytes that were written to disk for want of room.
    """

    def __init__(self) -> None:
        self.peak = self.spilled = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def look(self) -> None:
        """Ask Ray once."""
        import ray
        from ray._private.internal_api import get_memory_info_reply, get_state_from_address

        state = get_state_from_address(ray.get_runtime_context().gcs_address)
        stats = get_memory_info_reply(state).store_stats
        self.peak = max(self.peak, stats.object_store_bytes_used)
        self.spilled = stats.spilled_bytes_total

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(0.5)


def anonymizer(name: str, steps: int) -> Any:
    """The setting of a name: ``copy``, or ``cldm``, the shipped model on Canny edges."""
    from cldmray.anonymizers.baselines import Copy
    from cldmray.anonymizers.diffusion.settings import Control, Diffusion
    from cldmray.conditions import Canny

    if name == "copy":
        return Copy()
    return Diffusion(controls={"canny": Control(Canny(), "controlnet-canny")}, steps=steps)


def attacker(name: str) -> Any:
    """The rung of a name: ``off_the_shelf``, which needs the extra ``recognizer``, or another.

    The other, ``edge_match``, makes embeddings about as long in a small part of the time.
    """
    from cldmray.attackers.condition_match import EdgeMatch
    from cldmray.attackers.pretrained import OffTheShelf

    return OffTheShelf() if name == "off_the_shelf" else EdgeMatch(side=11)


def repeated(location: str, distinct: int | None) -> str:
    """Where a picture is taken from: of only so many people, whom all others look like."""
    person, _, photo = location.partition("/")
    return location if distinct is None else f"{int(person) % distinct}/{photo}"


def main(settings: dict[str, Any]) -> None:
    """Run the stages and print what each took."""
    import pyarrow as pa

    from cldmray.config.audit import AuditSettings
    from cldmray.engine.anonymize import anonymize, evaluation_draws
    from cldmray.engine.artifacts import StageTable, read_manifest
    from cldmray.engine.cluster import EngineConfig, connect
    from cldmray.engine.embed import embed_views
    from cldmray.engine.faces import load_faces
    from cldmray.evaluation.identification import attacks
    from cldmray.faces import SyntheticFaces
    from cldmray.faces.records import EVALUATION, ORIGINAL

    engine = EngineConfig(address="local", progress=False, **settings["engine"])
    work = Path(settings["folder"])
    member, rung = (
        anonymizer(settings["anonymizer"], settings["steps"]),
        attacker(settings["attacker"]),
    )
    stages: dict[str, dict[str, float]] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        print(json.dumps({"begin": name}), flush=True)
        started = time.perf_counter()
        found = step()
        seconds = time.perf_counter() - started
        size = sum(file.stat().st_size for file in (work / name).glob("*"))
        stages[name] = {"seconds": seconds, "bytes": size}
        return found

    def table(name: str, produce: Callable[[str], None]) -> StageTable:
        folder = str(work / name)
        timed(name, lambda: produce(folder))
        manifest = read_manifest(folder)
        assert manifest is not None
        return StageTable(folder, manifest, name)

    count = settings["pictures"]
    timed("start", lambda: connect(engine))
    store = Store()

    def load(folder: str) -> None:
        source = SyntheticFaces(people=-(-count // PHOTOS), photos_per_person=PHOTOS)
        listing = source.listing().slice(0, count)
        places = [repeated(one, settings["distinct"]) for one in listing["location"].to_pylist()]
        listing = listing.set_column(2, "location", pa.array(places))
        splits = pa.array([EVALUATION] * listing.num_rows, pa.string())
        load_faces(source, listing.append_column("split", splits), engine, folder)

    faces = table("faces", load)
    draws = evaluation_draws(0)
    redrawn = table("anonymize", lambda folder: anonymize(faces, member, draws, 0, engine, folder))
    embedded = table(
        "embed", lambda folder: embed_views(rung, None, faces, [redrawn], engine, folder)
    )
    ranked = timed(
        "rank",
        lambda: attacks([embedded.read()], member.name, rung.name, AuditSettings(), ORIGINAL),
    )
    store.look()
    found = {
        "stages": stages,
        "rows": {t.key: t.manifest.rows for t in (faces, redrawn, embedded)},
        "attacks": len(ranked),
        "probes": len(ranked[0].rank_1),
        "rank_1": float(ranked[0].rank_1.mean()),
        "store_peak": store.peak / 2**20,
        "spilled": store.spilled / 2**20,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
