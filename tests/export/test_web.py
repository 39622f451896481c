"""The web page: how its folder is written, and what it does in a real browser."""

import io
import json
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from networks import described
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from segdistill.data.camvid import resolve_root
from segdistill.data.files import read_image
from segdistill.data.taxonomy import CAMVID
from segdistill.errors import ExportError
from segdistill.export import web
from segdistill.export.description import Input, Layout
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.web import cache_folder, write_web_page

ASSETS = {"index.html", "page.js", "decode.js", "worker.js", "resample.js", "style.css", "icon.svg"}
RUNTIME = f"onnxruntime-web-{web.RUNTIME_VERSION}"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CAMERA_FLAGS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
MIN_EQUAL = 0.999


def write_model(
    path: Path,
    *,
    kind: Input = "image",
    layout: Layout = "nhwc",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    confidence: bool = False,
) -> Path:
    """A random convolution of stride 4, resized back, and its argmax; None is a dynamic axis."""
    description = described(input=kind, layout=layout, confidence=confidence, licence="a note on rights")
    height, width = size or ("height", "width")
    places = ["batch" if batch is None else batch, height, width]
    generator = np.random.default_rng(0)
    # Above all the mean colour of 5x5 pixels decides, so flat places are no toss-up.
    kernel = generator.normal(0, 0.01, (CAMVID.num_classes, 3, 5, 5)) + generator.normal(
        0, 0.01, (CAMVID.num_classes, 3, 1, 1)
    )
    bias = -110 * kernel.sum((1, 2, 3))
    weights = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32), "one": np.array([1])}
    node = helper.make_node
    nodes = [
        node("Transpose", ["rgb_image"], ["chw"], perm=[0, 3, 1, 2] if layout == "nhwc" else [0, 1, 2, 3]),
        node("Cast", ["chw"], ["image"], to=TensorProto.FLOAT),
        node("Conv", ["image", "kernel", "bias"], ["coarse"], strides=[4, 4], pads=[2] * 4),
        node("Shape", ["coarse"], ["head"], start=0, end=2),
        node("Shape", ["image"], ["tail"], start=2, end=4),
        node("Concat", ["head", "tail"], ["target"], axis=0),
        node("Resize", ["coarse", "", "", "target"], ["logits"], mode="linear"),
        node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        node("Cast", ["best"], ["class_index"], to=TensorProto.UINT8),
        node("Softmax", ["logits"], ["odds"], axis=1),
        node("ReduceMax", ["odds", "one"], ["confidence"], keepdims=0),
    ]
    channels_at = 1 if layout == "nchw" else 3
    axes = [*places[:channels_at], 3, *places[channels_at:]]
    value = helper.make_tensor_value_info
    outputs = [
        value("class_index", TensorProto.UINT8, places),
        value("confidence", TensorProto.FLOAT, places),
    ]
    graph = helper.make_graph(
        nodes if confidence else nodes[:-2],
        "tiny",
        [value("rgb_image", TensorProto.UINT8, axes)],
        outputs if confidence else outputs[:1],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, description.to_metadata())
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "network.onnx")


# The folder ------------------------------------------------------------------------------------------------------


def package(path: Path, *, leave_out: str = "", prefix: str = "package/") -> tuple[Path, str]:
    """A stand-in for npm's archive, and its integrity."""
    contents = {member: name.encode() for member, name in web.RUNTIME_FILES.items()}
    with tarfile.open(path, "w:gz") as tar:
        for member, content in {**contents, "dist/ort.all.js": b"not needed"}.items():
            if member != leave_out:
                info = tarfile.TarInfo(prefix + member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path, web._integrity(path)


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, str]:
    return package(tmp_path / "runtime.tgz")


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def write(model: Path, folder: Path, runtime: Path | None, integrity: str, **keywords: object) -> None:
    write_web_page(
        model, folder, runtime=runtime, cache=folder.parent / "cache", integrity=integrity, **keywords
    )


def test_folder_has_the_page_the_model_and_what_it_needs_of_the_runtime(
    model: Path, tmp_path: Path, archive: tuple[Path, str]
) -> None:
    page = tmp_path / "deep" / "page"
    write(model, page, *archive)
    runtime = {f"{RUNTIME}/{name}" for name in (*web.RUNTIME_FILES.values(), "LICENSE.txt")}
    assert files_of(page) == ASSETS | runtime | {"model.onnx", "model.json"}
    assert (page / "model.onnx").read_bytes() == model.read_bytes()
    assert "MIT License" in (page / RUNTIME / "LICENSE.txt").read_text()
    for name in web.RUNTIME_FILES.values():
        assert (page / RUNTIME / name).read_bytes() == name.encode()
    assert [path.name for path in page.parent.iterdir()] == ["page"]


def test_settings_are_those_of_the_file(tmp_path: Path, archive: tuple[Path, str]) -> None:
    model = write_model(tmp_path / "x.onnx", layout="nchw", size=(96, 128), batch=2, confidence=True)
    write(model, tmp_path / "page", *archive)
    settings = json.loads((tmp_path / "page" / "model.json").read_text())
    assert settings.pop("classes")[1] == {"name": "building", "colour": [128, 0, 0]}
    assert settings == {
        "made_by": "segdistill",
        "name": "unet / resnet18",
        "stream": "primary",
        "precision": "fp32",
        "miou": 0.5,
        "scored_on": "camvid val",
        "licence": "a note on rights",
        "file": "model.onnx",
        "bytes": model.stat().st_size,
        "runtime": RUNTIME,
        "input": "rgb_image",
        "class_index": "class_index",
        "confidence": "confidence",
        "layout": "nchw",
        "size": [64, 96],
        "fixed_size": [96, 128],
        "fixed_batch": 2,
    }


def test_tensor_file_is_refused(tmp_path: Path, archive: tuple[Path, str]) -> None:
    model = write_model(tmp_path / "x.onnx", kind="tensor")
    with pytest.raises(ExportError, match="--input image"):
        write(model, tmp_path / "page", *archive)
    assert not (tmp_path / "page").exists()


def test_own_page_is_replaced(model: Path, tmp_path: Path, archive: tuple[Path, str]) -> None:
    page = tmp_path / "page"
    page.mkdir()  # an empty folder is as good as none
    write(model, page, *archive)
    (page / "model.onnx").write_bytes(b"old")
    (page / RUNTIME).rename(page / "onnxruntime-web-0.1.0")
    write(model, page, *archive)
    assert (page / "model.onnx").read_bytes() == model.read_bytes()
    assert not (page / "onnxruntime-web-0.1.0").exists()


@pytest.mark.parametrize("with_page", [False, True])
def test_foreign_files_are_never_removed(
    model: Path, tmp_path: Path, archive: tuple[Path, str], with_page: bool
) -> None:
    page = tmp_path / "page"
    if with_page:
        write(model, page, *archive)
    page.mkdir(exist_ok=True)
    (page / "thesis.tex").write_text("years of work")
    before = files_of(page)
    with pytest.raises(ExportError, match=r"thesis\.tex"):
        write(model, page, *archive)
    assert files_of(page) == before


def test_what_macos_leaves_behind_is_in_nobodys_way(
    model: Path, tmp_path: Path, archive: tuple[Path, str]
) -> None:
    page = tmp_path / "page"
    page.mkdir()
    for _ in ("an empty folder", "an earlier page"):
        (page / ".DS_Store").write_text("how the folder looked")
        write(model, page, *archive)
        assert (page / "index.html").is_file()


@pytest.mark.parametrize("settings", [None, "{}", '["made_by"]', "no json"])
def test_another_site_is_never_removed(
    model: Path, tmp_path: Path, archive: tuple[Path, str], settings: str | None
) -> None:
    """Though all of its files bear names of ours."""
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("my home page")
    if settings is not None:
        (page / "model.json").write_text(settings)
    with pytest.raises(ExportError, match=r"index\.html"):
        write(model, page, *archive)
    assert (page / "index.html").read_text() == "my home page"


def test_file_in_the_way(model: Path, tmp_path: Path, archive: tuple[Path, str]) -> None:
    (tmp_path / "page").write_text("x")
    with pytest.raises(ExportError, match="is a file"):
        write(model, tmp_path / "page", *archive)


@pytest.mark.parametrize("had_page", [False, True])
def test_failure_leaves_everything_as_it_was(
    model: Path, tmp_path: Path, archive: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, had_page: bool
) -> None:
    page = tmp_path / "place" / "page"
    if had_page:
        write(model, page, *archive)
        (page / "model.onnx").write_bytes(b"old")
    rename = Path.rename

    def fails_at_the_last_step(self: Path, target: Path) -> Path:
        if self.name == "page" and target == page:
            raise OSError("no space left")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_at_the_last_step)
    with pytest.raises(ExportError, match="no space left"):
        write(model, page, *archive)
    assert [path.name for path in page.parent.iterdir()] == (["page"] if had_page else [])
    if had_page:
        assert (page / "model.onnx").read_bytes() == b"old"


def test_unpacked_package(model: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "package"
    (unpacked / "dist").mkdir(parents=True)
    for member in web.RUNTIME_FILES:
        (unpacked / member).write_bytes(b"code")
    (unpacked / "package.json").write_text(
        json.dumps({"name": "onnxruntime-web", "version": web.RUNTIME_VERSION})
    )
    write(model, tmp_path / "page", unpacked, "sha512-unused")
    assert (tmp_path / "page" / RUNTIME / "ort.wasm.bundle.min.js").read_bytes() == b"code"

    (unpacked / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": "1.0.0"}))
    with pytest.raises(ExportError, match=r"holds onnxruntime-web 1\.0\.0"):
        write(model, tmp_path / "page", unpacked, "sha512-unused")


def test_archive_that_was_not_published_is_refused(model: Path, tmp_path: Path) -> None:
    archive, integrity = package(tmp_path / "runtime.tgz")
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(ExportError) as caught:
        write(model, tmp_path / "page", archive, integrity)
    for part in (str(archive), integrity, web._integrity(archive)):
        assert part in str(caught.value)
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("damage", [{"leave_out": "dist/ort.wasm.bundle.min.mjs"}, {"prefix": "../"}])
def test_archive_without_the_files(model: Path, tmp_path: Path, damage: dict[str, str]) -> None:
    with pytest.raises(ExportError, match="not the npm package"):
        write(model, tmp_path / "page", *package(tmp_path / "runtime.tgz", **damage))


def test_missing_archive(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such file") as caught:
        write(model, tmp_path / "page", tmp_path / "nowhere.tgz", "sha512-unused")
    assert "--web-runtime FILE" in str(caught.value)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A server's URL, and the folder that it serves."""
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    folder = tmp_path / "registry"
    folder.mkdir()
    with served(folder) as url:
        yield url, folder


def test_runtime_is_downloaded_once(model: Path, tmp_path: Path, registry: tuple[str, Path]) -> None:
    url, folder = registry
    archive, integrity = package(folder / "ort.tgz")
    write(model, tmp_path / "page", None, integrity, url=f"{url}/ort.tgz")
    assert files_of(tmp_path / "cache") == {web.RUNTIME_ARCHIVE}
    archive.unlink()
    write(model, tmp_path / "page", None, integrity, url=f"{url}/ort.tgz")


def test_damaged_download_is_not_kept(model: Path, tmp_path: Path, registry: tuple[str, Path]) -> None:
    url, folder = registry
    archive, integrity = package(folder / "ort.tgz")
    published = archive.read_bytes()
    archive.write_bytes(published[:-1])
    with pytest.raises(ExportError, match="not onnxruntime-web"):
        write(model, tmp_path / "page", None, integrity, url=f"{url}/ort.tgz")
    assert not files_of(tmp_path / "cache")
    assert not (tmp_path / "page").exists()

    archive.write_bytes(published)
    (tmp_path / "cache" / web.RUNTIME_ARCHIVE).write_bytes(b"damaged since")
    write(model, tmp_path / "page", None, integrity, url=f"{url}/ort.tgz")


def test_unreachable_runtime(model: Path, tmp_path: Path, registry: tuple[str, Path]) -> None:
    url = f"{registry[0]}/nothing.tgz"
    with pytest.raises(ExportError) as caught:
        write(model, tmp_path / "page", None, "sha512-unused", url=url)
    for part in (url, "404", f"npm pack onnxruntime-web@{web.RUNTIME_VERSION}", "--web-runtime FILE"):
        assert part in str(caught.value)
    assert not (tmp_path / "page").exists()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "segdistill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "segdistill"


# The browser -----------------------------------------------------------------------------------------------------


@contextmanager
def served(folder: Path, *, isolated: bool = False) -> Iterator[str]:
    """The URL of a plain static server of `folder`; `isolated` sends the headers that threads need."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def end_headers(self) -> None:
            if isolated:
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# Fixed sizes are odd: see `test_resizing_is_opencvs`.
VARIANTS = {
    "plain": {},
    "channels_first": {"layout": "nchw", "confidence": True},
    "fixed": {"size": (101, 141), "batch": 2, "confidence": True},
    "fixed_channels_first": {"size": (513, 351), "layout": "nchw"},
}


@pytest.fixture(scope="module")
def chromium() -> str:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    return path or pytest.skip(f"no Chromium on this machine: none of {', '.join(BROWSERS)} is installed")


@pytest.fixture(scope="module")
def pages(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model `<variant>.onnx` and a page `<variant>/` for each variant.

    Nothing is downloaded where there is no browser.
    """
    folder = tmp_path_factory.mktemp("pages")
    for name, keywords in VARIANTS.items():
        model = write_model(folder / f"{name}.onnx", **keywords)
        try:
            write_web_page(model, folder / name, runtime=None, cache=cache_folder())
        except ExportError as error:
            if "download failed" not in str(error):
                raise
            pytest.skip(f"onnxruntime-web is not cached, and: {error}")
    return folder


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CAMERA_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(pages: Path) -> Iterator[str]:
    with served(pages) as url:
        yield url


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        context.set_default_timeout(60_000)
        yield context.new_page()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd-sized, with soft shapes."""
    path = tmp_path_factory.mktemp("pictures") / "odd.png"
    save_picture(path, (75, 101))
    return path


def save_picture(path: Path, size: tuple[int, int], **keywords: object) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)).save(path, **keywords)


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    expect(page.get_by_role("status")).to_have_text("Ready", timeout=60_000)
    return page


def choose(page: Page, file: Path) -> None:
    page.get_by_label("Choose an image").set_input_files(file)


def mask_of(page: Page, file: Path) -> np.ndarray:
    """(H, W) uint8, once the page says that it is done."""
    expect(page.get_by_role("status")).to_contain_text(
        re.compile(rf"^{re.escape(file.name)}, \d+ × \d+ pixels"), timeout=60_000
    )
    height, width = page.evaluate("[segdistill.lastMask.height, segdistill.lastMask.width]")
    return bytes_of(page, "segdistill.lastMask.classes").reshape(height, width)


def bytes_of(page: Page, expression: str) -> np.ndarray:
    """A typed array of the page's; as one text it travels much faster than as a list."""
    return np.array(page.evaluate(f"({expression}).join()").split(","), np.uint8)


def camvid_frame() -> Path:
    beside = Path(__file__).parents[3] / "shared" / "camvid"
    for root in (resolve_root(None), beside):
        frames = sorted((root / "val").glob("*.png"))
        if frames:
            return frames[len(frames) // 2]
    pytest.skip("no CamVid at hand: set SEGDISTILL_CAMVID to its folder")


@pytest.mark.parametrize("variant", VARIANTS)
def test_mask_is_onnx_runtimes_on_a_real_image(page: Page, site: str, pages: Path, variant: str) -> None:
    frame = camvid_frame()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    opened(page, f"{site}/{variant}/")
    choose(page, frame)
    mask = mask_of(page, frame)
    expected = OnnxFile(pages / f"{variant}.onnx", threads=1).predict(read_image(frame)).classes
    assert len(np.unique(expected)) > 5
    assert mask.shape == expected.shape
    assert (mask == expected).mean() >= MIN_EQUAL
    assert any(url.endswith(".wasm") for url in requests), "the worker's requests are seen"
    assert [url for url in requests if not url.startswith(f"{site}/{variant}/")] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_mask_is_onnx_runtimes_on_an_odd_size(
    page: Page, site: str, pages: Path, picture: Path, variant: str
) -> None:
    opened(page, f"{site}/{variant}/")
    choose(page, picture)
    expected = OnnxFile(pages / f"{variant}.onnx", threads=1).predict(read_image(picture)).classes
    assert (mask_of(page, picture) == expected).mean() >= MIN_EQUAL


def test_images_are_taken_as_they_are_stored(page: Page, site: str, pages: Path, tmp_path: Path) -> None:
    """EXIF data turn nothing, which is told; a grey image is no other case."""
    opened(page, f"{site}/plain/")
    upright, turned = Image.Exif(), Image.Exif()
    upright[0x0112], turned[0x0112] = 1, 6  # turn by 90 degrees
    for name in ("turned.jpg", "turned.png"):
        save_picture(tmp_path / name, (75, 101), exif=turned)
    save_picture(tmp_path / "upright.jpg", (75, 101), exif=upright)
    Image.open(tmp_path / "turned.png").convert("L").save(tmp_path / "grey.png")
    for name in ("turned.jpg", "turned.png", "upright.jpg", "grey.png"):
        choose(page, tmp_path / name)
        mask = mask_of(page, tmp_path / name)
        assert mask.shape == (75, 101)
        told = "as it is stored" in page.get_by_role("status").inner_text()
        assert told == name.startswith("turned"), name
        expected = OnnxFile(pages / "plain.onnx", threads=1).predict(read_image(tmp_path / name)).classes
        assert (mask == expected).mean() >= MIN_EQUAL


def test_legend_speed_facts_and_overlay(page: Page, site: str, picture: Path) -> None:
    opened(page, f"{site}/plain/")
    for fact in ("unet / resnet18", "primary", "fp32", "50.0 % on camvid val"):
        expect(page.locator("#facts")).to_contain_text(fact)
    expect(page.locator("footer")).to_have_text("a note on rights")
    choose(page, picture)
    mask = mask_of(page, picture)
    shares = np.bincount(mask.ravel(), minlength=CAMVID.num_classes) / mask.size
    rows = page.locator("#legend tr")
    for index, (name, share) in enumerate(zip(CAMVID.names, shares, strict=True)):
        expect(rows.nth(index)).to_have_text(re.compile(rf"^{name}\s*{100 * share:.1f} %$"))
        colour = rows.nth(index).locator(".swatch").evaluate("swatch => swatch.style.backgroundColor")
        assert colour == f"rgb{CAMVID.colours[index]}"
    assert float(page.locator("#milliseconds").inner_text()) > 0

    for canvas, expected in (("overlay", CAMVID.colourise(mask)), ("image", read_image(picture))):
        rgba = bytes_of(
            page, f"{canvas}.getContext('2d').getImageData(0, 0, {canvas}.width, {canvas}.height).data"
        )
        assert np.array_equal(rgba.reshape(*mask.shape, 4)[..., :3], expected)


def test_pointer_tells_class_and_confidence(page: Page, site: str, pages: Path, picture: Path) -> None:
    opened(page, f"{site}/channels_first/")
    choose(page, picture)
    mask = mask_of(page, picture)
    box = page.locator("#overlay").bounding_box()
    assert box is not None
    y, x = mask.shape[0] // 3, mask.shape[1] // 4
    page.mouse.move(
        box["x"] + (x + 0.5) * box["width"] / mask.shape[1],
        box["y"] + (y + 0.5) * box["height"] / mask.shape[0],
    )
    confidence = OnnxFile(pages / "channels_first.onnx", threads=1).predict(read_image(picture)).confidence
    assert confidence is not None
    expect(page.locator("#pointed")).to_have_text(
        f"{CAMVID.names[mask[y, x]]}, {100 * confidence[y, x]:.1f} % sure"
    )
    page.mouse.move(0, 0)
    expect(page.locator("#pointed")).to_be_hidden()


def test_keyboard_alone_is_enough(page: Page, site: str) -> None:
    opened(page, f"{site}/plain/")
    for control in (
        page.get_by_label("Choose an image"),
        page.get_by_role("button", name="Use the camera"),
        page.get_by_role("slider", name="Overlay"),
    ):
        page.keyboard.press("Tab")
        expect(control).to_be_focused()
    page.keyboard.press("Home")
    assert page.evaluate("overlay.style.opacity") == "0"


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_other_ways_in(page: Page, site: str, picture: Path, way: str) -> None:
    opened(page, f"{site}/plain/")
    page.evaluate(
        """([way, name, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name));
            const options = { bubbles: true, cancelable: true };
            stage.dispatchEvent(
                way === "drop"
                    ? new DragEvent("drop", { ...options, dataTransfer: data })
                    : new ClipboardEvent("paste", { ...options, clipboardData: data }),
            );
        }""",
        [way, picture.name, list(picture.read_bytes())],
    )
    assert mask_of(page, picture).shape == (75, 101)


def test_large_image_is_computed_at_less_and_shown_whole(page: Page, site: str, tmp_path: Path) -> None:
    opened(page, f"{site}/plain/")
    save_picture(tmp_path / "large.jpg", (1500, 2000))
    choose(page, tmp_path / "large.jpg")
    expect(page.get_by_role("status")).to_have_text(
        "large.jpg, 2000 × 1500 pixels, computed at 1663 × 1247", timeout=60_000
    )
    assert page.evaluate("segdistill.lastMask.classes.length") == 1500 * 2000


def test_what_is_no_image_is_told_and_does_no_harm(
    page: Page, site: str, picture: Path, tmp_path: Path
) -> None:
    opened(page, f"{site}/plain/")
    (tmp_path / "letter.txt").write_text("Dear network")
    choose(page, tmp_path / "letter.txt")
    expect(page.get_by_role("status")).to_have_text("letter.txt is not an image that this browser can read.")
    choose(page, picture)
    assert mask_of(page, picture).shape == (75, 101)


def test_model_that_cannot_be_loaded_is_told(page: Page, pages: Path, tmp_path: Path) -> None:
    shutil.copytree(pages / "plain", tmp_path / "page")
    model = tmp_path / "page" / "model.onnx"
    with served(tmp_path / "page") as url:
        model.write_bytes(b"no network")
        page.goto(url)
        expect(page.get_by_role("status")).to_contain_text(
            "The network could not be loaded: ", timeout=60_000
        )
        model.unlink()
        page.goto(url)
        expect(page.get_by_role("status")).to_have_text(
            "The network could not be loaded: model.onnx: the server answered 404", timeout=60_000
        )


def test_camera_yields_frames_until_it_is_stopped(page: Page, site: str) -> None:
    opened(page, f"{site}/plain/")
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("#speed-words")).to_have_text(
        re.compile("median of ([3-9]|[12]\\d|30)$"), timeout=60_000
    )
    assert page.evaluate("[segdistill.lastMask.width, segdistill.lastMask.height]") == [640, 480]
    assert float(page.locator("#milliseconds").inner_text()) > 0
    tracks = page.evaluate_handle("video.srcObject.getTracks()")
    page.get_by_role("button", name="Stop the camera").click()
    expect(page.get_by_role("button", name="Use the camera")).to_be_visible()
    assert tracks.evaluate("tracks => tracks.map(track => track.readyState)") == ["ended"]


@pytest.mark.parametrize(
    ("name", "words"), [("NotAllowedError", "was not permitted"), ("NotFoundError", "No camera was found")]
)
def test_camera_that_cannot_be_had_is_told(page: Page, site: str, name: str, words: str) -> None:
    page.add_init_script(
        f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', '{name}'))"
    )
    opened(page, f"{site}/plain/").get_by_role("button", name="Use the camera").click()
    expect(page.get_by_role("status")).to_contain_text(words)


def test_isolated_page_uses_threads(page: Page, pages: Path, picture: Path) -> None:
    with served(pages, isolated=True) as url:
        opened(page, f"{url}/plain/")
        cores = page.evaluate("navigator.hardwareConcurrency")
        expect(page.locator("#facts")).to_contain_text(f"Threads{min(4, cores)}")
        choose(page, picture)
        expected = OnnxFile(pages / "plain.onnx", threads=1).predict(read_image(picture)).classes
        assert (mask_of(page, picture) == expected).mean() >= MIN_EQUAL


def test_policy_forbids_other_origins(page: Page, site: str, tmp_path: Path) -> None:
    opened(page, f"{site}/plain/")
    with served(tmp_path) as elsewhere, pytest.raises(Error, match="Failed to fetch"):
        page.evaluate("url => fetch(url, { mode: 'no-cors' })", elsewhere)
    assert page.evaluate("fetch('model.json').then(answer => answer.status)") == 200


def test_page_opened_as_a_file_says_how_to_serve_it(page: Page, pages: Path) -> None:
    page.goto((pages / "plain" / "index.html").as_uri())
    expect(page.get_by_text("This page has to come from a web server")).to_be_visible()
    expect(page.get_by_text("python -m http.server")).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(0)


@pytest.mark.parametrize("width", [320, 768, 1400])
def test_no_width_needs_sideways_scrolling(page: Page, site: str, picture: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, f"{site}/plain/")
    choose(page, picture)
    mask_of(page, picture)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("target", [(22, 30), (20, 80), (44, 62), (130, 36), (2, 2)])
def test_resizing_is_opencvs(page: Page, site: str, target: tuple[int, int]) -> None:
    """From odd to even sizes: the centre of a pixel never falls between two, where OpenCV's versions differ."""
    page.goto(f"{site}/plain/")
    source = np.random.default_rng(2).integers(0, 256, (45, 63, 3), dtype=np.uint8)
    from_, to = ({"height": size[0], "width": size[1]} for size in (source.shape, target))
    results = page.evaluate(
        """async ([pixels, from, to]) => {
            const { resized, nearest } = await import("./resample.js");
            const first = Uint8Array.from(pixels.filter((_, place) => place % 3 === 0));
            return [[...resized(pixels, 3, from, to)], [...nearest(first, from, to)]];
        }""",
        [source.ravel().tolist(), from_, to],
    )
    smaller = tuple(map(min, source.shape, target))
    averaged = cv2.resize(source, smaller[::-1], interpolation=cv2.INTER_AREA)
    expected = cv2.resize(averaged, target[::-1], interpolation=cv2.INTER_LINEAR)
    difference = np.array(results[0]).reshape(expected.shape) - expected.astype(int)
    assert np.abs(difference).max() <= 1
    assert (difference == 0).mean() > 0.99
    nearest = cv2.resize(source[..., 0], target[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    assert np.array_equal(np.array(results[1]).reshape(target), nearest)
