"""Letters that DejaVu Sans has not, and fonts made here that have some of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from segdistill.report import lettering
from segdistill.report.confusion import confusion_picture
from segdistill.report.lettering import boxes_in_words, families_for, font_for


def make_font(path: Path, family: str, letters: str) -> Path:
    """Every letter is a square that fills its place."""
    pen = TTGlyphPen(None)
    for step, corner in enumerate([(0, 0), (0, 1000), (1000, 1000), (1000, 0)]):
        (pen.lineTo if step else pen.moveTo)(corner)
    pen.closePath()
    square = pen.glyph()
    names = {ord(letter): f"u{ord(letter):04x}" for letter in letters}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys((".notdef", *names.values()), square))
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", *names.values()), (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """All fonts of a machine that has three: bold and plain ones for two signs, one for a third; and a broken file."""
    fonts = {
        "bold": make_font(tmp_path / "a-Bold.ttf", "Squares Bold", "車道"),
        "plain": make_font(tmp_path / "b.ttf", "Squares", "車道road"),
        "other": make_font(tmp_path / "c.ttf", "Others", "한"),
    }
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    before = list(fontManager.ttflist)
    monkeypatch.setattr(lettering, "findSystemFonts", lambda: [str(path) for path in tmp_path.glob("*.ttf")])
    caches = (lettering._file_for, lettering._installed, lettering._family_of)
    for one in caches:
        one.cache_clear()
    yield fonts
    for one in caches:
        one.cache_clear()
    fontManager.ttflist[:] = before


def test_dejavu_writes_what_it_can(installed: dict[str, Path]) -> None:
    assert Path(font_for("road Straße дорога", 12).path).name == "DejaVuSans.ttf"
    assert families_for("road") == ["DejaVu Sans", "DejaVu Sans"]
    assert boxes_in_words(["road", "Straße", "дорога"]) == ""


def test_another_font_writes_what_it_cannot(installed: dict[str, Path]) -> None:
    font = font_for("車道", 20)
    assert Path(font.path) == installed["plain"], "before the bold one, which comes first by its name"
    assert font.getlength("車") == 20
    assert families_for("車道 road") == ["DejaVu Sans", "Squares"]
    assert boxes_in_words(["車道"]) == ""


def test_letters_of_no_font_are_told(installed: dict[str, Path]) -> None:
    said = boxes_in_words(["車", "ถน", "น", "road"])
    assert said.startswith("no installed font has all letters of the class names: ")
    assert "names: ถน will be boxes" in said, "each once"
    assert "한 will be boxes" in boxes_in_words(["車道", "한"]), "one font has to have them all"


def test_a_confusion_matrix_has_them(
    installed: dict[str, Path], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    shares, pictures = np.eye(2), []
    for names in (["車", "道"], ["ถ", "น"]):
        confusion_picture(tmp_path / "c.png", shares, names, title="mIoU")
        pictures.append((tmp_path / "c.png").read_bytes())
    assert pictures[0] != pictures[1]
    assert not recwarn.list
