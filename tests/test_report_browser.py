"""The page in a real browser: sorting, filtering, cases, colours, phone, and nothing to complain of."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")
from selenium.webdriver.support.wait import WebDriverWait

from reg_bench import report
from tests.browser import chromium, complaints, set_screen
from tests.report_rows import row, value, write
from tests.report_runs import run_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = run_folder(tmp_path_factory.mktemp("report") / "run")
    report.build(made)
    return made


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(driver: Any, folder: Path) -> Iterator[Any]:
    """The page, freshly opened from disk; whatever a test does, the console stays empty."""
    set_screen(driver, 1360, 1000)
    driver.get("about:blank")
    driver.get((folder / "index.html").as_uri())
    yield driver
    assert complaints(driver) == []


def run(browser: Any, script: str, *arguments: Any) -> Any:
    return browser.execute_script(script, *arguments)


def names(browser: Any) -> list[str]:
    """Methods of the first board from top to bottom, those that are seen."""
    script = (
        "return [...document.querySelector('table.board').tBodies[0].rows]"
        ".filter((r) => r.offsetParent !== null && !r.hidden).map((r) => r.cells[1].textContent.trim())"
    )
    return list(run(browser, script))


def click_head(browser: Any, title: str) -> None:
    heads = browser.find_elements("css selector", "#task-0 table.board thead button")
    next(h for h in heads if h.text.split(" ▲")[0].split(" ▼")[0] == title).click()


def column(browser: Any, title: str) -> list[str]:
    script = """
    const table = document.querySelector("table.board");
    const place = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent.trim() === arguments[0]);
    return [...table.tBodies[0].rows].map((r) => r.cells[place].dataset.key);
    """
    return list(run(browser, script, title))


def test_sorting_by_a_number_and_back_with_empty_cells_last(browser: Any) -> None:
    before = names(browser)
    assert before[0] == "affine+demons"
    click_head(browser, "Dice")
    up = column(browser, "Dice")
    assert [float(v) for v in up if v] == sorted(float(v) for v in up if v)
    assert up[-1] == "", "the skipped method has no value"
    click_head(browser, "Dice")
    down = column(browser, "Dice")
    assert [float(v) for v in down if v] == sorted((float(v) for v in down if v), reverse=True)
    assert down[-1] == ""
    head = browser.find_element("css selector", "#task-0 table.board th[aria-sort]")
    assert head.get_attribute("aria-sort") == "descending"


def test_sorting_by_name(browser: Any) -> None:
    click_head(browser, "method")
    assert names(browser) == sorted(names(browser), key=str.lower)


def test_filtering_by_words_and_kind(browser: Any) -> None:
    box = browser.find_element("css selector", "#task-0 .filter")
    box.send_keys("demons")
    assert sorted(names(browser)) == ["affine+demons", "demons"]
    assert browser.find_element("css selector", "#task-0 .shown").text == "2 of 6"
    box.send_keys(" aff")
    assert names(browser) == ["affine+demons"]
    # What is filtered out fades in the drawings; the other task is left alone.
    dim = "return [...document.querySelectorAll('#task-{} .plot g.dim')].length"
    assert run(browser, dim.format(0)) > 0
    assert run(browser, dim.format(1)) == 0
    run(browser, "arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", box)
    assert len(names(browser)) == 6
    browser.find_element("css selector", "#task-0 .references").click()
    assert "identity" not in names(browser)
    browser.find_element("css selector", "#task-0 .unfinished").click()
    assert len(names(browser)) == 4


def test_columns_can_be_hidden_and_the_table_copied(browser: Any) -> None:
    browser.find_element("css selector", "#task-0 .columns summary").click()
    labels = browser.find_elements("css selector", "#task-0 .columns label")
    next(label for label in labels if label.text.strip() == "SDlogJ").click()
    assert not [h for h in browser.find_elements("css selector", "#task-0 table.board th") if h.text == "SDlogJ"]
    copied = {}
    for kind in ("markdown", "csv", "latex"):
        button = browser.find_element("css selector", f'#task-0 [data-copy="{kind}"]')
        run(browser, "arguments[0].click()", button)
        copied[kind] = browser.execute_async_script(
            "const [b, done] = arguments;"
            "const f = () => b.dataset.copied ? done(b.dataset.copied) : setTimeout(f, 20); f()",
            button,
        )
    assert copied["markdown"].splitlines()[1].startswith("|---:|---|")
    assert "SDlogJ" not in copied["csv"]
    assert copied["csv"].splitlines()[1].split(",")[1] == "affine+demons"
    assert r"\pm" in copied["latex"]


def test_a_number_leads_to_its_cases_and_to_the_command(browser: Any, folder: Path) -> None:
    row = next(
        r
        for r in browser.find_elements("css selector", "#task-0 table.board tbody tr")
        if r.find_element("css selector", "th").text == "bspline"
    )
    row.find_element("css selector", "td.primary button").click()
    WebDriverWait(browser, 5).until(lambda b: b.find_elements("css selector", "dialog[open] .list button.case"))
    dialog = browser.find_element("css selector", "dialog[open]")
    listed = dialog.find_elements("css selector", ".list button.case")
    assert len(listed) == 12
    assert "failed" in listed[0].text, "failures come first"
    assert "RuntimeError: <b>diverged</b>" in dialog.find_element("css selector", ".status").text
    numbers = [float(b.text.split()[-1]) for b in listed[1:]]
    assert numbers == sorted(numbers)
    listed[1].click()
    name = listed[1].text.split()[0]
    WebDriverWait(browser, 5).until(lambda _: dialog.find_element("css selector", ".one h3").text == name)
    command = dialog.find_element("css selector", "code").text
    assert (
        command
        == f"reg-bench run reproduce.yaml --tasks one --methods bspline --cases {name} --seed 0 --out reproduced"
    )
    assert (folder / "reproduce.yaml").is_file()
    assert browser.current_url.endswith(f"#case/0/{row.get_attribute('data-m')}/{int(name[1:3])}")
    picture = dialog.find_element("css selector", ".panel img")
    assert run(browser, "return arguments[0].decode().then(() => arguments[0].naturalWidth)", picture) == 70
    # The values are those of the row.
    rows = [json.loads(line) for line in (folder / "rows.rank0.jsonl").read_text().splitlines()]
    of_case = next(
        r
        for r in rows
        if r["event"] == "result" and [r["key"][k] for k in ("task", "method", "case")] == ["one", "bspline", name]
    )
    truth = {(v["profile"], v["metric"], v["label"]): v["value"] for v in of_case["values"]}
    words = dialog.find_element("css selector", ".values").text
    assert f"Dice {truth['strict', 'dice', 'all']:.3f}" in words
    for label in "123":
        assert f"{label} {truth['strict', 'dice', label]:.3f}" in words
    assert f"HD95 [mm] {truth['learn2reg', 'hd95', 'all']:.2f}" in words
    dialog.find_element("css selector", ".close").click()
    assert not browser.find_elements("css selector", "dialog[open]")
    WebDriverWait(browser, 5).until(lambda b: "#case" not in b.current_url)


def test_an_address_opens_its_case(browser: Any, folder: Path) -> None:
    browser.get("about:blank")
    browser.get((folder / "index.html").as_uri() + "#case/1/0/3")
    dialog = browser.find_element("css selector", "dialog[open]")
    assert dialog.find_element("css selector", "h3").text == "p03/f1"
    assert dialog.find_element("css selector", "h2").text.endswith("on two")
    dialog.find_element("css selector", ".next").click()
    WebDriverWait(browser, 5).until(lambda _: dialog.find_element("css selector", "h3").text != "p03/f1")


def test_dots_and_the_map_of_significance_lead_to_cases(browser: Any) -> None:
    dot = browser.find_element("css selector", "#task-0 circle.dot[data-c]")
    case = dot.get_attribute("data-c")
    run(browser, "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", dot)
    WebDriverWait(browser, 5).until(lambda b: b.find_elements("css selector", "dialog[open]"))
    assert browser.current_url.endswith(f"/{case}")
    browser.find_element("css selector", "dialog .close").click()
    cell = browser.find_element("css selector", "#task-0 .heat td.win3 button, #task-0 .heat td.win2 button")
    run(browser, "arguments[0].click()", cell)
    WebDriverWait(browser, 5).until(lambda b: b.find_elements("css selector", "dialog[open]"))
    chosen = browser.find_element("css selector", "dialog option:checked").text
    assert "less that of" in chosen


def test_every_number_of_a_board_has_cases(browser: Any) -> None:
    script = """
    const missing = [];
    for (const table of document.querySelectorAll("table.sortable"))
      for (const button of table.querySelectorAll("tbody button")) {
        const row = button.closest("tr"), task = taskOf(table.dataset.task), m = Number(row.dataset.m);
        const value = valueOf(task, button.dataset.source, m);
        if (row.cells[1].textContent.trim().split(" (")[0] !== task.methods[m].name) missing.push(row.textContent);
        const known = task.cases.some((_, c) => value(c) !== null);
        if (!known && !row.matches(".skipped")) missing.push(button.dataset.source);
      }
    return missing;
    """
    assert run(browser, script) == []


def test_colours_follow_the_system_and_the_button(browser: Any) -> None:
    def paper() -> str:
        return str(run(browser, "return getComputedStyle(document.body).backgroundColor"))

    light = paper()
    set_screen(browser, 1360, 1000, "dark")
    dark = paper()
    assert light != dark
    button = browser.find_element("css selector", ".theme")
    button.click()
    assert paper() == light
    button.click()
    assert paper() == dark
    button.click()


@pytest.mark.parametrize("width", [360, 820])
def test_nothing_is_wider_than_a_small_screen(browser: Any, folder: Path, width: int) -> None:
    set_screen(browser, width, 740)
    assert run(browser, "return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    run(browser, "document.querySelectorAll('main details').forEach((d) => (d.open = true))")
    assert run(browser, "return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    run(browser, "location.hash = 'cases/0/1/strict/dice'")
    WebDriverWait(browser, 5).until(lambda b: b.find_elements("css selector", "dialog[open] .values table"))
    inside = "const d = document.querySelector('dialog'); return d.scrollWidth - d.clientWidth"
    assert run(browser, inside) == 0


def test_the_page_prints(browser: Any) -> None:
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    assert len(pdf) > 20_000


@pytest.mark.parametrize("suite", ["cine", "quick"])
def test_pages_of_shipped_leaderboards(driver: Any, tmp_path: Path, suite: str) -> None:
    """Sequences, several conditions, landmarks: real rows."""
    shipped = Path(__file__).parents[1] / "leaderboards" / suite
    for name in ("rows.jsonl", "manifest.json"):
        (tmp_path / name).write_bytes((shipped / name).read_bytes())
    report.build(tmp_path)
    set_screen(driver, 1360, 1000)
    driver.get("about:blank")
    driver.get((tmp_path / "index.html").as_uri())
    run(driver, "document.querySelectorAll('main details').forEach((d) => (d.open = true))")
    numbers = "return document.querySelectorAll('table.sortable tbody button').length"
    assert run(driver, numbers) > 100
    script = """
    let opened = 0;
    for (const table of document.querySelectorAll("table.sortable"))
      for (const button of [...table.querySelectorAll("tbody button")].slice(0, 4)) {
        const source = button.dataset.source;
        openCases(table.dataset.task, Number(button.closest("tr").dataset.m), source);
        if (dialog.open && dialog.querySelector("code").textContent.startsWith("reg-bench run ")) opened++;
        dialog.close();
      }
    return opened;
    """
    assert run(driver, script) >= 8
    assert complaints(driver) == []


def test_names_of_any_kind(driver: Any, tmp_path: Path) -> None:
    """Quotes, signs of percent and tags in names of tasks, methods, cases and labels; tasks where nothing succeeded."""
    case = "p'0/100% <i>"
    values = [value("dice", 0.5), value("dice", 0.4, label='50% "x"#1@2'), value("odd metric", 1.0)]
    rows = [row(m, case, values, task="a/b & <c>") for m in ("it's@home", "b", "identity")]
    rows += [row("b", case, task="all fail", status="failed", reason="no & no")]
    rows += [row("b", "*", task="none", status="skipped", reason="pip install x")]
    write(tmp_path, rows)
    report.build(tmp_path)
    set_screen(driver, 1360, 1000)
    driver.get("about:blank")
    driver.get((tmp_path / "index.html").as_uri())
    for box in driver.find_elements("css selector", ".small g[data-source]"):
        run(driver, "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", box)
        WebDriverWait(driver, 5).until(lambda d: d.find_elements("css selector", "dialog[open] .list .case"))
        assert driver.find_element("css selector", "dialog .list b").text == "0.400"
        assert driver.find_element("css selector", "dialog option:checked").text == 'Dice of label 50% "x"#1@2'
        driver.find_element("css selector", "dialog .close").click()
        WebDriverWait(driver, 5).until(lambda d: "#case" not in d.current_url)
    run(driver, "location.hash = 'cases/0/0/'")
    WebDriverWait(driver, 5).until(lambda d: d.find_elements("css selector", "dialog[open] .list .case"))
    words = shlex.split(driver.find_element("css selector", "dialog code").text)
    assert words[words.index("--cases") + 1] == case
    assert words[words.index("--tasks") + 1] == "a/b & <c>"
    for number in (1, 2):
        run(driver, f"openCases('{number}', 0, '')")
        assert driver.find_element("css selector", "dialog .status").text.endswith(("no & no", "pip install x"))
    assert complaints(driver) == []
