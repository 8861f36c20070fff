"""Listings and reads of the sources that keep files."""

import io
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cldmray import hashing
from cldmray.errors import BadInputError
from cldmray.faces import CelebaFaces, FolderFaces, LfwFaces, ParquetFaces, sample_names
from cldmray.faces.decode import decode
from cldmray.faces.records import LISTING


def image(shade=100, size=(20, 20), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(buffer, kind)
    return buffer.getvalue()


def put(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def by_name(source):
    """Rows of a listing, checked for the promises that all sources make."""
    table = source.listing()
    assert table.schema == LISTING
    ids = table["sample_id"].to_pylist()
    assert ids == sorted(set(ids))
    return table.to_pylist()


def ids_of(source):
    return {row["sample_id"] for row in by_name(source)}


def test_folder_listing_and_read(tmp_path):
    root = put(
        tmp_path,
        {
            "Ann/1.png": image(1),
            "Ann/2.jpg": image(2, kind="JPEG"),
            "Bob/notes": b"no image",
            "Bob/.hidden.png": image(),
            ".cache/x.png": image(),
            "readme.txt": b"top level",
        },
    )
    source = FolderFaces(str(root))
    rows = by_name(source)
    assert {(row["identity"], row["location"]) for row in rows} == {
        ("Ann", "Ann/1.png"),
        ("Ann", "Ann/2.jpg"),
        ("Bob", "Bob/notes"),
    }
    assert {row["sample_id"] for row in rows} == {
        hashing.sample_id("folder", name) for name in ("Ann/1", "Ann/2", "Bob/notes")
    }
    assert source.read(["Ann/1.png", "Ann/gone.png", "Bob/notes"]) == [
        image(1),
        None,
        b"no image",
    ]
    assert source.read([]) == []


def test_ids_depend_on_neither_root_nor_extension(tmp_path):
    first = put(tmp_path / "a", {"Ann/1.jpg": b"1", "Bob/x.y.jpg": b"2"})
    second = put(tmp_path / "b" / "c", {"Ann/1.png": b"other", "Bob/x.y.webp": b"2"})
    assert ids_of(FolderFaces(str(first))) == ids_of(FolderFaces(str(second)))
    assert ids_of(FolderFaces(str(first))).isdisjoint(ids_of(FolderFaces(str(first), name="more")))


def test_images_that_share_a_stem_keep_their_extension():
    images = [("A", "1.jpg"), ("A", "1.png"), ("A", "2.png"), ("B", "1.png")]
    assert sample_names(images) == ["A/1.jpg", "A/1.png", "A/2", "B/1"]
    tangled = [("A", "1.jpg"), ("A", "1.png"), ("A", "1.jpg.bmp")]
    assert sample_names(tangled) == ["A/1.jpg", "A/1.png", "A/1.jpg.bmp"]


def test_version_follows_the_content(tmp_path):
    put(tmp_path, {"Ann/1.png": image(1)})
    source = FolderFaces(str(tmp_path))
    before = by_name(source)[0]
    os.utime(tmp_path / "Ann/1.png", ns=(1, 1))
    after = by_name(source)[0]
    assert before["sample_id"] == after["sample_id"] and before["version"] != after["version"]
    assert after["version"] == f"{len(image(1))}-1"


@pytest.mark.parametrize("name", ["José Ñandú", "李小龙", "100% #1 ?x=[a]", "new\nline", "bytes:x"])
def test_odd_names(tmp_path, name):
    put(tmp_path, {f"{name}/{name}.png": image(9)})
    source = FolderFaces(str(tmp_path))
    (row,) = by_name(source)
    assert row["identity"] == name
    assert source.read([row["location"]]) == [image(9)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_names_that_are_not_utf8(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"Andr\xe9")
    os.mkdir(folder)
    with open(os.path.join(folder, b"\xff 1.png"), "wb") as file:
        file.write(image(9))
    source = FolderFaces(str(tmp_path))
    (row,) = by_name(source)
    assert row["identity"] == "Andr\\xe9"
    assert source.read([row["location"]]) == [image(9)]


def test_deep_folders_and_links(tmp_path):
    put(tmp_path, {"Ann/video/1.png": image(1), "Ann/other/1.png": image(2)})
    (tmp_path / "Ann/loop").symlink_to(tmp_path / "Ann")
    (tmp_path / "Ann/broken.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "Ann/self.png").symlink_to(tmp_path / "Ann/self.png")
    os.mkfifo(tmp_path / "Ann/pipe.png")
    source = FolderFaces(str(tmp_path))
    locations = [row["location"] for row in by_name(source)]
    assert sorted(locations) == [
        "Ann/broken.png",
        "Ann/other/1.png",
        "Ann/self.png",
        "Ann/video/1.png",
    ]
    assert source.read(["Ann/broken.png", "Ann/self.png", "Ann"]) == [None, None, None]


def test_uris(tmp_path):
    put(tmp_path, {"Ann/1 %20.png": image(1)})
    source = FolderFaces(tmp_path.as_uri())
    assert by_name(source) == by_name(FolderFaces(str(tmp_path)))
    assert source.read(["Ann/1 %20.png"]) == [image(1)]


@pytest.mark.parametrize("kind", [FolderFaces, LfwFaces, CelebaFaces, ParquetFaces])
def test_missing_and_empty_roots_are_named(tmp_path, kind):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadInputError, match="faces.root") as caught:
            kind(str(root)).listing()
        assert str(root) in str(caught.value) and "expected" in str(caught.value)


def test_images_without_sub_folders(tmp_path):
    put(tmp_path, {"1.png": image()})
    with pytest.raises(BadInputError, match="one sub-folder a person"):
        FolderFaces(str(tmp_path)).listing()
    for root in ("nothing://there", ""):
        with pytest.raises(BadInputError, match="faces.root"):
            FolderFaces(root).listing()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"crop": [0, 0, 10]}, "crop"),
        ({"crop": [0, 0, 10, 12]}, "crop"),
        ({"crop": [5, 0, 5, 0]}, "crop"),
        ({"crop": [-1, 0, 9, 10]}, "crop"),
        ({"crop": [0, 0, 1.5, 1.5]}, "crop"),
        ({"size": 4}, "size"),
        ({"name": ""}, "name"),
    ],
)
def test_bad_settings_name_the_field(settings, key):
    with pytest.raises(ValueError, match=f"^{key}[.:]"):
        FolderFaces("x", **settings)


def test_lfw_layout_and_crop(tmp_path):
    name = "Ann_Lee/Ann_Lee_0001.jpg"
    put(tmp_path, {name: image(50, (250, 250)), "pairs.txt": b"10\n"})
    source = LfwFaces(str(tmp_path))
    (row,) = by_name(source)
    assert row["sample_id"] == hashing.sample_id("lfw", "Ann_Lee/Ann_Lee_0001")
    (content,) = source.read([row["location"]])
    assert decode(content, source.crop, source.size).shape == (128, 128, 3)


def test_lfw_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    import sklearn.datasets

    def offline(**options):
        raise OSError("no network")

    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    monkeypatch.setattr(sklearn.datasets, "fetch_lfw_people", offline)
    with pytest.raises(BadInputError, match="no network.*give faces.root"):
        LfwFaces().listing()
    put(tmp_path, {"lfw_home/lfw_funneled/Ann/1.jpg": image(1)})
    assert LfwFaces().read([by_name(LfwFaces())[0]["location"]]) == [image(1)]


def test_celeba(tmp_path):
    put(
        tmp_path,
        {
            "identity_CelebA.txt": b"000001.jpg 2880\r\n000002.jpg 7\r\n000003.jpg 7\r\n",
            "img_align_celeba/000001.jpg": image(1, (178, 218)),
            "img_align_celeba/000002.jpg": image(2, (178, 218)),
            "img_align_celeba/000009.jpg": image(9, (178, 218)),
        },
    )
    source = CelebaFaces(str(tmp_path))
    rows = {row["identity"]: row for row in by_name(source)}
    assert set(rows) == {"2880", "7"}
    assert rows["7"]["location"] == "img_align_celeba/000002.jpg"
    assert rows["7"]["sample_id"] == hashing.sample_id("celeba", "7/000002")
    (content,) = source.read([rows["7"]["location"]])
    assert (decode(content, source.crop, source.size) == 2).all()


@pytest.mark.parametrize("text", [b"", b"000001.jpg\n", b"1.jpg 2\n1.jpg 3\n", b"\xff\xfe"])
def test_celeba_with_a_bad_identity_file(tmp_path, text):
    put(tmp_path, {"identity_CelebA.txt": text, "img_align_celeba/000001.jpg": image()})
    with pytest.raises(BadInputError, match="identity_CelebA.txt"):
        CelebaFaces(str(tmp_path)).listing()


def test_parquet_round_trip(tmp_path):
    shades = list(range(10))
    table = pa.table(
        {
            "identity": [shade // 2 for shade in shades],
            "image": [image(shade) if shade != 3 else None for shade in shades],
            "name": [f"{shade // 2}/{shade}.png" for shade in shades],
        }
    )
    pq.write_table(table, tmp_path / "faces.parquet", row_group_size=3)
    for root in (tmp_path, tmp_path / "faces.parquet"):
        source = ParquetFaces(str(root))
        rows = {int(row["location"].split("#")[1]): row for row in by_name(source)}
        assert rows[9]["identity"] == "4"
        assert rows[9]["sample_id"] == hashing.sample_id("parquet", "4/9")
        order = [7, 0, 9, 7, 3]
        contents = source.read([rows[number]["location"] for number in order])
        assert contents == [image(7), image(0), image(9), image(7), None]
    assert source.read(["gone.parquet#0", "faces.parquet#10"]) == [None, None]


@pytest.mark.parametrize(
    ("group_rows", "block_rows", "blocks", "reads"),
    [(20, 32, 10, 10), (10, 32, 7, 20), (200, 16, 4, 4), (64, 100, 3, 4)],
)
def test_parquet_reads_each_row_group_once(
    tmp_path, monkeypatch, group_rows, block_rows, blocks, reads
):
    identities = [f"person {row // 4}" for row in range(200)]
    images = [image(row % 7) for row in range(200)]
    table = pa.table({"identity": identities, "image": images})
    pq.write_table(table, tmp_path / "faces.parquet", row_group_size=group_rows)
    source = ParquetFaces(str(tmp_path))
    listing = source.listing()
    parts = source.reading_blocks(listing, block_rows)
    assert len(parts) == blocks
    assert pa.concat_tables(parts).sort_by("sample_id").equals(listing)
    seen = []
    iter_batches = pq.ParquetFile.iter_batches

    def counted(self, *arguments, row_groups, **options):
        seen.append(*row_groups)
        return iter_batches(self, *arguments, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    for part in parts:
        locations = part["location"].to_pylist()
        rows = [int(location.rpartition("#")[2]) for location in locations]
        assert source.read(locations) == [images[row] for row in rows]
    assert len(seen) == reads, "a row group of more than four blocks is divided among tasks"


def test_blocks_of_a_source_are_consecutive(tmp_path):
    listing = pa.table({"sample_id": ["a", "b", "c"]})
    source = FolderFaces(str(tmp_path))
    assert [part["sample_id"].to_pylist() for part in source.reading_blocks(listing, 2)] == [
        ["a", "b"], ["c"],
    ]  # fmt: skip
    assert [len(part) for part in source.reading_blocks(listing[:0], 2)] == [0]
    pq.write_table(pa.table({"identity": ["A"], "image": [image(0)]}), tmp_path / "f.parquet")
    parquet = ParquetFaces(str(tmp_path))
    assert [len(part) for part in parquet.reading_blocks(parquet.listing()[:0], 2)] == [0]


def test_parquet_without_names_and_with_hugging_face_images(tmp_path):
    (tmp_path / "part").mkdir()
    for number in (0, 1):
        images = pa.array([{"bytes": image(number), "path": "x.png"}] * 2)
        table = pa.table({"identity": ["A", "B"], "image": images})
        pq.write_table(table, tmp_path / "part" / f"{number}.parquet")
    source = ParquetFaces(str(tmp_path))
    rows = {row["location"]: row for row in by_name(source)}
    assert rows["part/1.parquet#1"]["sample_id"] == hashing.sample_id("parquet", "B/part/1/1")
    assert source.read(["part/1.parquet#1", "part/0.parquet#0"]) == [image(1), image(0)]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"identity": ["A"]}, "lacks image"),
        ({"identity": ["A"], "image": ["text"]}, "no bytes"),
        ({"identity": [None], "image": [b"1"]}, "row 0"),
        ({"identity": ["A", "A"], "image": [b"1", b"2"], "name": ["x", "x"]}, "same sample name"),
    ],
)
def test_bad_parquet_files(tmp_path, columns, fault):
    pq.write_table(pa.table(columns), tmp_path / "faces.parquet")
    with pytest.raises(BadInputError, match=fault) as caught:
        ParquetFaces(str(tmp_path)).listing()
    assert "faces.parquet" in str(caught.value)


def test_a_file_that_is_not_parquet(tmp_path):
    put(tmp_path, {"faces.parquet": b"no"})
    with pytest.raises(BadInputError, match="faces.parquet"):
        ParquetFaces(str(tmp_path)).listing()
    assert ParquetFaces(str(tmp_path)).read(["faces.parquet#0"]) == [None]


@pytest.mark.lfw
def test_real_lfw_images(lfw_root):
    source = LfwFaces(str(lfw_root))
    table = source.listing()
    assert table.num_rows > 5000
    for content in source.read(table["location"].to_pylist()[:20]):
        assert np.ptp(decode(content, source.crop, source.size)) > 50
