"""report.html in a real browser: Debian's chromium and chromium-driver, where they are installed."""

import json
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest

from report.build import COLUMNS, write_report
from report.compare import write_comparison
from tests.report.test_build import HOSTILE, PREDICTIONS, make_row, make_run
from tests.report.test_sounds import make_heard_run

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "a <b>run & more")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, run_folder):
    """The report, as it opens on a desktop in the light; at the end, whether anything went wrong in it."""
    look(browser, 1200, "light")
    browser.get("about:blank")
    browser.get_log("performance")  # what Chromium's own first page asked for
    browser.get((run_folder / "report.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert {url for url in asked if url.startswith("file:")} == {(run_folder / "report.html").as_uri()}
    assert browser.execute_script("return window.hacked") is None


def look(browser, width: int, scheme: str) -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def find(browser, css: str):
    return browser.find_elements("css selector", css)


def pixels(browser) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('#maps canvas')].map(c => c.toDataURL())")


def wait_for(condition, seconds: float = 10):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def test_the_slider_moves_the_maps(page):
    slider, label = find(page, "#epoch")[0], find(page, "#epoch-label")[0]
    assert label.text == "epoch 4 (best) · distance 10 · monotonicity 0.8 · coverage 0.9 · sharpness 0.4"
    drawn = "return document.querySelector('#maps canvas').width"
    wait_for(lambda: page.execute_script(drawn) == 13)
    last = pixels(page)
    assert len(last) == 3
    slider.send_keys("\ue012")  # arrow to the left
    assert label.text.startswith("epoch 3 ")
    wait_for(lambda: all(a != b for a, b in zip(last, pixels(page), strict=True)))
    slider.send_keys("\ue011")  # home
    assert label.text == "epoch 1 · distance 40 · monotonicity 0.2"
    slider.send_keys("\ue010")  # end: the same pictures again
    wait_for(lambda: pixels(page) == last)
    # A sharp diagonal: of the last map, the cells on it are far from the paper's white, those beside it are white.
    row = "document.querySelector('#maps canvas').getContext('2d').getImageData(0, 5, 13, 1).data"
    values = page.execute_script(f"return [...{row}]")
    on, temporary = sum(values[20:23]), sum(values[36:39])
    assert on < 200
    assert temporary == 3 * 255


def test_the_first_epoch_stands_beside_the_best(page):
    """Of one utterance, on the scale of all maps, each titled with its own distance."""
    heads = [head.text.split("\n") for head in find(page, "#pair h3")]
    assert heads == [["epoch 1", "distance 3"], ["epoch 4 (best)", "distance 3"]]
    both = "return [...document.querySelectorAll('#pair canvas')].map(c => c.toDataURL())"
    wait_for(lambda: len(set(page.execute_script(both))) == 2)
    before = page.execute_script(both)
    find(page, "#epoch")[0].send_keys("\ue012")  # the slider moves the maps below alone
    assert page.execute_script(both) == before
    select = "document.getElementById('pair-of')"
    page.execute_script(f"{select}.selectedIndex = 0; {select}.dispatchEvent(new Event('change'))")
    assert [head.text.split("\n")[1] for head in find(page, "#pair h3")] == ["distance 0", "distance 0"]
    wait_for(lambda: len(set(page.execute_script(both))) == 2)


def test_the_slider_begins_at_the_best_epoch(browser, run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    rows = pd.read_csv(folder / "metrics.csv")
    rows.loc[rows["epoch"] == 2, "dev_distance"] = 1.5
    rows.to_csv(folder / "metrics.csv", index=False)
    assert write_report(folder)
    browser.get((folder / "report.html").as_uri())
    assert find(browser, "#epoch-label")[0].text.startswith("epoch 2 (best) · distance 1.5")


def test_playing_goes_through_all_epochs(page):
    find(page, "#play")[0].click()
    assert find(page, "#epoch-label")[0].text.startswith("epoch 1 ")
    wait_for(lambda: find(page, "#epoch-label")[0].text.startswith("epoch 4 "))


def test_a_number_that_is_not_finite_is_a_gap(browser, tmp_path):
    """Not a zero; what stands alone between gaps is a dot."""
    rows = [make_row(epoch) | {"gradient_norm": 5.0 + epoch} for epoch in range(1, 8)]
    rows[2]["gradient_norm"] = rows[4]["gradient_norm"] = float("inf")
    pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv", index=False)
    assert write_report(tmp_path)
    look(browser, 1200, "light")
    browser.get((tmp_path / "report.html").as_uri())
    (path,) = find(browser, "svg[aria-label^='Gradient norm'] path.line")
    assert path.get_attribute("d").count("M") == 3
    assert len(find(browser, "svg[aria-label^='Gradient norm'] circle[r='2.2']")) == 1
    ticks = find(browser, "svg[aria-label^='Gradient norm'] text[text-anchor=end]")
    assert min(float(tick.text) for tick in ticks if tick.text.replace(".", "").isdigit()) > 4


def test_curves_are_drawn_to_the_width_that_they_have(page):
    widths = "[...document.querySelectorAll('svg.plot')].map(s => [s.viewBox.baseVal.width, s.clientWidth])"
    for drawn, width in page.execute_script(f"return {widths}"):
        assert drawn == width


def test_a_curve_tells_its_values_and_leads_to_the_map(page):
    from selenium.webdriver import ActionChains

    plots = find(page, "svg.plot")
    assert len(plots) >= 7
    plot = find(page, "#curves .card:nth-child(2) svg")[0]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    width = plot.size["width"]
    ActionChains(page).move_to_element_with_offset(plot, -width // 2 + 45, 0).perform()
    assert find(page, "#tip")[0].text.split("\n") == ["epoch 1", "decoded 40"]
    assert "train 3" in find(page, "#curves .legend")[0].text  # the other panels tell the same epoch
    ActionChains(page).click().perform()
    assert find(page, "#epoch-label")[0].text.startswith("epoch 1 ")
    in_view = "const box = document.getElementById('maps').getBoundingClientRect(); return [box.top, innerHeight]"
    top, height = page.execute_script(in_view)
    assert 0 <= top < height / 2
    ActionChains(page).move_to_element(find(page, "h2")[0]).perform()
    assert not find(page, "#tip")[0].is_displayed()
    assert "train 0.75" in find(page, "#curves .legend")[0].text


def test_the_table_sorts_searches_and_marks_what_differs(page):
    def column(number: int) -> list[str]:
        return [cell.text for cell in find(page, f"#table tbody td:nth-child({number})")]

    def head(number: int):
        return find(page, f"#table th:nth-child({number})")[0]

    select = find(page, "#split")[0]
    options = [option.text for option in find(page, "#split option")]
    select.send_keys(options[0][0])
    assert column(1) == ["3", "1", "0"]
    assert head(1).get_attribute("aria-sort") == "descending"
    head(1).find_element("tag name", "button").click()
    assert column(1) == ["0", "1", "3"]
    assert head(1).get_attribute("aria-sort") == "ascending"
    head(4).find_element("tag name", "button").click()
    assert column(4) == ["dev-0", "dev-1", f"dev-2{HOSTILE}"]
    marked = find(page, "#table tbody tr:nth-child(2) :is(del, ins)")
    assert [(one.tag_name, one.text) for one in marked] == [("del", "BEE"), ("ins", "PEE"), ("del", "A"), ("ins", "∅")]
    said, heard = (one.rect for one in marked[:2])
    assert said["y"] + said["height"] <= heard["y"] + 1  # above
    assert abs(said["x"] - heard["x"]) <= 1
    assert HOSTILE.split(" ")[-1] in find(page, "#table tbody tr:nth-child(3) td.text")[0].text
    find(page, "#search")[0].send_keys("dead")
    assert column(4) == ["dev-1"]
    find(page, "#search")[0].clear()
    page.execute_script(
        "document.getElementById('split').selectedIndex = 1; "
        "document.getElementById('split').dispatchEvent(new Event('change'))"
    )
    assert len(column(1)) == 25
    find(page, "#more")[0].click()
    assert len(column(1)) == 43


def test_tiles_follow_the_best_decoding(page):
    tiles = [tile.text.split("\n") for tile in find(page, "#stats .stat")]
    words = "beam 8, CTC 0.5, language model 0.3, length 0.8"
    assert tiles[0] == ["4", "dev distance", words, "greedy: 10, epoch 4"]
    assert tiles[1] == ["4 %", "dev CER", "WER 50 %", "greedy: 22.5 %"]
    assert ["2.5", "test distance", words, "CER 2.5 %, WER 50 %"] in tiles
    rows = [[cell.text for cell in row.find_elements("css selector", "td")] for row in find(page, "#decoded tbody tr")]
    assert [row[:2] for row in rows] == [["test", "2.5"], ["dev-clean", "9"], ["dev-clean", "4"]]
    assert [row.get_attribute("class") for row in find(page, "#decoded tbody tr")] == ["chosen", "", "chosen"]
    assert words in find(page, "#scores")[0].text


def test_confusions_settings_and_names_are_plain_text(page):
    assert find(page, "h1")[0].text == "a <b>run & more"
    assert page.title == "a <b>run & more · run report"
    assert "B heard as P" in find(page, "#frequent")[0].text
    assert len(find(page, "#confusion rect.cell")) == 4
    assert len(find(page, "#scatter circle")) == 3
    assert HOSTILE in find(page, "#settings")[0].text
    assert any(HOSTILE in head.text for head in find(page, "#maps h3"))
    assert find(page, "b > b, h1 b, #settings img, #maps img, #table img") == []


def test_what_was_said_can_be_heard(browser, tmp_path):
    """From the keyboard too; one at a time; also when the table is drawn anew."""
    folder = make_heard_run(tmp_path)
    assert write_report(folder)
    look(browser, 390, "dark")
    browser.get((folder / "report.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert "▶ plays" in find(browser, "#texts .note")[0].text
    rows = [len(find(row, "button.listen")) for row in find(browser, "#table tbody tr")]
    assert rows == [1, 1, 1]
    first, second = find(browser, "#table .listen")[:2]
    (of_map,) = find(browser, "#maps .listen")
    assert first.get_attribute("aria-label") == "Play c"
    player = "const p = document.getElementById('player'); return "
    first.send_keys("\ue007")  # enter
    duration = wait_for(lambda: browser.execute_script(player + "p.duration"))
    assert 0.6 < duration < 1
    assert [button.text for button in (first, second)] == ["■", "▶"]
    assert first.get_attribute("aria-label") == "Stop c"
    assert browser.execute_script(player + "p.paused") is False
    second.send_keys(" ")
    wait_for(lambda: 0.5 < (browser.execute_script(player + "p.duration") or 0) < 0.7)
    assert [button.text for button in (first, second)] == ["▶", "■"]
    find(browser, "#table th button")[0].click()
    find(browser, "#table th button")[0].click()  # sorted again: other buttons
    wait_for(lambda: [button.text for button in find(browser, "#table .listen")] == ["▶"] * 3)  # at its end
    of_map.send_keys(" ")
    assert of_map.text == "■"
    of_map.send_keys(" ")
    assert (of_map.text, browser.execute_script(player + "p.paused")) == ("▶", True)
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_page_does_not_scroll_sideways(page, width):
    look(page, width, "light")
    page.refresh()
    assert page.execute_script("return innerWidth") == width
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    beyond = (
        "return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    )
    assert [one.get_attribute("outerHTML")[:80] for one in page.execute_script(beyond)] == []


def test_dark_where_the_system_is(page):
    background = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    ink = background.replace("backgroundColor", "color")
    wait_for(lambda: page.execute_script("return document.querySelector('#maps canvas').width") == 13)
    assert min(page.execute_script(background)) > 230
    light = pixels(page)
    look(page, 1200, "dark")
    assert max(page.execute_script(background)) < 50
    assert min(page.execute_script(ink)) > 200
    wait_for(lambda: all(a != b for a, b in zip(light, pixels(page), strict=True)))  # the maps' colours too


def test_a_folder_with_nothing_but_a_table_opens_too(browser, tmp_path):
    pd.DataFrame(PREDICTIONS[:2], columns=COLUMNS).to_csv(tmp_path / "predictions-test.csv", index=False)
    assert write_report(tmp_path)
    browser.get((tmp_path / "report.html").as_uri())
    shown = [one.get_attribute("id") for one in find(browser, "section") if one.is_displayed()]
    assert shown == ["texts", "errors"]
    assert browser.get_log("browser") == []


def test_runs_beside_each_other(browser, run_folder, tmp_path):
    """Curves over each other, by epoch or by time; the least distance is bold; wide tables scroll alone."""
    other = shutil.copytree(run_folder, tmp_path / "other")
    rows = pd.read_csv(other / "metrics.csv")[:3]
    rows["dev_distance"] *= 2
    rows.to_csv(other / "metrics.csv", index=False)
    (other / "config.yaml").write_text("data: {train: [train], dev: dev-clean}\ntraining: {epochs: 5}\n")
    write_comparison([run_folder, other], tmp_path / "comparison.html")
    for width, scheme in ((1200, "light"), (390, "dark")):
        look(browser, width, scheme)
        browser.get((tmp_path / "comparison.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    look(browser, 1200, "light")
    browser.refresh()
    table = [[cell.text.split("\n")[0] for cell in find(row, "th, td")] for row in find(browser, "#runs tbody tr")]
    assert table == [[run_folder.name, "10", "4", "2.5", "4", "4 min"], ["other", "26.67", "4", "2.5", "3", "3 min"]]
    assert [bold.text for bold in find(browser, "#runs b")] == ["10", "4", "2.5", "4", "2.5"]
    assert find(browser, "#runs a")[1].get_attribute("href") == (other / "report.html").as_uri()
    differ = [row.text for row in find(browser, "#settings tbody tr")]
    assert differ == ["training.epochs 9 5", "training.ctc_epochs 0 –"]
    plot = "svg[aria-label='Dev distance by epoch']"
    assert [path.get_attribute("d").count("L") for path in find(browser, f"{plot} path")] == [3, 2]
    find(browser, "#chosen input")[1].click()
    assert len(find(browser, f"{plot} path")) == 1
    browser.execute_script(
        "let a = document.getElementById('across'); a.value = 'time'; a.dispatchEvent(new Event('change'))"
    )
    assert len(find(browser, "svg[aria-label='Dev distance by minutes'] path")) == 1
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hacked") is None
