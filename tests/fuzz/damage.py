"""What happens to files: cut, emptied, swapped, mistyped, in another encoding, gone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors.numpy import load_file, save_file

# Values that stand where another kind was meant.
ODD: list[Any] = [
    None, -1, 0, 1.5, "", "x", "../x", "é\u2028", [], {}, [None], {"a": 1}, True, 10**30, "nan",
]  # fmt: skip
Damage = Callable[[Path, random.Random], None]


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file, or one of a folder; says how."""
    found = files_of(path)
    if not found:
        return "nothing to damage"
    file = rng.choice(found)
    special = BY_ENDING.get(file.suffix.lower(), [])
    # What knows the format goes deeper than what does not.
    how = rng.choice(special if special and rng.random() < 0.6 else GENERAL)
    try:
        how(file, rng)
    except Exception as error:  # it was damaged before, or never of that format
        return f"{file.name} resisted {how.__name__}: {type(error).__name__}"
    return f"{file}: {how.__name__}"


def gone(file: Path, rng: random.Random) -> None:
    file.unlink()


def emptied(file: Path, rng: random.Random) -> None:
    file.write_bytes(b"")


def cut(file: Path, rng: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(len(data) + 1)])


def zeroed(file: Path, rng: random.Random) -> None:
    """The size stays."""
    data = bytearray(file.read_bytes())
    start = rng.randrange(max(1, len(data) - 60))
    data[start : start + 60] = bytes(len(data[start : start + 60]))
    file.write_bytes(bytes(data))


def noise(file: Path, rng: random.Random) -> None:
    file.write_bytes(rng.randbytes(200))


def folder(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


def broken_link(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def another(file: Path, rng: random.Random) -> None:
    """The content of a file of another kind."""
    others = [p for p in files_of(file.parents[1]) if p.suffix != file.suffix]
    shutil.copyfile(rng.choice(others), file)


def utf16(file: Path, rng: random.Random) -> None:
    file.write_text(file.read_text(encoding="utf-8"), encoding="utf-16")


def latin1(file: Path, rng: random.Random) -> None:
    file.write_bytes("é".encode("latin-1") + file.read_bytes() + "é".encode("latin-1"))


def marked(file: Path, rng: random.Random) -> None:
    """A byte order mark and the line ends of Windows: no damage, but odd."""
    text = file.read_text(encoding="utf-8").replace("\n", "\r\n")
    file.write_text(text, encoding="utf-8-sig", newline="")


def surrogate(file: Path, rng: random.Random) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace("a", "\\ud83d", 1), encoding="utf-8")


def mistyped(data: Any, rng: random.Random) -> Any:
    """A copy in which one value, however deep, is odd."""
    if isinstance(data, dict) and data and rng.random() < 0.85:
        key = rng.choice(sorted(data, key=str))
        if rng.random() < 0.15:
            return {name: value for name, value in data.items() if name != key}
        return data | {key: mistyped(data[key], rng)}
    if isinstance(data, list) and data and rng.random() < 0.85:
        place = rng.randrange(len(data))
        return [*data[:place], mistyped(data[place], rng), *data[place + 1 :]]
    return rng.choice(ODD)


def json_value(file: Path, rng: random.Random) -> None:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        lines = text.splitlines()
        place = rng.randrange(len(lines))
        lines[place] = json.dumps(mistyped(json.loads(lines[place]), rng))
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    file.write_text(json.dumps(mistyped(json.loads(text), rng)), encoding="utf-8")


def yaml_value(file: Path, rng: random.Random) -> None:
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump(mistyped(data, rng)), encoding="utf-8")


def csv_cell(file: Path, rng: random.Random) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    place = rng.randrange(len(lines))
    lines[place] = rng.choice(["", '"', lines[place] + ",more", lines[place].split(",")[0], "\0"])
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def column(file: Path, rng: random.Random) -> None:
    """A column of a table that is gone, renamed, empty, text, or in other rows."""
    table = pq.read_table(file)
    name = rng.choice(table.column_names)
    place = table.column_names.index(name)
    rows = table.num_rows
    made: dict[str, Any] = {
        "gone": lambda: table.drop_columns([name]),
        "renamed": lambda: table.rename_columns(["other" if n == name else n
                                                 for n in table.column_names]),
        "nulls": lambda: table.set_column(place, name, pa.nulls(rows, table[name].type)),
        "null": lambda: table.set_column(place, name, pa.nulls(rows)),
        "text": lambda: table.set_column(place, name, pa.array(["x"] * rows)),
        "numbers": lambda: table.set_column(place, name, pa.array(list(range(rows)))),
        "lists": lambda: table.set_column(place, name, pa.array([[1.0]] * rows)),
        "twice": lambda: table.append_column(name, table[name]),
        "no rows": lambda: table.slice(0, 0),
        "same rows": lambda: pa.concat_tables([table, table]),
    }  # fmt: skip
    pq.write_table(made[rng.choice(sorted(made))](), file)


def array(file: Path, rng: random.Random) -> None:
    found = np.load(file)
    odd: list[Any] = [
        found.astype(str), found.astype(object), found.astype(complex), found.astype(bool),
        found[None], found[:0], found[:, :0], found[:, :3], found * np.nan, found * 0, found[0],
        found.astype(np.float16) * np.inf, np.float32(1.0),
    ]  # fmt: skip
    np.save(file, rng.choice(odd), allow_pickle=True)


def tensor(file: Path, rng: random.Random) -> None:
    found = load_file(file)
    name = rng.choice(sorted(found))
    odd = [None, found[name][:0], found[name] * np.nan, found[name][..., :1].copy(),
           found[name].astype(np.int32), np.zeros((2, 2, 2), np.float32)]  # fmt: skip
    chosen = rng.choice(odd)
    found = {key: value for key, value in found.items() if key != name}
    save_file(found if chosen is None else found | {name: chosen}, file)


GENERAL: list[Damage] = [
    gone, emptied, cut, zeroed, noise, folder, broken_link, another, utf16, latin1, marked,
]  # fmt: skip
BY_ENDING: dict[str, list[Damage]] = {
    ".json": [json_value, json_value, surrogate],
    ".jsonl": [json_value, json_value, surrogate],
    ".yaml": [yaml_value],
    ".csv": [csv_cell],
    ".parquet": [column],
    ".npy": [array],
    ".safetensors": [tensor],
}
