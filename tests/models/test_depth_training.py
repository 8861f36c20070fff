"""Training the depth network: rendering with true depth, changed colours, one resumed run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cldmray.attackers.nn.training import Worker
from cldmray.conditions.depth_network import DepthArchitecture
from cldmray.engine.training import CHECKPOINT_FILE
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.faces.synthetic.scene import relative_depth, render
from cldmray.models.depth_training import DepthTraining, augment_colors, render_heads, train_depth
from cldmray.models.phases import BatchShard, PhaseConfig

PHASE = PhaseConfig(max_steps=4, batch_size=8, learning_rate=1e-3, warmup_steps=1)


def shard(batch: int, rank: int, workers: int) -> BatchShard:
    return BatchShard(batch, batch, seed=0, step=0, worker=Worker(rank, workers))


def whole(batch: int) -> BatchShard:
    return shard(batch, 0, 1)


class TestDisturb:
    def test_nothing_asked_changes_nothing(self) -> None:
        batch = torch.rand(4, 3, 8, 8)
        torch.testing.assert_close(augment_colors(batch, 0, 0, whole(4)), batch, atol=0, rtol=0)

    def test_contrast_and_colour_stay_in_bounds(self) -> None:
        batch = torch.ones(200, 3, 2, 2)
        augmented = augment_colors(batch, 0, 0.3, whole(200))
        assert float(augmented.min()) >= 1 - 0.6 and float(augmented.max()) <= 1 + 0.6
        assert float(augmented.mean(1).std()) > 0.1
        assert (augmented[:, 0] != augmented[:, 1]).any()

    def test_noise_stays_below_its_largest_strength(self) -> None:
        batch = torch.zeros(500, 3, 16, 16)
        spread = augment_colors(batch, 0.1, 0, whole(500)).std((1, 2, 3))
        assert float(spread.max()) < 0.2 * 1.2
        assert float(spread.mean()) == pytest.approx(0.1, abs=0.01)

    def test_a_worker_changes_its_own_as_one_alone_would(self) -> None:
        batch = torch.rand(7, 3, 4, 4)
        augmented = augment_colors(batch, 0.1, 0.3, whole(7))
        for rank in range(3):
            part = augment_colors(batch[rank::3], 0.1, 0.3, shard(7, rank, 3))
            torch.testing.assert_close(part, augmented[rank::3], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("key", "value"), [("noise", 1.5), ("contrast", -0.1), ("workers", 9), ("copies_per_image", 0)]
)
def test_a_wrong_training_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key}: "):
        replace(DepthTraining(phase=PHASE, storage="somewhere"), **{key: value})


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_rendered_people_are_trained_on_and_the_run_is_found_again(tmp_path: Path) -> None:
    source = SyntheticFaces(n_identities=6, images_per_identity=2, seed=5, size=32)
    rendered = render_heads(source, block_rows=5)
    locations = source.listing()["location"].to_pylist()
    for row in (0, 7, 11):
        identity, number = map(int, locations[row].split("/"))
        image = render(source.seed, identity, number, source.size)
        np.testing.assert_array_equal(rendered.images[row], image.image)
        np.testing.assert_array_equal(rendered.depth[row], relative_depth(image))

    training = DepthTraining(
        phase=PHASE, storage=str(tmp_path), checkpoint_every=2, precision="fp32", threads=1
    )
    arch = DepthArchitecture(32, (8, 16))
    network, curve = train_depth(rendered, training, arch)
    assert [point["step"] for point in curve] == [2, 4]
    (saved,) = tmp_path.rglob(CHECKPOINT_FILE)
    written = saved.stat().st_mtime_ns
    again, _ = train_depth(rendered, training, arch)
    assert saved.stat().st_mtime_ns == written
    for key, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, atol=0, rtol=0)
