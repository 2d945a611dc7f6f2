"""Keeps the figures in README.md, each table between marks of its name."""

from pathlib import Path

README = Path(__file__).parent / "README.md"


def write(name: str, text: str) -> None:
    """Replace what stands between the marks of a name."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, _, rest = README.read_text().partition(begin)
    README.write_text(before + begin + text + end + rest.partition(end)[2])
