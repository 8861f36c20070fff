"""Groups of people: files that name them, CelebA's attributes, synthetic people."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cldmray.errors import BadInputError
from cldmray.faces import CelebaFaces, FolderFaces, LfwFaces, ParquetFaces
from cldmray.faces.sources.groups import majority, read_groups
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.hashing import canonicalize, identity_hash


def test_no_file_no_groups() -> None:
    assert read_groups(None) is None
    assert FolderFaces("somewhere").groups() is None


def test_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text('identity,sex,year\n007,female,1990\n"Doe, Jo",,1985\nžofie,"NA",""\n')
    expected = {
        "identity": ["007", "Doe, Jo", "žofie"],
        "sex": ["female", None, "NA"],
        "year": ["1990", "1985", None],
    }
    for kind in (FolderFaces, LfwFaces, ParquetFaces):
        result = kind("x", groups_file=str(path)).groups()
        assert result is not None and result.to_pydict() == expected
        assert set(result.schema.types) == {pa.string()}


def test_a_parquet_file(tmp_path: Path) -> None:
    path = str(tmp_path / "groups.parquet")
    pq.write_table(pa.table({"tone": [1, None], "identity": [7, 8]}), path)
    result = read_groups(path)
    assert result is not None
    assert result.to_pydict() == {"tone": ["1", None], "identity": ["7", "8"]}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name,sex\na,f\n", "has 2 columns, none called identity; its first line must name"),
        ("identity\na\n", "has 1 column, none beside it"),
        ("identity,sex,sex\na,f,f\n", "has 3 columns, two of one name"),
        ("identity,sex\na,f\na,f\n", f"{identity_hash('a')} 2 times"),
        ("identity,sex\n,f\n", "empty identity"),
        ("identity,sex\na,f\nb\n", "cannot read"),
        ("", "cannot read"),
    ],
)
def test_bad_csv_files(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(BadInputError, match=fault) as caught:
        read_groups(str(path))
    assert str(caught.value).startswith("faces.groups_file: ")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet", "bad.parquet"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(BadInputError, match=f"^faces.groups_file: cannot read .*{name}"):
        read_groups(str(tmp_path / name))


def test_groups_change_no_image() -> None:
    assert canonicalize(FolderFaces("x", groups_file="y")) == canonicalize(FolderFaces("x"))
    assert canonicalize(FolderFaces("x")) != canonicalize(FolderFaces("y"))


def test_majority() -> None:
    votes = ["yes", "yes", "no", "no", "yes", "no"]
    assert majority(["a", "a", "a", "b", "c", "c"], votes) == {"a": "yes", "b": "no", "c": None}


class TestCeleba:
    IDENTITIES = "1.jpg 7\n2.jpg 7\n3.jpg 7\n4.jpg 8\n5.jpg 8\n"

    def groups(self, root: Path, attributes: str | None) -> pa.Table | None:
        (root / "identity_CelebA.txt").write_text(self.IDENTITIES)
        if attributes is not None:
            (root / "list_attr_celeba.txt").write_text(attributes)
        return CelebaFaces(str(root)).groups()

    def test_the_majority_of_images_decides(self, tmp_path: Path) -> None:
        text = "6\nBald Male Young\n1.jpg  1 -1  1\n2.jpg -1 -1 -1\n3.jpg -1  1 -1\n"
        text += "4.jpg -1  1  1\n5.jpg -1  1 -1\n6.jpg -1  1  1\n"
        result = self.groups(tmp_path, text)
        assert result is not None
        assert result.to_pylist() == [
            {"identity": "7", "sex": "female", "age": "not young"},
            {"identity": "8", "sex": "male", "age": None},
        ]

    def test_without_the_file(self, tmp_path: Path) -> None:
        assert self.groups(tmp_path, None) is None

    @pytest.mark.parametrize(
        "text", ["", "1\n", "1\nMale\n1.jpg 1\n", "1\nMale Young\n1.jpg 1\n",
                 "1\nMale Young\n1.jpg 1 0\n"],
    )  # fmt: skip
    def test_bad_files_are_named(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(BadInputError, match="^faces.root: .*list_attr_celeba.txt"):
            self.groups(tmp_path, text)


def test_synthetic_people() -> None:
    source = SyntheticFaces(36, 1)
    result = source.groups()
    assert result.column_names == ["identity", "sex", "age", "skin_tone"]
    assert set(result["identity"].to_pylist()) == set(source.listing()["identity"].to_pylist())
    assert sorted(result["sex"].to_pylist()) == ["female"] * 18 + ["male"] * 18
