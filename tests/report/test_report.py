"""The report of comparisons whose numbers were computed by hand."""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from segdistill.commands.compare import print_results
from segdistill.commands.study_plan import StudyFolder
from segdistill.console import new_console
from segdistill.report import rows
from segdistill.report.figures import class_differences, learning_curves, paired_differences, spread_out
from segdistill.report.html import comparison_page
from segdistill.report.text import comparison_tables, protocol_line
from segdistill.study.results import Comparison, compare_rungs
from segdistill.study.run_results import RunResult
from segdistill.study.rungs import LADDER, Rung

BASELINE, DEEP, DISTILL = (
    rung for rung in LADDER if rung.name in ("baseline", "deep_supervision", "self_distill")
)
PROTOCOL = {
    "data": "camvid",
    "input_size": [192, 256],
    "test_time_augmentation": None,
    "weights": "last epoch",
}
FIGURES = (paired_differences, class_differences, learning_curves)
Figure = Callable[[Comparison], str | None]
SVG = "{http://www.w3.org/2000/svg}"


def run(
    seed: int,
    miou: float,
    *,
    iou: Mapping[str, float | None] | None = None,
    submodels: Mapping[str, float] | None = None,
    memory: int | None = 100,
) -> RunResult:
    return RunResult(
        seed=seed,
        miou=miou,
        best_miou=miou + 0.01,
        best_epoch=1,
        iou=dict(iou or {"sky": miou}),
        submodels=dict(submodels or {}),
        curve=((1, miou - 0.2), (2, miou + 0.01), (3, miou)),
        whole_curve=True,
        memory_bytes=memory,
    )


def comparison(
    runs: Sequence[tuple[Rung, Sequence[RunResult]]],
    *,
    name: str = "study",
    seconds: Mapping[str, float] | None = None,
    missing: tuple[tuple[str, int], ...] = (),
    protocols: Sequence[Mapping[str, Any]] = (PROTOCOL,),
) -> Comparison:
    return Comparison(name, tuple(protocols), compare_rungs(runs, seconds_per_step=seconds or {}), missing)


def on_data(*hashes: str) -> list[dict[str, Any]]:
    """Protocols of runs on these data."""
    return [{**PROTOCOL, "data_hash": one} for one in hashes]


@pytest.fixture
def three_seeds() -> Comparison:
    """Three rungs; "pole" has no score in the baseline's seed 2, "gap" has none at all."""
    return comparison(
        [
            (
                BASELINE,
                [
                    run(0, 0.40, iou={"sky": 0.90, "pole": 0.10, "gap": None}),
                    run(1, 0.42, iou={"sky": 0.91, "pole": 0.20, "gap": None}),
                    run(2, 0.44, iou={"sky": 0.92, "pole": None, "gap": None}),
                ],
            ),
            (
                DEEP,
                [
                    run(0, 0.41, iou={"sky": 0.90, "pole": 0.1, "gap": None}, memory=110),
                    run(1, 0.44, iou={"sky": 0.90, "pole": 0.1, "gap": None}, memory=105),
                    run(2, 0.42, iou={"sky": 0.90, "pole": 0.1, "gap": None}, memory=105),
                ],
            ),
            (
                DISTILL,
                [
                    run(
                        seed,
                        miou,
                        iou={"sky": 0.92, "pole": pole, "gap": None},
                        submodels={"ensemble": miou + 0.04, "branch4": miou + 0.02 * (seed + 1)},
                        memory=125,
                    )
                    for seed, miou, pole in ((0, 0.42, 0.30), (1, 0.43, 0.10), (2, 0.47, 0.50))
                ],
            ),
        ],
        seconds={"baseline": 2.0, "self_distill": 3.5},
        missing=(("deep_supervision", 3), ("deep_supervision", 4), ("self_distill", 3)),
    )


@pytest.fixture
def one_seed() -> Comparison:
    return comparison([(BASELINE, [run(7, 0.5)]), (DISTILL, [run(7, 0.48, memory=None)])])


@pytest.fixture
def no_baseline() -> Comparison:
    return comparison(
        [(DEEP, [run(0, 0.40), run(1, 0.42)]), (DISTILL, [run(0, 0.41), run(1, 0.45)])],
        seconds={"deep_supervision": 1.0, "self_distill": 1.5},
    )


@pytest.fixture
def no_pair() -> Comparison:
    return comparison(
        [(BASELINE, [run(0, 0.4)]), (DISTILL, [run(1, 0.5)])], missing=(("baseline", 1), ("self_distill", 0))
    )


NASTY = '<script>alert("$x$")</script> & [bold]b[/bold]'


@pytest.fixture
def nasty() -> Comparison:
    """Names that are markup somewhere."""
    other = Rung("a_b.c", (f"data.root={NASTY}", "train.epochs=3"))
    return comparison(
        [
            (
                BASELINE,
                [run(seed, 0.4 + seed / 100, iou={NASTY: 0.4, "sky": 0.5}) for seed in (0, 1)],
            ),
            (
                other,
                [run(seed, 0.3, iou={NASTY: 0.3, "sky": 0.5}, submodels={NASTY: 0.5}) for seed in (0, 1)],
            ),
        ],
        name=NASTY,
        protocols=({"data": NASTY},),
    )


@pytest.fixture
def nothing() -> Comparison:
    return Comparison("study", (PROTOCOL,), (), (("baseline", 0),))


STUDIES = ("three_seeds", "one_seed", "no_baseline", "no_pair", "nasty", "nothing")


@pytest.fixture
def study(request: pytest.FixtureRequest) -> Comparison:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Comparison)
    return found


each_study = pytest.mark.parametrize("study", STUDIES, indirect=True)


# The cells


def test_main_rows_by_hand(three_seeds: Comparison) -> None:
    """Differences to the baseline: +1, +2, -2 and +2, +1, +3 points; self_distill minus deep_supervision: +1, -1,
    +5. t(0.975, 2) = 4.30265, so that the half-widths are 5.1713, 2.4841 and 7.5892 points."""
    grid = rows.main_grid(three_seeds)
    none = ("-", "-", "-")
    assert grid.rows == (
        ("baseline", "3", "42.00 ± 2.00", "43.00", *none, *none, "-", "-"),
        ("deep_supervision", "3", "42.33 ± 1.53", "43.33", "+0.33", "-4.84 to +5.50", "2/3", *none, "-", "1.10"),
        (
            "self_distill",
            "3",
            "44.00 ± 2.65",
            "45.00",
            *("+2.00", "-0.48 to +4.48", "3/3"),
            *("+1.67", "-5.92 to +9.26", "2/3"),
            *("1.75", "1.25"),
        ),
    )  # fmt: skip
    assert [(column.group, column.heading) for column in grid.columns] == [
        *(("", heading) for heading in ("rung", "seeds", "mIoU ± sd", "best,\nflatters")),
        *(("minus baseline", heading) for heading in ("mean", "95% interval", "won")),
        *(("minus deep_supervision", heading) for heading in ("mean", "95% interval", "won")),
        *(("× baseline", heading) for heading in ("time", "memory")),
    ]


def test_class_rows_by_hand(three_seeds: Comparison) -> None:
    """Poles: seed 2 has no score in the baseline, so that seeds 0 and 1 (0 and -10, +20 and -10 points) count."""
    grid = rows.class_grid(three_seeds)
    assert grid is not None
    assert [column.heading for column in grid.columns] == [
        *("class", "baseline\nIoU", "deep_supervision", "self_distill")
    ]
    assert grid.rows == (
        ("sky", "91.00", "-1.00", "+1.00"),
        ("pole", "15.00", "-5.00", "+5.00"),
        ("gap", "-", "-", "-"),
        ("mIoU", "42.00", "+0.33", "+2.00"),
    )


def test_submodel_rows_by_hand(three_seeds: Comparison) -> None:
    """branch4 has 44, 47 and 53, the ensemble 46, 47 and 51; the baseline's primary 40, 42 and 44."""
    grid = rows.submodel_grid(three_seeds)
    assert grid is not None
    assert [column.heading for column in grid.columns] == [
        "rung",
        "sub-model",
        "mIoU ± sd",
        "mean",
        "95% interval",
        "won",
    ]
    # t(0.975, 2) = 4.3027; deviations of the differences 4, 5, 9: 2.6458, of 6, 5, 7: 1.
    assert grid.rows == (
        ("self_distill", "branch4", "48.00 ± 4.58", "+6.00", "-0.57 to +12.57", "3/3"),
        ("self_distill", "ensemble", "48.00 ± 2.65", "+6.00", "+3.52 to +8.48", "3/3"),
    )


def test_submodels_without_a_baseline_are_not_measured_against_it() -> None:
    grid = rows.submodel_grid(comparison([(DISTILL, [run(0, 0.4, submodels={"branch3": 0.5})])]))
    assert grid is not None
    assert grid.rows == (("self_distill", "branch3", "50.00"),)


def test_one_seed(one_seed: Comparison) -> None:
    """No deviation, no interval; memory that one side does not know gives no ratio."""
    assert rows.main_grid(one_seed).rows == (
        ("baseline", "1", "50.00", "51.00", "-", "-", "-", "-", "-"),
        ("self_distill", "1", "48.00", "49.00", "-2.00", "-", "0/1", "-", "-"),
    )
    assert rows.submodel_grid(one_seed) is None


def test_missing_runs() -> None:
    """The baseline lacks seed 1: means are over what each rung has, differences over seeds 0 and 2 (+1, +3)."""
    study = comparison(
        [
            (BASELINE, [run(0, 0.40), run(2, 0.42)]),
            (DISTILL, [run(0, 0.41), run(1, 0.50), run(2, 0.45)]),
        ],
        missing=(("baseline", 1),),
    )
    baseline, distill = rows.main_grid(study).rows
    assert baseline[:3] == ("baseline", "2 (0, 2)", "41.00 ± 1.41")
    assert distill[1:3] == ("3 (0, 1, 2)", "45.33 ± 4.51")
    assert "Rungs have different seeds" in rows.main_grid(study).note
    assert (distill[4], distill[6]) == ("+2.00", "2/2")
    assert rows.missing_lines(study) == ["Missing runs: baseline seed 1."]


def test_failed_runs_say_why() -> None:
    study = replace(
        comparison([(BASELINE, [run(0, 0.4)])], missing=(("self_distill", 0),)),
        failures=("self_distill, seed 0: error: the total loss became NaN in epoch 3",),
    )
    assert rows.missing_lines(study) == [
        "Missing runs: self_distill seed 0.",
        "Failed: self_distill, seed 0: error: the total loss became NaN in epoch 3",
    ]


def test_missing_runs_are_named_by_rung(three_seeds: Comparison, one_seed: Comparison) -> None:
    line = "Missing runs: deep_supervision seeds 3, 4; self_distill seed 3."
    assert rows.missing_lines(three_seeds) == [line]
    assert line in " ".join(text_of(comparison_page(three_seeds)).split())
    assert line in " ".join(printed(three_seeds).split())
    assert rows.missing_lines(one_seed) == []
    assert "Missing" not in comparison_page(one_seed) + printed(one_seed)


def test_without_the_baseline(no_baseline: Comparison) -> None:
    """Differences to deep supervision (+1, +3) remain; costs are relative to the baseline alone."""
    grid = rows.main_grid(no_baseline)
    assert [column.group for column in grid.columns] == [""] * 4 + ["minus deep_supervision"] * 3
    assert grid.rows[1][4] == "+2.00"
    assert rows.class_grid(no_baseline) is None
    assert class_differences(no_baseline) is None
    lead, others = rows.verdict(no_baseline)
    assert lead.startswith(
        "self_distill against deep_supervision cannot be told from noise with 2 seeds: +2.00"
    )
    assert others == []


def test_without_a_pair(no_pair: Comparison) -> None:
    assert rows.main_grid(no_pair).rows == (
        ("baseline", "1 (0)", "40.00", "41.00"),
        ("self_distill", "1 (1)", "50.00", "51.00"),
    )
    lead, others = rows.verdict(no_pair)
    assert lead == (
        "There is no difference to report yet, as no rung shares a finished seed with baseline: train the missing runs."
    )
    assert others == []
    assert paired_differences(no_pair) is None
    assert "interval" not in text_of(comparison_page(no_pair))


def test_where_nothing_can_be_compared_it_is_told_why() -> None:
    reparam = LADDER[1]
    lead, _ = rows.verdict(comparison([(reparam, [run(0, 0.4)]), (DISTILL, [run(0, 0.5)])]))
    assert lead.endswith("as none of these rungs is one to measure against: add baseline to --kinds.")
    lead, _ = rows.verdict(comparison([(DEEP, [run(0, 0.4)])], missing=(("deep_supervision", 1),)))
    assert lead.endswith("as there is no rung but deep_supervision: add others by --kinds or --rung.")
    lead, _ = rows.verdict(comparison([(DISTILL, [run(0, 0.4)])], missing=(("baseline", 0),)))
    assert lead.endswith("as no rung shares a finished seed with baseline: train the missing runs.")


def test_shared_epochs_say_of_how_many_seeds() -> None:
    def sharing(seed: int) -> RunResult:
        return replace(run(seed, 0.5), shared_epochs=2, shared_with="deep_supervision")

    def note(*distilled: RunResult) -> str:
        plain = [run(one.seed, 0.4) for one in distilled]
        return rows.main_grid(comparison([(BASELINE, plain), (DISTILL, distilled)])).note

    assert "equal until there: self_distill 2 (by deep_supervision)." in note(sharing(0), sharing(1))
    some = note(run(0, 0.5), sharing(1), run(2, 0.5))
    assert "equal until there: self_distill 2 in 1 of 3 seeds (by deep_supervision)." in some
    assert "equal until there" not in note(run(0, 0.5))


def test_the_verdict_on_self_distillation_comes_first(three_seeds: Comparison) -> None:
    """Also when a rung of the user's own comes after it; every sentence is there once."""
    wide = Rung("wide", ("method.branches.width=96",))
    runs = [(result.rung, result.runs) for result in three_seeds.results]
    study = comparison([*runs, (wide, [run(seed, 0.5, iou={"sky": 0.9, "pole": 0.1}) for seed in (0, 1, 2)])])
    assert study.words[0].startswith("wide")
    lead, others = rows.verdict(study)
    assert lead.startswith("self_distill against baseline cannot be told from noise with 3 seeds: +2.00")
    assert others[0].startswith("self_distill against deep_supervision")
    assert sorted([lead, *others]) == sorted(study.words)


def test_what_makes_a_pair_none_stands_before_the_verdict() -> None:
    runs = [
        (BASELINE, [run(0, 0.5, iou={"sky": 0.5, "rare": None})]),
        (DISTILL, [run(0, 0.26, iou={"sky": 0.52, "rare": 0.0})]),
    ]
    study = comparison(runs, protocols=on_data("abc", "def"))
    data, classes = study.caveats
    page = text_of(comparison_page(study))
    lead, _ = rows.verdict(study)
    assert page.index("Not all of these runs") < page.index("different classes (rare") < page.index(lead)
    said = io.StringIO()
    print_results(study, StudyFolder(Path("there")), console=new_console(file=said))
    lines = said.getvalue().splitlines()
    assert lines.index(data) < lines.index(classes) < lines.index(lead)


# The terminal


def printed(study: Comparison, *, width: int = 120) -> str:
    console = new_console(width=width, color_system=None, soft_wrap=False)
    with console.capture() as capture:
        for table in comparison_tables(study, console):
            console.print(table)
    return capture.get()


def test_every_cell_is_printed(three_seeds: Comparison) -> None:
    lines = [" ".join(line.split()) for line in printed(three_seeds).splitlines()]
    for grid in (rows.main_grid, rows.class_grid, rows.submodel_grid):
        for row in grid(three_seeds).rows:  # type: ignore[union-attr]
            assert " ".join(row) in lines


def test_the_widest_study_fits_120_columns() -> None:
    """Eight rungs, 19 classes with long names, intervals beyond 10 points."""
    classes = [f"traffic light {index}" for index in range(19)]
    rungs = [*LADDER, Rung("label_smoothing", ()), Rung("wide_branches_x2", ())]
    study = comparison(
        [
            (
                rung,
                [
                    run(seed, 0.5 + (seed - 1) * place / 60, iou=dict.fromkeys(classes, 0.5))
                    for seed in range(3)
                ],
            )
            for place, rung in enumerate(rungs)
        ],
        seconds={rung.name: 10.0 for rung in rungs},
    )
    main = rows.main_grid(study)
    assert any(re.fullmatch(r"-\d\d\.\d\d to \+\d\d\.\d\d", cell) for row in main.rows for cell in row)
    output = printed(study)
    assert max(map(len, output.splitlines())) <= 120
    assert "…" not in output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for row in main.rows:
        assert " ".join(row) in lines


def test_a_narrow_terminal_gets_several_tables(three_seeds: Comparison) -> None:
    """Cut between groups of columns; each part names its rows, and nothing is lost."""
    output = printed(three_seeds, width=80)
    notes = " ".join(rows.main_grid(three_seeds).note.split())
    assert notes in " ".join(output.split()), "once, below the last part"
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for result in rows.main_grid(three_seeds).rows:
        name, scores, first, second = result[0], result[1:4], result[4:7], result[7:10]
        assert [line for line in lines if line.startswith(f"{name} ")][:2] == [
            " ".join((name, *scores, *first)),
            " ".join((name, *second, *result[10:])),
        ]
    assert lines.count("mIoU in percent") == 1
    assert max(len(line) for line in output.splitlines()) <= 80


def test_every_part_of_a_narrow_table_names_its_sub_models(three_seeds: Comparison) -> None:
    lines = [" ".join(line.split()) for line in printed(three_seeds, width=60).splitlines()]
    assert "self_distill branch4 48.00 ± 4.58" in lines
    assert "self_distill branch4 +6.00 -0.57 to +12.57 3/3" in lines


def test_brackets_are_no_markup_on_the_terminal(nasty: Comparison) -> None:
    assert NASTY in printed(nasty, width=300)


def test_protocol_line(three_seeds: Comparison) -> None:
    assert protocol_line(three_seeds) == (
        "protocol: data camvid; input size 192x256; test time augmentation no; weights last epoch; seeds 0, 1, 2"
    )


# The figures


def element(svg: str | None) -> ElementTree.Element:
    assert svg is not None
    return ElementTree.fromstring(svg)


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def panel(root: ElementTree.Element, number: int) -> ElementTree.Element:
    [found] = (group for group in root.iter(f"{SVG}g") if group.get("id", "").endswith(f"axes_{number}"))
    return found


def scale(axes: ElementTree.Element, axis: str) -> tuple[float, float]:
    """Where 0 is on the page and how long a unit is, along `x` or `y`, from the labelled grid."""
    ticks = []
    for tick in axes.iter(f"{SVG}g"):
        if re.search(rf"\b{axis}tick_\d+$", tick.get("id", "")):
            [label] = texts(tick)
            grid_line = next(tick.iter(f"{SVG}path")).get("d", "")
            start = dict(zip("xy", map(float, re.findall(r"[\d.]+", grid_line)), strict=False))
            ticks.append((float(label.replace("\N{MINUS SIGN}", "-")), start[axis]))
    (first, low), (last, high) = ticks[0], ticks[-1]
    unit = (high - low) / (last - first)
    return low - first * unit, unit


def marks(axes: ElementTree.Element, colour: str) -> list[list[float]]:
    """The values along x of every series of markers in that colour, in the order drawn."""
    zero, unit = scale(axes, "x")
    series = []
    for group in axes.iter(f"{SVG}g"):
        found = [
            mark for mark in group.findall(f"{SVG}g/{SVG}use") if f"fill: {colour}" in mark.get("style", "")
        ]
        if found:
            series.append([(float(mark.get("x", "")) - zero) / unit for mark in found])
    return series


def lines(axes: ElementTree.Element, colour: str) -> list[list[tuple[float, float]]]:
    """The values along x and y of every open path in that colour, in the order drawn."""
    found = []
    for path in axes.iter(f"{SVG}path"):
        if "fill: none" in path.get("style", "") and f"stroke: {colour}" in path.get("style", ""):
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d", ""))]
            found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def test_a_dot_for_each_seed_and_the_mean_with_its_interval(three_seeds: Comparison) -> None:
    """Read back from the SVG by its axes; the numbers as in `test_main_rows_by_hand`."""
    root = element(paired_differences(three_seeds))
    for number, seeds, mean, low, high in (
        (1, [2, 1, 3], 2, -0.48414, 4.48414),
        (2, [1, -1, 5], 5 / 3, -5.92251, 9.25585),
    ):
        axes = panel(root, number)
        zero, unit = scale(axes, "x")
        diamond, dots = marks(axes, "#d55e00")
        assert diamond == pytest.approx([mean], abs=1e-4)
        assert dots == pytest.approx(seeds, abs=1e-4)
        [interval] = lines(axes, "#d55e00")
        assert [(x - zero) / unit for x, _ in interval] == pytest.approx([low, high], abs=1e-4)
    shown = texts(root)
    assert {"minus baseline", "minus deep_supervision", "deep_supervision", "self_distill"} <= set(shown)
    assert "baseline" not in shown


def test_one_seed_has_a_dot_and_no_interval(one_seed: Comparison) -> None:
    axes = panel(element(paired_differences(one_seed)), 1)
    assert [value for series in marks(axes, "#d55e00") for value in series] == pytest.approx(
        [-2, -2], abs=1e-4
    )
    assert lines(axes, "#d55e00") == []


def test_class_dots(three_seeds: Comparison) -> None:
    """A class has as many dots as seeds with a score in both, or none; each rung has a panel of its own."""
    root = element(class_differences(three_seeds))
    assert marks(panel(root, 1), "#3388cc") == [
        pytest.approx([0, -1, -2], abs=1e-4),
        pytest.approx([0, -10], abs=1e-4),
    ]
    assert marks(panel(root, 2), "#d55e00") == [
        pytest.approx([2, 1, 0], abs=1e-4),
        pytest.approx([20, -10], abs=1e-4),
    ]
    assert {"sky", "pole", "gap"} <= set(texts(root))


def test_curves_are_means_over_seeds(three_seeds: Comparison) -> None:
    """self_distill ends at 44 % on average, in both panels; the last third is epochs 2 and 3."""
    root = element(learning_curves(three_seeds))
    for number, expected in ((1, [(1, 24), (2, 45), (3, 44)]), (2, [(2, 45), (3, 44)])):
        axes = panel(root, number)
        (left, wide), (bottom, high) = scale(axes, "x"), scale(axes, "y")
        found = [
            [((x - left) / wide, (y - bottom) / high) for x, y in line] for line in lines(axes, "#d55e00")
        ]
        assert found == [[pytest.approx(point, abs=1e-3) for point in expected]], (
            "and no thread looks like it"
        )
    assert {"baseline", "deep_supervision", "self_distill"} <= set(texts(panel(root, 2)))


def test_epochs_are_whole_numbers_even_where_there_is_one() -> None:
    """Of two, the last third has the second one alone."""
    short = [
        replace(run(0, 0.4), curve=((1, 0.3), (2, 0.4))),
        replace(run(0, 0.5), curve=((1, 0.4), (2, 0.5))),
    ]
    study = comparison([(BASELINE, short[:1]), (DISTILL, short[1:])])
    late = panel(element(learning_curves(study)), 2)
    ticks = [one for one in late.iter(f"{SVG}g") if re.search(r"\bxtick_\d+$", one.get("id", ""))]
    assert [texts(tick) for tick in ticks] == [["2"]]


def test_a_longer_rung_leaves_the_others_in_the_last_third() -> None:
    """The last third is each rung's own."""
    study = comparison([(BASELINE, [run(0, 0.4)]), (DISTILL, [run(0, 0.5)])])
    longer = replace(study.results[1].runs[0], curve=((1, 0.3), (30, 0.5)))
    study = comparison([(BASELINE, study.results[0].runs), (DISTILL, [longer])])
    root = element(learning_curves(study))
    assert {"baseline", "self_distill"} <= set(texts(panel(root, 2)))
    threads = [path.get("style", "") for path in root.iter(f"{SVG}path") if "dash" in path.get("style", "")]
    assert len(threads) == 2
    assert all("stroke: #8f979f" in thread for thread in threads), "where a short rung ends, its line does"


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([1, 5, 9], [1, 5, 9]),
        ([0, 0, 10], [-1, 1, 10]),
        ([0, 1, 2], [-1, 1, 3]),
        ([0, 3, 3.5], [0, 2.25, 4.25]),
        ([0, 2.5, 2.5], [-1 / 3, 5 / 3, 11 / 3]),  # the pair moved apart meets the first
        ([], []),
    ],
)
def test_names_are_moved_apart_by_two(places: list[float], expected: list[float]) -> None:
    assert spread_out(places, gap=2) == pytest.approx(expected)


@pytest.mark.parametrize("figure", FIGURES)
def test_equal_data_give_equal_bytes(three_seeds: Comparison, one_seed: Comparison, figure: Figure) -> None:
    """Also under other settings of the user, which stay as they are."""
    first = figure(three_seeds)
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "svg.hashsalt": "other"}):
        before = dict(mpl.rcParams)
        assert figure(three_seeds) == first
        assert dict(mpl.rcParams) == before
    assert figure(one_seed) != first
    assert first is not None
    assert "rdf" not in first
    assert "<text" in first


# The page


class Page(HTMLParser):
    """Fails on tags that do not match; collects what the tests ask for."""

    VOID = ("meta", "br", "wbr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""  # outside of style and figures
        self.tables: list[list[list[str]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        self.text += " " if tag in ("p", "li", "td", "th", "dt", "dd", "h1", "h2") else ""
        match tag:
            case "table":
                self.tables.append([])
            case "tr":
                self.tables[-1].append([])
            case "td" | "th":
                self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self.open):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def text_of(page: str) -> str:
    return Page(page).text


@each_study
def test_the_page_is_well_formed_and_needs_nothing_else(study: Comparison) -> None:
    source = comparison_page(study)
    page = Page(source)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    used = page.values("xlink:href") + re.findall(r"url\(([^)]*)\)", source)
    assert all(target.startswith("#") and target[1:] in ids for target in used)
    assert not {"script", "link", "img", "iframe", "object", "embed", "image"} & set(page.tags)
    assert not page.values("src") + page.values("href")
    assert "@import" not in source
    names = {value for key, value in page.attributes if key.startswith("xmlns")}
    assert set(re.findall(r"https?://[^\"'\s<]*", source)) <= names
    assert page.tags.count("h1") == 1


@each_study
def test_no_page_shows_what_is_not_there(study: Comparison) -> None:
    source = comparison_page(study)
    shown = source + printed(study) + protocol_line(study)
    assert not re.search(r"\b(nan|NaN|inf|None)\b", shown)


def test_figures_that_exist_are_in_the_page(three_seeds: Comparison, no_pair: Comparison) -> None:
    assert Page(comparison_page(three_seeds)).tags.count("svg") == 3
    assert Page(comparison_page(no_pair)).tags.count("svg") == 1
    assert Page(comparison_page(three_seeds)).tags.count("figcaption") == 3


def test_the_page_has_the_cells_of_the_terminal(three_seeds: Comparison) -> None:
    tables = Page(comparison_page(three_seeds)).tables
    grids = [rows.main_grid(three_seeds), rows.class_grid(three_seeds), rows.submodel_grid(three_seeds)]
    assert len(tables) == len(grids)
    for table, grid in zip(tables, grids, strict=True):
        assert grid is not None
        assert [tuple(row) for row in table[-len(grid.rows) :]] == list(grid.rows)
        assert table[-len(grid.rows) - 1] == [column.heading.replace("\n", "") for column in grid.columns]
    assert tables[0][0] == ["", "minus baseline", "minus deep_supervision", "× baseline"]


def test_the_page_in_words(three_seeds: Comparison) -> None:
    """The verdict stands before every number; then every sentence, the protocol, what each rung changes."""
    source = comparison_page(three_seeds)
    text = " ".join(text_of(source).split())
    lead, others = rows.verdict(three_seeds)
    assert f'<p class="lead">{lead}</p>' in source
    assert text.index(lead) < text.index(others[0]) < text.index("42.00 ± 2.00")
    assert all(sentence in text for sentence in others)
    for expected in (
        "data camvid",
        "input size 192x256",
        "test time augmentation no",
        "seeds 0, 1, 2",
        rows.SCORE_NOTE,
        "self_distill: method.kind=self_distill",
        "here over 3 seeds",
        "These are 3 intervals of primaries. Where no method changes anything, in up to 14% of such studies",
        "the noise between seeds only",
    ):
        assert expected in text, expected


@pytest.mark.parametrize("data", ["abc", "def"])
def test_the_page_says_what_all_runs_share(data: str) -> None:
    runs = [(BASELINE, [run(0, 0.4)]), (DISTILL, [run(0, 0.5)])]
    page = text_of(comparison_page(comparison(runs, protocols=on_data("abc", data))))
    one_split = (
        "All runs share one split of the data, the same scored images and all settings except those listed"
    )
    assert (one_split in page) == (data == "abc")
    assert ("settings except those listed above, but, as said at the top, not all" in page) == (data != "abc")


def test_names_are_text_in_the_page(nasty: Comparison) -> None:
    """In title, cells, figures and overrides; a dollar sign starts no formula."""
    source = comparison_page(nasty)
    assert "<script" not in source
    page = Page(source)
    assert f"Comparison of training methods: {NASTY}" in page.text
    assert any(row[0] == NASTY for row in page.tables[1])
    assert f"data.root={NASTY}" in page.text
    assert NASTY in texts(element(class_differences(nasty)))
