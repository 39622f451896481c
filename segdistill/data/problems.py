"""What may be wrong with a data set: kinds of problem with their remedies, and the message that lists them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from segdistill.console import counted

LINES_PER_KIND = 20  # listed in the message; the rest are counted


class Kind(Enum):
    """The kinds of problem; each value is (title, remedy)."""

    LONELY = ("files without partner", "add the missing file, or remove the one that is alone")
    TWINS = (
        "names that several files have",
        "keep one of them; or, in a list, write the image with its file type, and its mask behind it",
    )
    LIST = ("lines of lists that lead to no pair", "correct these lines, or put the files there")
    AGAIN = ("images that lists name more than once", "leave each image in one line of one list")
    UNREADABLE = ("not readable", "put back whole copies of these files, or remove both files of the pair")
    FORM = (
        "not stored as masks are",
        "as the lines say; masks of colours are read as they are with data.kind=folder, which says the colour of each "
        "class (data.folder.classes, data.folder.mask_format)",
    )
    CONTRADICTION = (
        "numbers say one class and colours another",
        "say which counts by data.folder.mask_format: rgb for the colours of classes (a palette may be the choice of "
        "the program that made the file small), index for the numbers; or save grey masks with 8 bits and no palette",
    )
    EITHER = (
        "two values where one class was given without any",
        "say what they are by data.folder.classes: values: [1] if 255 is not labelled, values: [1, 255] if both are "
        "the class",
    )
    SIZE = (
        "image and mask differ in size",
        "use the mask that was drawn on this very image, at its size; a photo that an EXIF tag turns has to be "
        "saved upright",
    )
    LABELS = (
        "labels outside the classes",
        "map these values to classes or to the ignored value, or choose the taxonomy these masks follow; a mask "
        "saved as JPEG has wrong values for good, PNG keeps them",
    )
    VOID = (
        "no labelled pixel",
        "remove these pairs, nothing can be learnt from them; or correct the ignored value",
    )


class Problem(NamedTuple):
    """A problem, and in one line where it is."""

    kind: Kind
    line: str


#: What is counted beside labelled images: noun, what follows it, kinds of its problems.
_BESIDE = (
    ("file", "without partner", (Kind.LONELY,)),
    ("name", "of several files", (Kind.TWINS,)),
    ("line", "of lists", (Kind.LIST, Kind.AGAIN)),
)


def of_split(problems: Sequence[Problem], *, bad_pairs: int, num_pairs: int) -> str:
    """The message about a split, of whose pairs some have problems."""
    counts = Counter(problem.kind for problem in problems)
    where = [f"{bad_pairs} of {num_pairs} labelled images"] if bad_pairs else []
    for noun, rest, kinds in _BESIDE:
        if count := sum(counts[kind] for kind in kinds):
            where.append(f"{counted(count, noun)} {rest}")
    return f"{counted(len(problems), 'problem')} in {' and '.join(where)}\n{by_kind(problems)}"


def by_kind(problems: Iterable[Problem]) -> str:
    """The lines of each kind below its title and remedy; of very many the first ones."""
    text: list[str] = []
    lines: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for kind, line in problems:
        lines[kind].append(line)
    for kind, found in lines.items():
        title, remedy = kind.value
        text += [f"{title} ({len(found)}) - {remedy}:"] if found else []
        text += [f"  {line}" for line in found[:LINES_PER_KIND]]
        text += [f"  ... and {len(found) - LINES_PER_KIND} more"] if len(found) > LINES_PER_KIND else []
    return "\n".join(text)
