"""The page in a real browser, as a user would use it."""

import shutil

import pytest
from PIL import Image

from chiasm.serving.app import create_app
from served import served

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")


@pytest.fixture
def page(tiny_model):
    app = create_app({"one": tiny_model[0], "two": tiny_model[0]})
    with served(app) as place, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto("http://{}:{}".format(*place))
        page.wait_for_selector("#model-one")
        yield page
        browser.close()
    assert faults == []


def test_an_image_is_drawn_and_asked_about_side_by_side(page, tmp_path):
    page.fill("#text", "a dog")
    page.click("#draw")
    page.wait_for_selector(".answer img[title^=seed]")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    page.set_input_files("#files", tmp_path / "red.png")
    page.wait_for_selector("#thumbs img")
    page.check("#model-two")
    page.click("summary")
    page.fill("#max_tokens", "4")
    page.fill("#text", "What is this?")
    page.press("#text", "Enter")
    page.wait_for_selector(".turn:nth-child(2) .answers .answer:nth-child(2)")
    page.wait_for_function("!document.querySelector('#send').disabled")
    assert page.locator(".turn:nth-child(2) .error").count() == 0
    assert page.locator(".turn:nth-child(2) .asked img").count() == 1
    with page.expect_download() as download:
        page.click("#save")
    assert "What is this?" in download.value.path().read_text(encoding="utf-8")


def test_errors_are_shown_and_the_page_speaks_chinese(page):
    page.click("summary")
    page.fill("#temperature", "5")
    page.fill("#text", "Hello.")
    page.click("#send")
    page.wait_for_selector(".error")
    assert "temperature" in page.inner_text(".error")
    page.select_option("#language", "zh")
    assert page.inner_text("#send") == "发送"


def test_a_file_that_is_no_image_is_named(page, tmp_path):
    (tmp_path / "notes.txt").write_text("words")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    page.set_input_files("#files", [tmp_path / "notes.txt", tmp_path / "red.png"])
    page.wait_for_selector("#thumbs img")
    assert page.locator("#thumbs img").count() == 1
    assert page.inner_text("#notice") == "notes.txt: no image"
    page.set_input_files("#files", tmp_path / "red.png")
    page.wait_for_selector("#thumbs .thumb:nth-child(2) img")
    assert not page.is_visible("#notice")


def test_a_part_of_an_image_is_marked_and_drawn_anew_and_tokens_are_shown(page, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    page.set_input_files("#files", tmp_path / "red.png")
    page.click(".thumb button")
    page.wait_for_selector("#painter[open]")
    box = page.locator("#marks").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.up()
    page.click("#done")
    page.wait_for_selector(".thumb.marked")
    page.fill("#text", "a dog")
    with page.expect_request("**/v1/images/edits") as request:
        page.click("#edit")
    assert "mask" in request.value.post_data_json
    page.wait_for_selector(".answer img[title^=seed]")
    assert page.locator(".error").count() == 0
    page.click(".answer img.drawn")  # what was drawn is the next image
    assert page.locator(".thumb:not(.marked)").count() == 1
    page.click("summary")
    page.fill("#max_tokens", "2")
    page.fill("#text", "What is this?")
    page.click("#send")
    page.click(".answer details summary")
    page.wait_for_selector(".tokens .image")
    assert page.locator(".tokens span").count() > 10


def test_an_image_is_seen_as_codes(page, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    page.set_input_files("#files", tmp_path / "red.png")
    page.click(".thumb .codes")
    page.wait_for_selector("canvas.cells[aria-label*='2 × 2 codes']")
    page.wait_for_selector("figure:nth-of-type(3) img")
    assert "dB" in page.locator("figcaption").last.inner_text()
    assert page.locator(".error").count() == 0
