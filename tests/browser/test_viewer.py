"""The page for looking at images, used as people use it."""

import numpy as np
import pytest
from browsers import opened

from ddgm.errors import DdgmError
from ddgm.viewer import Shown, viewer

ROWS, COLUMNS = 24, 32


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(3, ROWS, COLUMNS)).astype(np.float32)
    blurred = (truth + np.roll(truth, 1, axis=2)) / 2
    near = truth + np.float32(0.1) * rng.normal(size=truth.shape).astype(np.float32)
    return truth, blurred, near


@pytest.fixture(scope="module")
def page(chromium, images, tmp_path_factory):
    truth, blurred, near = images
    mse = [np.square(each - truth).mean(axis=(1, 2)) for each in (blurred, near)]
    methods = [
        Shown("Algebraic", blurred[:2], {"MSE": mse[0][:2]}),
        Shown("<DDGM>", near, {"MSE": mse[1]}, {"uncertainty": np.full_like(near[:2], 0.2)}),
    ]
    path = tmp_path_factory.mktemp("viewer") / "viewer.html"
    path.write_text(viewer(truth, methods, voxel_size=16, title="made & small"), encoding="utf-8")
    with opened(chromium, path) as page:
        page.wait_for_function("Bokeh.documents.length && Bokeh.documents[0].is_idle")
        yield page


@pytest.fixture(autouse=True)
def at_the_start(page):
    """Put every widget back to what it was when the page was opened."""
    page.evaluate(
        """() => {
            const set = (name, values) => Bokeh.documents[0].get_model_by_name(name).setv(values)
            for (const name of ["image", "mode", "compared"]) set(name, {active: 0})
            for (const name of ["overlay", "flip"]) set(name, {active: []})
            set("slider", {value: 1})
        }"""
    )
    page.keyboard.press("0")


def value(page, name, key):
    return page.evaluate(f"Bokeh.documents[0].get_model_by_name('{name}').{key}")


def grey(page, side="left", kind="grey"):
    pixels = page.evaluate(
        f"Array.from(Bokeh.documents[0].get_model_by_name('{side}').data.{kind}[0])"
    )
    return np.reshape(pixels, (ROWS, COLUMNS))


def eight_bits(image, truth):
    low, high = np.percentile(truth, [0.5, 99.5])
    return np.clip((image - low) / (high - low), 0, 1) * 255


def title(page, side):
    return value(page, f"{side}_panel", "title.text")


def test_it_opens_with_the_first_method_beside_the_truth(page, images):
    truth, blurred, _ = images
    np.testing.assert_allclose(grey(page, "left"), eight_bits(blurred[0], truth), atol=1)
    np.testing.assert_allclose(grey(page, "right"), eight_bits(truth[0], truth), atol=1)
    assert title(page, "left") == f"Algebraic   MSE {np.square(blurred[0] - truth[0]).mean():.3f}"
    assert page.title() == "made & small"
    assert page.get_by_role("heading", name="made & small").is_visible()
    canvas = page.locator(".bk-Figure").first.bounding_box()
    assert canvas["width"] > 400
    assert canvas["height"] > 300


def test_between_two_methods_the_slider_blends_or_wipes(page, images):
    truth, blurred, near = images
    first, second = eight_bits(blurred[0], truth), eight_bits(near[0], truth)
    page.evaluate("Bokeh.documents[0].get_model_by_name('slider').value = 1.24")
    np.testing.assert_allclose(grey(page), 0.76 * first + 0.24 * second, atol=1.5)
    assert not value(page, "border", "visible")
    page.keyboard.press("w")
    part = COLUMNS // 4
    np.testing.assert_allclose(grey(page)[:, :part], second[:, :part], atol=1)
    np.testing.assert_allclose(grey(page)[:, part:], first[:, part:], atol=1)
    assert value(page, "border", "visible")
    assert title(page, "left") == "<DDGM>  |  Algebraic"


def test_the_slider_is_dragged_to_the_last_method(page, images):
    handle = page.locator(".noUi-handle").first.bounding_box()
    middle = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 600, middle[1], steps=4)
    page.mouse.up()
    assert value(page, "slider", "value") == 2
    np.testing.assert_allclose(grey(page), eight_bits(images[2][0], images[0]), atol=1)
    assert title(page, "left").startswith("<DDGM>")


def test_keys_turn_over_methods_and_images(page, images):
    truth, _, near = images
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # there is no further one
    assert value(page, "slider", "value") == 2
    assert value(page, "method", "active") == 2
    page.keyboard.press("ArrowDown")
    np.testing.assert_allclose(grey(page), eight_bits(near[1], truth), atol=1)
    np.testing.assert_allclose(grey(page, "right"), eight_bits(truth[1], truth), atol=1)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    np.testing.assert_allclose(grey(page), eight_bits(truth[0], truth), atol=1)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("f")
    np.testing.assert_allclose(grey(page), eight_bits(truth[0], truth), atol=1)
    page.keyboard.press("f")
    assert title(page, "left").startswith("Algebraic")


def test_a_method_without_the_image_says_so(page):
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert title(page, "left") == "Algebraic   not reconstructed"
    assert not grey(page).any()


def test_zoom_and_pan_go_in_step(page):
    # The two panels have the same ranges, so that one cannot move without the other.
    ranges = "(() => { const at = (n) => Bokeh.documents[0].get_model_by_name(n); return %s })()"
    shared = "at('left_panel').x_range == at('right_panel').x_range"
    assert page.evaluate(ranges % shared)
    before = page.locator(".bk-Figure").nth(1).screenshot()
    box = page.locator(".bk-Figure").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    page.wait_for_function(ranges % f"at('x').end - at('x').start < {COLUMNS * 16} * 0.95")
    page.mouse.move(1, 1)
    assert page.locator(".bk-Figure").nth(1).screenshot() != before
    page.keyboard.press("0")
    assert [value(page, "x", "start"), value(page, "x", "end")] == [0, COLUMNS * 16]
    page.keyboard.press("+")
    assert value(page, "x", "end") - value(page, "x", "start") == pytest.approx(0.8 * COLUMNS * 16)
    assert value(page, "y", "start") - value(page, "y", "end") == pytest.approx(0.8 * ROWS * 16)
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert [value(page, "y", "start"), value(page, "y", "end")] == [ROWS * 16, 0]


def test_error_and_uncertainty_are_laid_over_the_image(page, images):
    truth, blurred, near = images
    plain = page.locator(".bk-Figure").first.screenshot()
    page.keyboard.press("e")
    assert value(page, "overlay", "active") == [0]
    page.wait_for_timeout(200)
    veiled = page.locator(".bk-Figure").first.screenshot()
    assert veiled != plain
    error = np.abs(blurred[0] - truth[0])
    top = max(np.percentile(np.abs(each - truth[: len(each)]), 99) for each in (blurred[:2], near))
    expected = np.clip(error / top, 0, 1) * 255
    np.testing.assert_allclose(grey(page, kind="error"), expected, atol=1)
    page.keyboard.press("u")
    assert title(page, "left").endswith("no uncertainty")
    page.keyboard.press("ArrowRight")
    assert "no uncertainty" not in title(page, "left")
    page.evaluate("Bokeh.documents[0].get_model_by_name('image').active = 2")
    assert title(page, "left").endswith("no uncertainty")
    page.evaluate("Bokeh.documents[0].get_model_by_name('image').active = 0")
    np.testing.assert_allclose(grey(page, kind="uncertainty"), 0.2 / top * 255, atol=1)
    page.keyboard.press("e")
    page.keyboard.press("u")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(200)
    assert page.locator(".bk-Figure").first.screenshot() == plain


def test_the_tabulator_reaches_the_widgets_and_their_keys_stay_the_pages(page):
    page.get_by_role("button", name="1").first.focus()
    focused = []
    while len(focused) < 20 and "noUi-handle" not in "".join(focused):
        page.keyboard.press("Tab")
        focused.append(
            page.evaluate(
                """() => {
                    let at = document.activeElement
                    while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement
                    return at.innerText || at.className
                }"""
            )
        )
    assert {"error", "wipe", "flip", "<DDGM>"} <= set(focused)
    assert "noUi-handle" in focused[-1]
    page.keyboard.press("ArrowRight")  # a slider's own step would be 0.02
    assert value(page, "slider", "value") == 2


def test_no_methods_images_of_another_size_and_labels_twice_are_refused(images):
    truth, blurred, _ = images
    with pytest.raises(DdgmError, match="there are no methods"):
        viewer(truth, [], voxel_size=16, title="")
    with pytest.raises(DdgmError, match="A has images"):
        viewer(truth, [Shown("A", blurred[:, 1:])], voxel_size=16, title="")
    with pytest.raises(DdgmError, match="labels must differ; they are Truth, A, A"):
        viewer(truth, [Shown("A", blurred)] * 2, voxel_size=16, title="")


def test_a_method_without_an_error_is_shown(images):
    truth, _, _ = images
    assert "<html" in viewer(truth, [Shown("perfect", truth)], voxel_size=16, title="")
