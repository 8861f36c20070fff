"""Who goes where: the rule, the lists, CelebA's partition."""

import pyarrow as pa
import pytest

from cldmray.config.instantiate import build
from cldmray.errors import BadInputError, ConfigError
from cldmray.faces import SplitConfig, assert_disjoint, assign, celeba_partition, split_listing
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, AUXILIARY, EVALUATION, SPLITS
from cldmray.faces.splits import AUXILIARY_SALT
from cldmray.hashing import identity_hash, safe_location, unit_hash

ATTACKERS = {ATTACKER, ATTACKER_VALIDATION}
IDENTITIES = {f"p{i}": 8 if i < 100 else 2 for i in range(1000)}
CONFIG = SplitConfig(n_evaluation_identities=30)


def of(splits, *wanted):
    return {identity for identity, split in splits.items() if split in wanted}


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_the_rule():
    splits = assign(IDENTITIES, CONFIG)
    assert set(splits) == set(IDENTITIES) and set(splits.values()) == set(SPLITS)
    many = [f"p{i}" for i in range(100)]
    few = [f"p{i}" for i in range(100, 1000)]
    first = sorted(many, key=lambda p: unit_hash("evaluation", 0, p))[:30]
    assert of(splits, EVALUATION) == set(first)
    assert of(splits, *ATTACKERS) & set(many) == set(many) - set(first)
    auxiliary = {p for p in few if unit_hash(AUXILIARY_SALT, 0, p) < 0.6}
    assert of(splits, AUXILIARY) == auxiliary
    assert 0.55 < len(auxiliary) / 900 < 0.65
    validation = {p for p in of(splits, *ATTACKERS) if unit_hash("validation", 0, p) < 0.15}
    assert of(splits, ATTACKER_VALIDATION) == validation


def test_order_does_not_matter_but_the_seed_does():
    backwards = dict(reversed(IDENTITIES.items()))
    assert assign(backwards, CONFIG) == assign(IDENTITIES, CONFIG)
    assert assign(IDENTITIES, SplitConfig(seed=1, n_evaluation_identities=30)) != assign(
        IDENTITIES, CONFIG
    )


@pytest.mark.parametrize("images", [2, 8])
def test_a_new_person_moves_nobody_between_background_and_attacker(images):
    before = assign(IDENTITIES, CONFIG)
    for number in range(20):
        after = assign({**IDENTITIES, f"new{number}": images}, CONFIG)
        moved = {p: (before[p], after[p]) for p in before if before[p] != after[p]}
        assert all(old == EVALUATION and new in ATTACKERS for old, new in moved.values())
        assert len(moved) <= 1


def test_too_few_people():
    cure = r"set splits\.n_evaluation_identities=66 or less \(attackers need the others\)"
    with pytest.raises(BadInputError, match=f"^100 people .* 101 are .* {cure}"):
        assign(IDENTITIES, SplitConfig(n_evaluation_identities=101))


def test_one_list_leaves_the_rule_for_the_others(tmp_path):
    names = [f"p{i}" for i in range(20)]
    config = SplitConfig(evaluation=write(tmp_path / "e.txt", *names, "", " p0 "))
    splits = assign(IDENTITIES, config)
    assert of(splits, EVALUATION) == set(names)
    assert {f"p{i}" for i in range(20, 100)} <= of(splits, *ATTACKERS)
    unlisted = assign(IDENTITIES, CONFIG)
    assert of(splits, AUXILIARY) == of(unlisted, AUXILIARY)

    config = SplitConfig(
        auxiliary=write(tmp_path / "b.txt", "p5", "p500"), n_evaluation_identities=30
    )
    splits = assign(IDENTITIES, config)
    assert of(splits, AUXILIARY) == {"p5", "p500"}
    assert len(of(splits, EVALUATION)) == 30 and set(splits) == set(IDENTITIES)


def test_two_lists(tmp_path):
    evaluation = write(tmp_path / "e.txt", "p1", "p2")
    attacker = write(tmp_path / "a.txt", *(f"p{i}" for i in range(3, 43)))
    splits = assign(IDENTITIES, SplitConfig(evaluation=evaluation, attacker=attacker))
    assert of(splits, *ATTACKERS) == {f"p{i}" for i in range(3, 43)}
    assert of(splits, ATTACKER_VALIDATION)
    assert len(of(splits, AUXILIARY)) == 1000 - 42

    auxiliary = write(tmp_path / "b.txt", "p1")
    config = SplitConfig(attacker=attacker, auxiliary=auxiliary, n_evaluation_identities=10)
    splits = assign(IDENTITIES, config)
    assert len(of(splits, EVALUATION)) == 10 and len(splits) == 51


def test_three_lists_leave_the_others_out(tmp_path):
    config = SplitConfig(
        evaluation=write(tmp_path / "e.txt", "p1"),
        attacker=write(tmp_path / "a.txt", "p2"),
        auxiliary=(tmp_path / "b.txt").as_uri(),
        validation_fraction=0.0,
    )
    write(tmp_path / "b.txt", "p3")
    assert assign(IDENTITIES, config) == {"p1": EVALUATION, "p2": ATTACKER, "p3": AUXILIARY}


def test_bad_lists(tmp_path):
    good = write(tmp_path / "good.txt", "p1")
    with pytest.raises(
        BadInputError, match=rf"other.txt and .*good.txt both .* {identity_hash('p1')}"
    ):
        assign(
            IDENTITIES, SplitConfig(auxiliary=good, evaluation=write(tmp_path / "other.txt", "p1"))
        )
    with pytest.raises(
        BadInputError, match=rf"^evaluation: .*who.txt: identity 1 in it, {identity_hash('nobody')}"
    ):
        assign(IDENTITIES, SplitConfig(evaluation=write(tmp_path / "who.txt", "nobody")))
    with pytest.raises(BadInputError, match=r"^attacker: .*empty.txt is empty"):
        assign(IDENTITIES, SplitConfig(attacker=write(tmp_path / "empty.txt", "")))
    with pytest.raises(BadInputError, match=r"^attacker: cannot read .*gone.txt"):
        assign(IDENTITIES, SplitConfig(attacker=str(tmp_path / "gone.txt")))


def celeba_listing(rows):
    return pa.table(
        {"identity": [row[1] for row in rows], "location": [f"img/{row[0]}" for row in rows]}
    )


def test_celeba_partition(tmp_path):
    path = write(tmp_path / "p.txt", "1.jpg 0", "2.jpg 0", "3.jpg 1", "4.jpg 2", "5.jpg 1")
    rows = [("1.jpg", "a"), ("2.jpg", "a"), ("3.jpg", "b"), ("4.jpg", "c")]
    config = SplitConfig(celeba_partition=path, validation_fraction=0.0)
    expected = {"a": AUXILIARY, "b": ATTACKER, "c": EVALUATION}
    assert split_listing(celeba_listing(rows), config) == expected
    config = SplitConfig(celeba_partition=path, validation_fraction=1.0)
    assert split_listing(celeba_listing(rows), config)["b"] == ATTACKER_VALIDATION
    with pytest.raises(
        BadInputError, match=rf"{identity_hash('a')} .* into auxiliary and attacker"
    ):
        celeba_partition(path, ["1.jpg", "3.jpg"], ["a", "a"])
    with pytest.raises(BadInputError, match=safe_location("Ann.jpg")) as error:
        celeba_partition(path, ["Ann.jpg"], ["a"])
    assert "Ann" not in str(error.value)
    with pytest.raises(BadInputError, match=identity_hash("z")):
        assign({"z": 3}, config, {})


def test_split_listing_counts_images():
    rows = [(f"{i}.jpg", f"p{i // 5}") for i in range(50)] + [("x.jpg", "once")]
    splits = split_listing(celeba_listing(rows), SplitConfig(n_evaluation_identities=10))
    assert of(splits, EVALUATION) == {f"p{i}" for i in range(10)}
    assert splits["once"] != EVALUATION


def test_assert_disjoint():
    assert_disjoint([("a", AUXILIARY), ("b", ATTACKER), ("a", AUXILIARY)])
    with pytest.raises(
        BadInputError, match=rf"{identity_hash('a')} .* is in two splits: auxiliary and evaluation"
    ):
        assert_disjoint([("a", AUXILIARY), ("a", EVALUATION)])
    with pytest.raises(BadInputError, match="'train'"):
        assert_disjoint([("a", "train")])


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"n_evaluation_identities": 0}, "n_evaluation_identities"),
        ({"min_images": 1}, "min_images"),
        ({"auxiliary_fraction": 1.1}, "auxiliary_fraction"),
        ({"validation_fraction": -0.1}, "validation_fraction"),
        ({"celeba_partition": "x", "attacker": "y"}, "celeba_partition"),
    ],
)
def test_bad_settings_name_the_field(settings, key):
    with pytest.raises(ConfigError, match=f"^splits.{key}: "):
        build(settings, SplitConfig, "splits")


@pytest.mark.parametrize(
    ("images", "cure"),
    [
        (
            {"a": 6, "b": 6, "c": 6, "d": 2},
            r"splits.n_evaluation_identities=2 or less \(.*\), or 4 people have",
        ),
        ({"a": 6, "b": 6, "c": 2}, "; 3 people have at least 2: lower splits.min_images, or add"),
        ({"a": 2, "b": 2}, "; 2 people have at least 2: lower splits.min_images, or add images"),
        ({"a": 1, "b": 1}, "of 2 people 0 have a second image.*cldmray plan faces=DIR"),
        ({"train": 50}, "is each folder a person"),
    ],
)
def test_too_few_people_and_what_would_do(images, cure):
    with pytest.raises(BadInputError, match=cure):
        assign(images, SplitConfig(n_evaluation_identities=10))
