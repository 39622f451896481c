"""A comparison as one HTML page that needs nothing else: no script, no file, no network."""

from html import escape
from itertools import groupby

from segdistill.report.figures import class_differences, learning_curves, paired_differences
from segdistill.report.page import page, paragraph, section
from segdistill.report.rows import (
    SCORE_NOTE,
    Grid,
    class_grid,
    main_grid,
    missing_lines,
    protocol_items,
    references,
    submodel_grid,
    verdict,
)
from segdistill.study.results import Comparison
from segdistill.study.statistics import CONFIDENCE


def comparison_page(comparison: Comparison) -> str:
    """The verdict in words first, then tables and figures, then how the numbers came about."""
    classes, submodels = class_grid(comparison), submodel_grid(comparison)
    sections = [
        _verdict(comparison),
        section("All rungs", _table(main_grid(comparison))),
        section("Differences, seed by seed", _differences_figure(comparison)),
        section("Classes", _classes_figure(comparison), _table(classes)) if classes else "",
        section("Learning curves", _curves_figure(comparison)),
        section("Sub-models", _table(submodels)) if submodels else "",
        section("How the numbers came about", _protocol(comparison)),
        section("What an interval means", _caution(comparison)) if references(comparison) else "",
    ]
    return page(f"Comparison of training methods: {comparison.name}", sections)


def _verdict(comparison: Comparison) -> str:
    lead, others = verdict(comparison)
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in others)
    return "\n".join(
        [
            *(paragraph(caveat, "missing") for caveat in comparison.caveats),
            paragraph(lead, "lead"),
            *(paragraph(line, "missing") for line in missing_lines(comparison)),
            *([f'<ul class="words">{items}</ul>'] if items else []),
        ]
    )


def _table(grid: Grid) -> str:
    """Headings of a group stand under the group's own, in a first line of headings."""
    groups = upper = lower = ""
    for group, members in groupby(grid.columns, key=lambda column: column.group):
        columns = list(members)
        groups += f'<colgroup span="{len(columns)}"></colgroup>'
        if group:
            upper += f'<th scope="colgroup" colspan="{len(columns)}">{_breakable(group)}</th>'
        else:
            upper += f'<td colspan="{len(columns)}"></td>'
        lower += "".join(f'<th scope="col">{_breakable(column.heading)}</th>' for column in columns)
    grouped = any(column.group for column in grid.columns)
    head = (f"<tr>{upper}</tr>\n" if grouped else "") + f"<tr>{lower}</tr>"
    body = "\n".join(_row(row, strong=row[0] in grid.strong) for row in grid.rows)
    return (
        f'{paragraph(grid.title, "title")}\n<div class="wide" tabindex="0" role="region" '
        f'aria-label="{escape(grid.title)}">\n<table>\n{groups}\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n'
        f"</table>\n</div>\n{paragraph(grid.note, 'note')}"
    )


def _row(row: tuple[str, ...], *, strong: bool) -> str:
    name, *cells = map(escape, row)
    values = "".join(f"<td>{cell}</td>" for cell in cells)
    start = '<tr class="strong">' if strong else "<tr>"
    return f'{start}<th scope="row">{name}</th>{values}</tr>'


def _breakable(heading: str) -> str:
    return escape(heading).replace("\n", "<br>").replace("_", "_<wbr>")


def _figure(svg: str | None, *, says: str, caption: str) -> str:
    """A figure with its caption, or nothing if there is none; `says` is for those who cannot see it."""
    if svg is None:
        return ""
    named = svg.replace("<svg", f'<svg role="img" aria-label="{escape(says)}"', 1)
    return (
        f'<figure>\n<div class="wide" tabindex="0">{named}</div>\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def _differences_figure(comparison: Comparison) -> str:
    return _figure(
        paired_differences(comparison),
        says="Paired mIoU differences of every rung; the numbers are in the table of all rungs.",
        caption="Each dot is one seed, the diamond above the dots their mean with its "
        f"{CONFIDENCE:.0%} interval (bar); right of the zero line the rung is better, and where a bar crosses "
        "the line the difference cannot be told from noise.",
    )


def _classes_figure(comparison: Comparison) -> str:
    return _figure(
        class_differences(comparison),
        says="IoU differences by class of every rung; the numbers are in the table below.",
        caption="Each bar is the mean IoU difference of one class, its dots are the seeds; a class whose dots lie on "
        "both sides of the zero line has not been moved reliably.",
    )


def _curves_figure(comparison: Comparison) -> str:
    return _figure(
        learning_curves(comparison),
        says="mIoU of every rung over the epochs.",
        caption="Each line is the mean over seeds, its band reaches from the lowest to the highest seed; judge at the "
        "right end, for the middle of a learning-rate schedule is no verdict.",
    )


def _protocol(comparison: Comparison) -> str:
    items = "".join(
        f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>\n" for what, value in protocol_items(comparison)
    )
    overrides = "".join(
        f"<li>{escape(result.rung.name)}: <code>{escape(' '.join(result.rung.overrides)) or 'nothing'}</code></li>\n"
        for result in comparison.results
    )
    return (
        f"<dl>\n{items}</dl>\n{paragraph(SCORE_NOTE)}\n"
        f"<p>What each rung changes in the study's configuration:</p>\n"
        f'<ul class="overrides">\n{overrides}</ul>'
    )


def _caution(comparison: Comparison) -> str:
    """What the intervals leave out."""
    differences = [against.miou for result in comparison.results for against in result.against.values()]
    fewest, most = (choose(one.spread.n for one in differences) for choose in (min, max))
    seeds = f"{fewest} to {most} seeds" if fewest < most else f"{most} seed{'s' if most > 1 else ''}"
    share = f"{CONFIDENCE:.0%}"
    settings = "settings except those listed above"
    shared = f"All runs share one split of the data, the same scored images and all {settings}"
    if not comparison.same_data:
        shared = f"All runs share their {settings}, but, as said at the top, not all of them their data"
    paragraphs = [
        f"Differences are taken seed by seed, here over {seeds}. If the study were repeated with other seeds, {share} "
        "of such intervals (Student's t) would hold the difference that very many seeds would show, provided that "
        "the differences scatter about normally, which a few of them cannot prove. One seed gives no interval.",
        f"An interval knows the noise between seeds only. {shared}; how the difference would turn out on another "
        "split, data set or network it does not say.",
    ]
    if comparison.by_chance:
        paragraphs.append(comparison.by_chance)
    return "\n".join(map(paragraph, paragraphs))
