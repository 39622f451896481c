"""A page that needs nothing else: no script, no file, no network."""

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --paper: #fff; --tint: #f3f5f7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #a2abb5; --line: #3a4149; --paper: #16191d; --tint: #20252b }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 68rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.25rem; margin: 0 0 1rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem }
p, ul.words, dl { max-width: 46rem }
.lead { font-size: 1.4rem; line-height: 1.35; font-weight: 600; margin: 0 0 1rem; overflow-wrap: anywhere }
.missing { border-left: 4px solid #d55e00; padding-left: .75rem; white-space: pre-line }
.words, .overrides { padding-left: 1.2rem }
.words li { margin: .25rem 0 }
.note, figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem }
th, td { padding: .25rem .5rem; text-align: right; white-space: nowrap; vertical-align: bottom }
th { font-weight: 600 }
th[scope=row], th:first-child { text-align: left; font-weight: 400 }
th[scope=colgroup] { text-align: center; border-bottom: 1px solid var(--line) }
thead tr:last-child th { border-bottom: 2px solid var(--line) }
colgroup + colgroup { border-left: 1px solid var(--line) }
tbody tr { border-bottom: 1px solid var(--line) }
tr.strong { background: var(--tint) }
tr.strong > * { font-weight: 700 }
figure { margin: 1.5rem 0 }
figure svg { display: block; max-width: 100%; min-width: 44rem; height: auto }
svg text { font-family: system-ui, sans-serif !important }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0 }
dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere }
code { font-size: .85rem; overflow-wrap: anywhere }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --tint: #eee }
  body { max-width: none; padding: 0; font-size: 10pt }
  .wide { overflow: visible }
  figure svg { min-width: 0 }
  table { font-size: 7.5pt }
  th, td { padding: .15rem .3rem }
  figure, table, tr, p, li { break-inside: avoid }
  h2, .title { break-after: avoid }
  .note { break-before: avoid }
}
"""


def page(title: str, sections: Sequence[str], *, style: str = "") -> str:
    """A whole document; empty sections are left out. `style` is CSS beyond what all pages share."""
    heading = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n<h1>{heading}</h1>\n"
        + "\n".join(filter(None, sections))
        + "\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """Nothing if there is nothing in it."""
    body = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"
