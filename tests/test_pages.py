"""House rules of the pages: short, linked, and in plain English."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
OTHERS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "bench/README.md", "runtime/README.md")
PAGES = [*(ROOT / name for name in OTHERS), *DOCS]
LONGEST = 35  # words of a sentence
# Words that this project once used in a meaning of its own, with the usual one.
DIALECT = {
    r"(is|are|was|has) no more\b": "no longer exists; stale; has ended",
    r"\b(release|one|version) before\b(?! (it|the|they|you|a )\b)": "previous",
    r"\bwhoever\b": "who; anybody who",
    r"\bfor ever\b": "indefinitely",
    r"\bas they stand\b": "as they are",
    r"\btold\b": "reported; logged; printed; configured",
    r"\btells? of\b": "reports; describes",
    r"\bstands?\b(?! for\b)": "is",
    r"\bstand(s|ing)? by\b": "is on standby",
    r"\basked (to|whether)\b": "stopped; checked",
    r"\bask the (running )?(host|server)": "check",
    r"\btype (it|this|them|the)\b": "run",
    r"\btasks? that it is at\b": "running task",
    r"\bput off\b": "delayed",
    r"\bsmoke\b(?! test)": "smoke test",
    r"\bauthorit(y|ies)\b": "CA",
    r"\bsees to\b": "handles",
    r"\bturn by turn\b": "alternately",
    r"\blead (its|their|them)\b": "route",
}


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    found = []
    for heading in re.findall(r"^#+ (.*)$", without_code(path.read_text()), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return found


def without_code(text):
    """Take out what is fenced."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(path):
    """The relative links of a page, as pairs of file and anchor."""
    text = re.sub(r"`[^`\n]*`", "", without_code(path.read_text()))
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    return [((path.parent / name).resolve() if name else path, anchor) for name, _, anchor in split(targets)]


def split(targets):
    return [target.partition("#") for target in targets]


def paragraphs(text):
    """The prose of a page: paragraphs and items of lists, without headings, tables, code and comments."""
    text = re.sub(r"<!--.*?-->", "", without_code(text), flags=re.DOTALL)
    lines = [line for line in text.split("\n") if not re.match(r"#|\||    ", line)]
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", "\n".join(lines))
    return [prose for part in parts if (prose := " ".join(plain(part).split()))]


def plain(text):
    """Text without Markdown: code counts as one word, and so does a row of it, with commas between."""
    text = re.sub(r"`[^`]*`", "CODE", text)
    text = re.sub(r"CODE(?:,? (?:and |or )?CODE)+", "CODE", text)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"^\s*(?:[-*]|\d+\.) |\*\*|(?<!\w)\*|\*(?!\w)", "", text, flags=re.MULTILINE)


def sentences(text):
    """The sentences of a page."""
    return [each for part in paragraphs(text) for each in re.split(r"(?<=[.!?])[)\"']*\s+(?=[\"'(]?[A-Z0-9])", part)]


def words(sentence):
    return re.findall(r"\w[\w'./-]*", sentence)


def name(path):
    return str(path.relative_to(ROOT))


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page):
    wrong = [f"{target.relative_to(ROOT)}#{anchor}" for target, anchor in links(page) if not leads(target, anchor)]
    assert wrong == []


def leads(target, anchor):
    return target.exists() and (not anchor or anchor in anchors(target))


def test_index_leads_to_every_page():
    reached, new = set(), {ROOT / "docs/README.md"}
    while new:
        reached |= new
        new = {target for page in new for target, _ in links(page) if target in DOCS} - reached
    assert [name(page) for page in DOCS if page not in reached] == []
    assert ROOT / "docs/README.md" in [target for target, _ in links(ROOT / "README.md")]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short(page):
    long = [f"{len(words(each))} words: {each}" for each in sentences(page.read_text()) if len(words(each)) > LONGEST]
    assert long == []


def test_long_sentences_are_found():
    long = " ".join(["word"] * LONGEST)
    text = f"# {long} more\n\n| {long} more |\n\n    {long} more\n\n```\n{long} more\n```\n\nShort. A {long} or two.\n\n- {long} more.\n"
    assert [len(words(each)) for each in sentences(text)] == [1, LONGEST + 3, LONGEST + 1]
    assert [len(words(each)) for each in sentences("One (two). Three `a b`, `c` and `d` [e f](g.md).")] == [2, 4]


def repeated(texts):
    """Sentences that are on several pages, or more than once on one."""
    count = Counter(each for text in texts for each in sentences(text) if len(words(each)) >= 7)
    return [each for each, times in count.items() if times > 1]


def test_no_sentence_is_written_twice():
    """Except in the history, on the generated page, and on runbooks, which are read alone."""
    other = {ROOT / "CHANGELOG.md", ROOT / "docs/variables.md", *(ROOT / "docs/runbooks").iterdir()}
    assert repeated(page.read_text() for page in PAGES if page not in other) == []


def test_sentence_that_is_written_twice_is_found():
    one, two = "A short one. It is a sentence of seven words.", "- Two.\n- It is a sentence of seven words.\n"
    assert repeated([one, two]) == ["It is a sentence of seven words."] and repeated([one, "A short one."]) == []


def dialect(text):
    """What of a text is not plain English, with the remedy."""
    prose = re.sub(
        r"`[^`]*`|\"[^\"\n]*\"|\]\([^)]*\)", "", re.sub(r"^    .*$", "", without_code(text), flags=re.MULTILINE)
    )
    found = [
        (match[0], remedy) for word, remedy in DIALECT.items() for match in re.finditer(word, prose, re.IGNORECASE)
    ]
    return [f"{word!r}: write {remedy}" for word, remedy in found]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_are_in_plain_english(page):
    assert dialect(page.read_text()) == []


def test_dialect_is_found_in_prose_alone():
    assert [each.partition(":")[0] for each in dialect("It is no more, as told.")] == ["'is no more'", "'told'"]
    assert dialect('Beat `stands by`, or "stands by": [a page](told.md).\n\n    told\n\n```\ntold\n```\n') == []


def test_make_help_is_in_plain_english():
    help_texts = re.findall(r"^[a-z%-]+:.*## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert help_texts and dialect("\n".join(help_texts)) == []


def test_pages_name_files_that_exist():
    folders = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    for page in PAGES:
        named = re.findall(r"`([^`\s]+)`", without_code(page.read_text()))
        files = [file for file in named if file.startswith(folders) and not re.search(r"[A-Z<{*]{2,}|[<{*]", file)]
        assert [file for file in files if not (ROOT / file).exists()] == [], name(page)


def test_messages_name_pages_and_headings_that_exist():
    """A message ends with a page and, in quotes, its heading."""
    found = []
    for folder in ("bin", "plugins", "runtime/coldframe"):
        for path in (ROOT / folder).rglob("*.py"):
            found += re.findall(r"(docs/[\w/-]+\.md)(?:, '([^'\"]+)')?", path.read_text())
    assert len(found) > 5
    headings = {page: re.findall(r"^#+ (?:\d+\. )?(.*)$", (ROOT / page).read_text(), re.MULTILINE) for page, _ in found}
    assert [(page, heading) for page, heading in found if heading and heading not in headings[page]] == []
