"""Which font has the letters of a text: names of classes may be in any script."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

#: Comes with matplotlib; Pillow's own font has not even umlauts.
_DEJAVU = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_NOT_FOR_NAMES = ("bold", "black", "heavy", "thin", "light", "italic", "oblique", "emoji")


def font_for(text: str, em: int) -> ImageFont.FreeTypeFont:
    """The font in which Pillow draws a text: it takes one for all of it. `em` is in pixels."""
    return _sized(_file_for(_letters(text)), em)


def families_for(text: str) -> list[str]:
    """The font families for matplotlib, which takes each letter from the first one that has it."""
    letters = _letters(text)
    return ["DejaVu Sans", _family_of(_file_for(letters - _held(_DEJAVU, letters)))]


def boxes_in_words(names: Sequence[str]) -> str:
    """What to say of class names that no installed font has all letters of; empty where one has."""
    letters = _letters("".join(names))
    missing = "".join(sorted(letters - _held(_file_for(letters), letters)))
    if not missing:
        return ""
    shown = missing if len(missing) <= 10 else f"{missing[:10]} ..."
    return (
        f"no installed font has all letters of the class names: {shown} will be boxes in pictures; install one that "
        "has them (Noto's fonts are for every script), or name the classes otherwise"
    )


def _letters(text: str) -> frozenset[str]:
    return frozenset(letter for letter in text if not letter.isspace())


@cache
def _file_for(letters: frozenset[str]) -> Path:
    """The first of DejaVu Sans and the installed fonts, plain ones before others, that has most of the letters."""
    best, most = _DEJAVU, len(_held(_DEJAVU, letters))
    if most < len(letters):
        for file in _installed():
            if (held := len(_held(file, letters))) > most:
                best, most = file, held
            if most == len(letters):
                break
    return best


@cache
def _installed() -> list[Path]:
    files = map(Path, findSystemFonts())
    return sorted(files, key=lambda file: (any(word in file.name.lower() for word in _NOT_FOR_NAMES), file))


def _held(file: Path, letters: frozenset[str]) -> frozenset[str]:
    try:
        font = FT2Font(str(file))
    except RuntimeError:  # no font that FreeType can read
        return frozenset()
    if not font.scalable:
        return frozenset()
    return frozenset(letter for letter in letters if font.get_char_index(ord(letter)))


@cache
def _family_of(file: Path) -> str:
    """Its name in matplotlib, which knows it by now: fonts may be newer than matplotlib's list of them."""
    fontManager.addfont(file)
    return FT2Font(str(file)).family_name


@cache
def _sized(file: Path, em: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), em)
