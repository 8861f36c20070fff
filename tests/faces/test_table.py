"""Folders of images with a table."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cldmray import hashing
from cldmray.errors import BadInputError
from cldmray.faces import TableFaces
from cldmray.faces.records import listing_notes
from cldmray.faces.sources.survey import recognize
from tests.faces.image_files import identities_of, put, shades


class TestTable:
    ROWS = (("in/1.png", "Ann", "f"), ("in/2.png", "Ann", "m"), ("3.png", "Bob", "m"))

    def table(self, root: Path, ending: str, paths: tuple[str, ...] = ()) -> TableFaces:
        put(root, ["in/1.png", "in/2.png", "3.png", "4.png"])
        places = paths or tuple(path for path, _, _ in self.ROWS)
        rows = [
            {"path": path, "identity": identity, "sex": sex}
            for path, (_, identity, sex) in zip(places, self.ROWS, strict=True)
        ]
        target = root / f"faces.{ending}"
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), target)
        elif ending == "jsonl":
            target.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        else:
            comma = "\t" if ending == "tsv" else ","
            lines = [comma.join(row.values()) for row in rows]
            target.write_text("\n".join([comma.join(rows[0]), *lines]) + "\n")
        return TableFaces(str(target))

    @pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
    def test_formats(self, tmp_path: Path, ending: str) -> None:
        source = self.table(tmp_path, ending)
        assert identities_of(source) == {"Ann": 2, "Bob": 1} and shades(source) == {0, 1, 2}
        assert listing_notes(source.listing()) == [
            "1 image below the root stands in no row of the table; it was left out."
        ]
        groups = source.groups()
        assert groups is not None and groups.to_pylist() == [
            {"identity": "Ann", "sex": None},
            {"identity": "Bob", "sex": "m"},
        ]

    def test_lines_of_json_may_have_fields_of_their_own(self, tmp_path: Path) -> None:
        put(tmp_path, ["1.png", "2.png"])
        lines = ('{"path": "1.png"}', '{"path": "2.png", "identity": "Ann", "sex": "f"}')
        (tmp_path / "faces.jsonl").write_text("\n".join(lines))
        assert identities_of(TableFaces(str(tmp_path / "faces.jsonl"))) == {"Ann": 1}
        (tmp_path / "faces.jsonl").write_text('["1.png", "Ann"]')
        with pytest.raises(BadInputError, match="a line is no JSON object"):
            TableFaces(str(tmp_path / "faces.jsonl")).listing()

    def test_lines_of_json_end_with_the_line_alone(self, tmp_path: Path) -> None:
        put(tmp_path, ["1.png", "2.png"])
        rows = [{"path": f"{n}.png", "identity": "Ann\u2028Lee", "note": "a\x85b"} for n in (1, 2)]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / "faces.jsonl").write_text("\r\n".join([*lines, ""]), "utf-8")
        assert identities_of(TableFaces(str(tmp_path / "faces.jsonl"))) == {"Ann\u2028Lee": 2}

    def test_numbers_and_texts_of_json_name_the_same(self, tmp_path: Path) -> None:
        put(tmp_path, ["1.png", "2.png", "3.png"])
        rows = [{"path": f"{n}.png", "identity": name} for n, name in enumerate((7, "7", 7.0), 1)]
        (tmp_path / "faces.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert identities_of(TableFaces(str(tmp_path / "faces.jsonl"))) == {"7": 3}

    @pytest.mark.parametrize(
        ("name", "text", "reason"),
        [
            (
                "faces.csv",
                "path,identity\n1.png,Ann Lee,f\n",
                "Expected 2 columns, got 3; expected",
            ),
            ("faces.jsonl", '{"identity": [1]}\n{"identity": "Ann Lee"}', "is of another kind"),
            ("faces.jsonl", '{"identity": "Ann Lee"}\n{"identity": [1]}', "is of another kind"),
            (
                "faces.jsonl",
                '{"Ann Lee": 1, "b": 2}',
                "has 2 columns, none called path or .*image;",
            ),
            (
                "faces.csv",
                "Ann_Lee/1.jpg,Ann Lee\nAnn_Lee/2.jpg,Ann Lee\n",
                "has 2 columns, none called path or .*; its first line must name the columns",
            ),
            ("faces.csv", "Ann,Ann\nAnn,Ann\n", "has 2 columns, two of one name"),
        ],
    )
    def test_errors_quote_no_row(self, tmp_path: Path, name: str, text: str, reason: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInputError, match=reason) as error:
            TableFaces(str(tmp_path / name)).listing()
        assert "Ann" not in str(error.value)

    def test_paths_as_tables_hold_them(self, tmp_path: Path) -> None:
        paths = (".\\in\\1.png", f"{tmp_path}/in/2.png", "%33.png")
        assert shades(self.table(tmp_path, "csv", paths)) == {0, 1, 2}

    def test_absolute_paths_below_a_relative_root(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = (f"{tmp_path}/in/1.png", "./in/2.png", f"{tmp_path}/3.png")
        self.table(tmp_path, "csv", paths)
        monkeypatch.chdir(tmp_path)
        for table, root in (("faces.csv", None), ("./faces.csv", None), ("faces.csv", ".")):
            assert shades(TableFaces(table, root=root)) == {0, 1, 2}

    def test_of_several_tables_one_is_named(self, tmp_path: Path) -> None:
        self.table(tmp_path, "csv")
        assert recognize(str(tmp_path)).settings == {"table": str(tmp_path / "faces.csv")}
        (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
        assert recognize(str(tmp_path)).option == "table"
        self.table(tmp_path, "tsv")
        with pytest.raises(BadInputError, match=r"2 tables .* name one: faces=.*/faces\.csv"):
            recognize(str(tmp_path))

    def test_rows_without_a_file_are_counted(self, tmp_path: Path) -> None:
        source = self.table(tmp_path, "csv", ("in/1.png", "gone.png", "3.png"))
        assert identities_of(source) == {"Ann": 1, "Bob": 1}
        assert listing_notes(source.listing()) == [
            "1 of 3 rows of the table name no person or no file that is there.",
            "2 images below the root stand in no row of the table; they were left out.",
        ]
        with pytest.raises(BadInputError, match="^faces.table: none of the 3 rows"):
            self.table(tmp_path, "csv", ("x", "y", "z")).listing()

    def test_a_row_that_stands_twice_is_named(self, tmp_path: Path) -> None:
        put(tmp_path, ["1.png"])
        (tmp_path / "faces.csv").write_text("path,identity\n1.png,Ann\n1.png,Ann\n")
        place = hashing.safe_location("1.png")
        with pytest.raises(BadInputError, match=f"'table': {place} is listed twice .*remove one"):
            TableFaces(str(tmp_path / "faces.csv")).listing()

    def test_columns_of_image_folders_and_by_name(self, tmp_path: Path) -> None:
        put(tmp_path, ["1.png"])
        (tmp_path / "metadata.csv").write_text("file_name,who\n1.png,Ann\n")
        table = str(tmp_path / "metadata.csv")
        with pytest.raises(BadInputError, match="^faces.identity_column: .*has 2 columns, none"):
            TableFaces(table).listing()
        assert identities_of(TableFaces(table, identity_column="who")) == {"Ann": 1}
