"""Imports go one way. Read from the source, functions included; nothing is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "segdistill"

LEAVES = {
    f"{PACKAGE}.{name}"
    for name in (
        "console",
        "cores",
        "errors",
        "files",
        "given_model",
        "launchers",
        "locks",
        "memory",
        "normalisation",
        "orphans",
        "processes",
        "protocol",
        "resolution",
        "run_summary",
        "seeds",
        "stop_signals",
        "streams",
    )
}
COMPOSERS = {f"{PACKAGE}.{name}" for name in ("build", "cli", "commands", "config_io")}

#: What a module or package may import beside the leaves, itself and the package's version.
ALLOWED = {
    "config": {"config_data", "config_method", "config_types"},
    "config_data": {"config_types"},
    "config_io": {"config", "config_problems", "config_yaml"},
    "config_method": {"config_types"},
    "config_problems": {"config", "config_yaml"},
    "config_types": set(),
    "config_yaml": set(),
    "data": set(),
    "models": set(),
    "losses": set(),
    "evaluation": {"data", "models", "losses"},
    "training": {"data", "models", "losses", "evaluation"},
    "export": {"data", "models", "losses", "evaluation", "training"},
    "study": set(),
    "report": {"study"},
}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module below `root`."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """Every module of the package that a file imports, wherever in the file it does."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return {
        one for one in _imported(ast.parse(path.read_text()), package, known) if one.split(".")[0] == PACKAGE
    }


def _imported(tree: ast.AST, package: str, known: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package.split(".")[: len(package.split(".")) - (level - 1)] if level else []
                source = ".".join([*base, *([module] if module else [])])
                for alias in names:
                    # `from package import module` imports the module, `from module import name` does not.
                    inner = f"{source}.{alias.name}"
                    yield inner if inner in known else source
            case ast.Call(
                func=ast.Name(id="__import__") | ast.Attribute(attr="import_module"), args=[first, *_]
            ):
                yield first.value if isinstance(first, ast.Constant) else PACKAGE + ".unknown"


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def violations(root: Path) -> list[str]:
    known = modules(root)
    wrong = []
    for name, path in known.items():
        for target in imports(name, path, set(known)):
            top = name.split(".")[1] if "." in name else ""
            allowed = {PACKAGE + "." + one for one in ALLOWED.get(top, set())} | {f"{PACKAGE}.{top}"} | LEAVES
            config = target.startswith(f"{PACKAGE}.config")
            if within(name, LEAVES):
                bad = not within(target, LEAVES)
            elif top in ALLOWED:
                bad = not (within(target, allowed) or target == PACKAGE)
            else:
                bad = config and not within(name, COMPOSERS)
            if bad:
                wrong.append(f"{name} imports {target}")
    return sorted(wrong)


def test_imports_go_one_way() -> None:
    assert violations(ROOT) == []


def test_every_rule_is_about_something_that_exists() -> None:
    known = set(modules(ROOT))
    assert LEAVES | COMPOSERS | {f"{PACKAGE}.{name}" for name in ALLOWED} <= known


def test_tools_only_call_the_command_line() -> None:
    for path in sorted((ROOT / "tools").glob("*.py")):
        found = imports(path.stem, path, set(modules(ROOT)))
        assert found == {"segdistill.cli"}, path.name


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("data/a.py", "from segdistill.models import b", "segdistill.data.a imports segdistill.models.b"),
        ("data/a.py", "from segdistill.config import Config", "segdistill.data.a imports segdistill.config"),
        ("models/b.py", "import segdistill.losses", "segdistill.models.b imports segdistill.losses"),
        ("models/b.py", "from ..data.a import x", "segdistill.models.b imports segdistill.data.a"),
        ("losses/__init__.py", "from ..data import a", "segdistill.losses imports segdistill.data.a"),
        ("losses/c.py", "from .. import config", "segdistill.losses.c imports segdistill.config"),
        ("config.py", "def f():\n    from segdistill import data", "segdistill.config imports segdistill.data"),
        ("training/d.py", "class A:\n    import segdistill.config_io as io",
         "segdistill.training.d imports segdistill.config_io"),
        ("evaluation/e.py", "from segdistill import build", "segdistill.evaluation.e imports segdistill.build"),
        ("report.py", "if True:\n    from segdistill.config import Config",
         "segdistill.report imports segdistill.config"),
        ("errors.py", "import segdistill.data.a", "segdistill.errors imports segdistill.data.a"),
        ("data/a.py", "import importlib\nimportlib.import_module('segdistill.models')",
         "segdistill.data.a imports segdistill.models"),
        ("data/a.py", "from segdistill.models.b import x", "segdistill.data.a imports segdistill.models.b"),
    ],
)  # fmt: skip
def test_violations_are_found(tmp_path: Path, file: str, source: str, wrong: str) -> None:
    names = (
        "__init__ errors config config_io build report data/__init__ data/a models/b losses/__init__ losses/c"
    )
    names += " training/d evaluation/e"
    files = {f"{name}.py": "import os\nimport torch.nn\n" for name in names.split()}
    files["models/b.py"] += "from segdistill.errors import UserError\nfrom . import b\n"
    files["build.py"] += "from segdistill.config import Config\nfrom segdistill import data, models\n"
    files["training/d.py"] += "from segdistill.models.b import x\nfrom segdistill import __version__\n"
    for name, text in files.items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert violations(tmp_path) == []
    (tmp_path / PACKAGE / file).write_text(source)
    assert violations(tmp_path) == [wrong]
