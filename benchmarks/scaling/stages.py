"""The stages of an audit on synthetic people, in a process of its own: ``stages.py SETTINGS``.

``SETTINGS`` is JSON: ``anonymizer``, ``steps``, ``attacker``, ``images``, ``size``, ``distinct``,
``folder``, and ``engine``, which are settings of :class:`cldmray.engine.cluster.EngineConfig`.
Every line of the output is JSON too: ``begin`` names a stage that starts; the last line tells what
was found.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

IMAGES = 5
"""Of each person."""
NOISE = 24
"""Grey levels that are added or taken at most, where few people are drawn."""


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


def build_anonymizer(name: str, steps: int) -> Any:
    """The setting of a name: ``no_op``, or ``cldm``, the shipped model on Canny edges."""
    from cldmray.anonymizers.baselines import NoOp
    from cldmray.anonymizers.diffusion import Control, Diffusion
    from cldmray.conditions import Canny

    if name == "no_op":
        return NoOp()
    return Diffusion(
        controls={"canny": Control(Canny(), "controlnet-canny")}, num_inference_steps=steps
    )


def build_attacker(name: str) -> Any:
    """The attacker of a name: ``pretrained``, which needs the extra ``recognizer``, or another.

    The other, ``condition_match``, makes embeddings about as long in a small part of the time.
    """
    from cldmray.attackers.condition_match import ConditionMatch
    from cldmray.attackers.pretrained import Pretrained

    return Pretrained() if name == "pretrained" else ConditionMatch(side=11)


def build_source(count: int, size: int, distinct: int | None) -> Any:
    """Synthetic people; of only so many drawn ones, whom all others look like but for noise.

    Without the noise, images of one drawn person would tie, and the ranking would take as long as
    that of an encoder that tells nobody apart.
    """
    import numpy as np

    from cldmray.faces import SyntheticFaces
    from cldmray.faces.records import decode_image, encode_image

    class NoisyFaces(SyntheticFaces):
        def read(self, locations: Sequence[str]) -> list[bytes | None]:
            if distinct is None:
                return super().read(locations)
            places = [tuple(map(int, location.split("/"))) for location in locations]
            drawn = super().read([f"{identity % distinct}/{image}" for identity, image in places])
            return [noisy(*each) for each in zip(places, drawn, strict=True)]

    def noisy(place: tuple[int, ...], image: bytes | None) -> bytes:
        levels = decode_image(image or b"")
        noise = np.random.default_rng(place).integers(-NOISE, NOISE + 1, levels.shape)
        return encode_image(np.clip(levels + noise, 0, 255).astype(np.uint8))

    return NoisyFaces(n_identities=-(-count // IMAGES), images_per_identity=IMAGES, size=size)


def main(settings: dict[str, Any]) -> None:
    """Run the stages and print what each took."""
    import pyarrow as pa

    from cldmray.config.audit import AuditSettings
    from cldmray.engine.artifacts import Artifact, read_manifest
    from cldmray.engine.cluster import EngineConfig, connect
    from cldmray.engine.map_stages.anonymize import anonymize, samples_per_split
    from cldmray.engine.map_stages.embed import embed_views
    from cldmray.engine.map_stages.faces import load_faces
    from cldmray.engine.tasks import map_in_tasks
    from cldmray.evaluation.identification import attacks
    from cldmray.faces.records import EVALUATION, ORIGINAL
    from cldmray.faces.splits import SplitConfig, split_listing
    from cldmray.hashing import fingerprint_rows

    engine = EngineConfig(address="local", progress=False, **settings["engine"])
    cache_dir = Path(settings["folder"])
    anonymizer, attacker = (
        build_anonymizer(settings["anonymizer"], settings["steps"]),
        build_attacker(settings["attacker"]),
    )
    stages: dict[str, dict[str, float]] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        print(json.dumps({"begin": name}), flush=True)
        started = time.perf_counter()
        record = step()
        seconds = time.perf_counter() - started
        size = sum(file.stat().st_size for file in (cache_dir / name).glob("*"))
        stages[name] = {"seconds": seconds, "bytes": size}
        return record

    def table(name: str, produce: Callable[[str], None]) -> Artifact:
        folder = str(cache_dir / name)
        timed(name, lambda: produce(folder))
        manifest = read_manifest(folder)
        assert manifest is not None
        return Artifact(folder, manifest, name)

    count = settings["images"]
    source = build_source(count, settings["size"], settings["distinct"])
    timed("start", lambda: connect(engine))
    store = Store()

    def load(folder: str) -> None:
        listing = source.listing().slice(0, count)
        splits = pa.array([EVALUATION] * listing.num_rows, pa.string())
        load_faces(source, listing.append_column("split", splits), engine, folder)

    faces = table("faces", load)
    samples = samples_per_split(0)
    anonymized = table(
        "anonymize", lambda folder: anonymize(faces, anonymizer, samples, 0, engine, folder)
    )
    embedded = table(
        "embed", lambda folder: embed_views(attacker, None, faces, [anonymized], engine, folder)
    )
    ranked = timed(
        "rank",
        lambda: attacks(
            [embedded.read()],
            anonymizer.name,
            attacker.name,
            AuditSettings(),
            ORIGINAL,
            apply=map_in_tasks,
        ),
    )

    def find_again() -> None:
        """What an audit does that finds its stages: list, split, hash, read what is ranked."""
        listing = source.listing().slice(0, count)
        split_listing(listing, SplitConfig(n_evaluation_identities=count // IMAGES))
        fingerprint_rows(map(repr, zip(*(column.to_pylist() for column in listing), strict=True)))
        for artifact in (faces, anonymized, embedded):
            assert read_manifest(artifact.folder) is not None
        embedded.read()

    timed("resume", find_again)
    store.look()
    record = {
        "stages": stages,
        "rows": {t.key: t.manifest.rows for t in (faces, anonymized, embedded)},
        "attacks": len(ranked),
        "probes": len(ranked[0].rank_1),
        "rank_1": float(ranked[0].rank_1.mean()),
        "store_peak": store.peak / 2**20,
        "spilled": store.spilled / 2**20,
    }
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
