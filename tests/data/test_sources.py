"""Every kind of source, and every way in which one can be broken."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlakit.config.sections import SourceConfig
from nlakit.data.sources import Document, read_source
from nlakit.errors import ConfigError, DataError


def read(path: Path | str = "demo", **settings: Any) -> list[Document]:
    return list(read_source(SourceConfig(path=str(path), **settings)))


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_demo_has_ids_families_and_texts() -> None:
    documents = read(limit=50)
    assert len(documents) == 50
    assert len({document.doc_id for document in documents}) == 50
    assert all(document.source_family and document.text for document in documents)
    assert {document.source_family for document in read(limit=5, family="mine")} == {"mine"}


def test_text_file_is_one_document(tmp_path: Path) -> None:
    path = put(tmp_path / "tale.txt", b"\xef\xbb\xbfOne.\r\nTwo \xc3\xa9.")
    assert read(path) == [Document("tale-0000000", "tale", "One.\nTwo é.")]
    assert read(path, family="prose")[0].source_family == "prose"


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "JSONL"])
def test_jsonl(tmp_path: Path, ending: str) -> None:
    path = put(tmp_path / f"notes.{ending}", '{"text": "a", "n": 1}\n\n{"text": null, "n": 2}\n')
    expected = [Document("notes-0000000", "notes", "a"), Document("notes-0000001", "notes", "")]
    assert read(path) == expected
    assert [document.doc_id for document in read(path, id_column="n")] == ["1", "2"]


def test_csv_with_quoted_lines_and_long_fields(tmp_path: Path) -> None:
    long = "x" * 200_000
    path = put(tmp_path / "t.csv", f'key,body,kind\na,"one,\ntwo ""q""",f1\n\nb,{long},f2\n')
    settings = {"text_column": "body", "id_column": "key", "family_column": "kind"}
    assert read(path, **settings) == [
        Document("a", "f1", 'one,\ntwo "q"'),
        Document("b", "f2", long),
    ]


def test_parquet_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlakit.data.sources.BATCH_ROWS", 2)
    path = put_parquet(tmp_path / "p.parquet", text=[f"t{i}" for i in range(5)], other=range(5))
    assert [document.text for document in read(path)] == ["t0", "t1", "t2", "t3", "t4"]
    assert read(path)[4].doc_id == "p-0000004"
    assert len(read(path, limit=3)) == 3


def test_parquet_shards_of_two_writers(tmp_path: Path) -> None:
    kinds = (pa.null(), pa.string(), pa.large_string(), pa.string_view())
    for number, kind in enumerate(kinds):
        text = pa.array([None if number == 0 else str(number)], kind)
        names = {"n": [number], "text": text} if number % 2 else {"text": text, "n": ["x"]}
        put_parquet(tmp_path / f"{number}.parquet", **names)
    put_parquet(tmp_path / "4.parquet", text=pa.array(["4"]).dictionary_encode())
    assert [document.text for document in read(tmp_path)] == ["", "1", "2", "3", "4"]


def test_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    put(tmp_path / "novels" / "b.txt", "B")
    put(tmp_path / "novels" / "a.txt", "A")
    put(tmp_path / "mails.jsonl", '{"text": "M"}')
    put(tmp_path / "README.md", "no document")
    put(tmp_path / ".hidden" / "c.txt", "C")
    assert read(tmp_path) == [
        Document("mails-0000000", "mails", "M"),
        Document("novels/a-0000000", "novels", "A"),
        Document("novels/b-0000000", "novels", "B"),
    ]


def zst(text: str) -> bytes:
    return pa.compress(text.encode(), codec="zstd", asbytes=True)


@pytest.mark.parametrize("pack", [lambda text: gzip.compress(text.encode()), zst])
def test_packed_files_are_read_whole(tmp_path: Path, pack: Any) -> None:
    """Several packed streams in one file, as `cat` makes them, are one text."""
    last = ".zst" if pack is zst else ".gz"
    put(tmp_path / f"a.jsonl{last}", pack('{"text": "A"}\n{"te') + pack('xt": "B"}\n'))
    put(tmp_path / f"b.csv{last}", pack('text\n"C\nc"\n'))
    put(tmp_path / f"d.txt{last}", pack("\ufeffD\r\nd"))
    put(tmp_path / f"e.JSON{last.upper()}", pack('[{"text": "E"}]'))
    family = tmp_path.name
    assert read(tmp_path) == [
        Document("a-0000000", "a", "A"),
        Document("a-0000001", "a", "B"),
        Document("b-0000000", "b", "C\nc"),
        Document("d-0000000", family, "D\nd"),
        Document("e-0000000", "e", "E"),
    ]
    assert read(tmp_path / f"b.csv{last}") == [Document("b-0000000", "b", "C\nc")]
    broken = put(tmp_path / f"x.jsonl{last}", pack('{"text": "A"}\n' * 99)[:-9])
    with pytest.raises(DataError, match="x.jsonl.* cannot be read.*Truncated"):
        read(broken)
    with pytest.raises(DataError, match="x.jsonl.* cannot be read"):
        read(put(broken, "no packed file"))


def test_json_arrays_and_lines_by_that_name(tmp_path: Path) -> None:
    array = put(tmp_path / "b.json", '\n [\n {"text": "A"},\n {"text": null}]')
    assert [document.text for document in read(array)] == ["A", ""]
    lines = put(tmp_path / "c4.json", '{"text": "A"}\n{"text": "B"}\n')
    assert [document.text for document in read(lines)] == ["A", "B"]
    with pytest.raises(DataError, match="b.json item 2 is not a JSON object; found: int"):
        read(put(array, '[{"text": "A"}, 1]'))
    with pytest.raises(DataError, match="b.json is not JSON"):
        read(put(array, '[{"text": "A"}'))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("nlakit.data.sources.say", lines.append)
    return lines


def test_licence_of_a_folder_with_data_is_no_document(tmp_path: Path, said: list[str]) -> None:
    put(tmp_path / "data" / "a.jsonl.gz", gzip.compress(b'{"text": "A"}'))
    put(tmp_path / "data" / "b.json", '[{"text": "B"}]')
    put(tmp_path / "settings.json", '{"text": "none",\n "k": {}}')
    for name in ("LICENSE", "Readme.de", "NOTICE", "requirements-dev"):
        put(tmp_path / f"{name}.txt", "permission is hereby granted")
    put(tmp_path / "noticeboard.txt", "N")
    assert [document.text for document in read(tmp_path)] == ["A", "B", "N"]
    line = "LICENSE.txt, NOTICE.txt, Readme.de.txt, requirements-dev.txt, settings.json"
    assert said == [f"left out of {tmp_path}: {line}"]


def test_what_is_left_out_is_counted(tmp_path: Path, said: list[str]) -> None:
    put(tmp_path / "a.txt", "A")
    assert len(read(tmp_path)) == 1
    assert said == []
    for number in range(7):
        put(tmp_path / f"{number}.xml", "x")
    assert len(read(tmp_path)) == 1
    assert said == [f"left out of {tmp_path}: 0.xml, 1.xml, 2.xml, 3.xml, 4.xml and 2 more"]


def test_licence_beside_unread_data_is_no_document_and_alone_it_is(
    tmp_path: Path, said: list[str]
) -> None:
    put(tmp_path / "LICENSE.txt", "permission")
    assert [document.text for document in read(tmp_path)] == ["permission"]
    put(tmp_path / "a.parquet.gz", "x")
    with pytest.raises(DataError, match=r"no supported file; found: endings \.parquet\.gz, \.txt"):
        read(tmp_path)


def test_folder_gives_files_of_one_stem_distinct_ids(tmp_path: Path) -> None:
    put(tmp_path / "a.txt", "A")
    put(tmp_path / "a.csv", "text\nB\n")
    assert [document.doc_id for document in read(tmp_path)] == ["a.csv-0000000", "a.txt-0000000"]


def hub(monkeypatch: pytest.MonkeyPatch, rows: list[Any], error: Exception | None = None) -> list:
    calls = []

    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        if error:
            raise error
        return iter(rows)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_dataset_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, [{"text": "a"}, {"text": "b"}, {"text": "c"}])
    documents = read(dataset="org/web", subset="en", limit=2)
    assert documents == [Document("web-0000000", "web", "a"), Document("web-0000001", "web", "b")]
    assert calls == [(("org/web", "en"), {"split": "train", "streaming": True})]


def test_dataset_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, [], ConnectionError("no route\nsecond line"))
    with pytest.raises(DataError, match="org/web cannot be read.*ConnectionError: no route;"):
        read(dataset="org/web", limit=2)
    with pytest.raises(ConfigError, match="needs a limit"):
        read(dataset="org/web")
    with pytest.raises(ConfigError, match="a dataset or a path"):
        read("a.txt", dataset="org/web", limit=2)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'nlakit\[hub\]'"):
        read(dataset="org/web", limit=2)


BROKEN = {
    "unsupported ending": ("a.docx", "x", "ending that cannot be read.*docx.*parquet"),
    "packed Parquet": ("a.parquet.gz", "x", "ending that cannot be read.*gz.*texts also as"),
    "no ending": ("a", "x", "no ending"),
    "empty file": ("a.txt", "", "is empty"),
    "no rows": ("a.jsonl", "\n\n", "has no documents"),
    "header only": ("a.csv", "text\n", "has no documents"),
    "broken JSON": ("a.jsonl", '{"text": "a"}\n{"text": "b"', "line 2 is not JSON"),
    "JSON list": ("a.jsonl", "[1]", "line 1 is not a JSON object.*list"),
    "absent key": ("a.jsonl", '{"text": "a"}\n{"body": 1, "k": 2}', "line 2 has no.*body, k"),
    "absent column": ("a.csv", "body,kind\na,b\n", "'text'; found: columns body, kind"),
    "text no string": ("a.jsonl", '{"text": 12}', "line 1 is not a string.*int '12'"),
    "half surrogate": (
        "a.jsonl",
        r'{"text": "ab\ud800"}',
        "line 1 is not valid Unicode.*half of a",
    ),
    "latin-1": ("a.txt", b"good\nca\xe9\n", "not UTF-8.*0xe9 in line 2, offset 7"),
    "latin-1 rows": ("a.csv", b"text\n\xe9\n", "not UTF-8.*line 2, offset 5"),
    "utf-16": ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "not UTF-8.*line 1, offset 0"),
    "fields": ("a.csv", "text,n\na,1\nb, c,2\n", "line 3 does not match.*3 fields, 2 columns"),
    "open quote": ("a.csv", 'text\n"abc\n', "is not CSV"),
    "no parquet": ("a.parquet", "text", "not a whole Parquet file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path: Path, name: str) -> None:
    file, content, message = BROKEN[name]
    path = put(tmp_path / file, content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_broken_parquet(tmp_path: Path) -> None:
    path = put_parquet(tmp_path / "p.parquet", text=["a" * 50] * 500, n=range(500))
    with pytest.raises(DataError, match="no column 'body'; found: columns text, n"):
        read(path, text_column="body")
    with pytest.raises(DataError, match="row 0 is not a string.*int"):
        read(path, text_column="n")
    put(path, path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        read(path)
    put_parquet(path, text=pa.array([], pa.string()))
    with pytest.raises(DataError, match="has no documents"):
        read(path)
    invalid = pa.array([b"\xff"], pa.binary()).view(pa.string())
    put_parquet(path, text=invalid)
    with pytest.raises(DataError, match="not a whole Parquet file.*utf-8"):
        read(path)


def test_missing_places_and_values(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.txt")
    with pytest.raises(DataError, match="no supported file; found: no files"):
        read(tmp_path)
    put(tmp_path / "a.md", "x")
    with pytest.raises(DataError, match=r"found: endings \.md"):
        read(tmp_path)
    path = put(tmp_path / "a.jsonl", json.dumps({"text": "a", "id": None}))
    with pytest.raises(DataError, match="line 1 has no value in 'id'"):
        read(path, id_column="id")


def test_missing_demo_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlakit.data.sources.resources.files", lambda _: tmp_path)
    with pytest.raises(DataError, match="the embedded corpus is missing"):
        read()


def test_a_column_of_messages(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi", "at": 3}, {"role": "assistant", "content": "Yo"}]
    stored = json.dumps([{"role": one["role"], "content": one["content"]} for one in talk])
    expected = Document("t-0000000", "t", "Hi\n\nYo", stored)
    lines = put(
        tmp_path / "t.jsonl", json.dumps({"talk": talk}) + "\n" + json.dumps({"talk": None})
    )
    assert read(lines, messages_column="talk") == [expected, Document("t-0000001", "t", "")]
    table = put_parquet(tmp_path / "t.parquet", talk=[talk])
    assert read(table, messages_column="talk") == [expected]
    quoted = json.dumps(talk).replace('"', '""')
    assert read(put(tmp_path / "t.csv", f'talk\n"{quoted}"\n'), messages_column="talk") == [
        expected
    ]
    with pytest.raises(DataError, match=r"message 0 in .*t.jsonl line 1"):
        read(put(tmp_path / "t.jsonl", '{"talk": [3]}\n'), messages_column="talk")
    with pytest.raises(DataError, match="no column 'messages'.*messages_column"):
        read(put(tmp_path / "t.jsonl", '{"talk": [3]}\n'), messages_column="messages")
