"""The page is complete, self-contained, safe and readable for searches of any size."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nases_env.quantity import Quantity
from nases_env.report import Child, Curve, Design, Finalist, Latency, Run, render
from nases_env.search_spaces import EnasMicro
from tests.report.browser import evaluate, evaluate_updates, needs_chromium
from tests.report.runs import make_children, make_run

MAX_BYTES = 5_000_000
HOSTILE = (
    "</script><script>document.title = 'hacked'</script>\"'><img src=x onerror=\"document.title = 'hacked'\">\u202e\udcff"
)


class AttributeCollector(HTMLParser):
    """Collects the names of all attributes, and the values of ``href``."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {name for name, _ in attrs}
        self.targets += [str(value) for name, value in attrs if name == "href"]


def drawings(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def hostile_run(number: int = 3) -> Run:
    children = [replace(child, key=HOSTILE, device=HOSTILE) for child in make_children(number)]
    children.append(Child(number + 1, HOSTILE, "failed", 0.0, reason=HOSTILE))
    names: dict[str, Any] = dict.fromkeys(("agent", "env_id", "command"), HOSTILE)
    names |= {
        "settings": {HOSTILE: HOSTILE},
        "versions": {HOSTILE: HOSTILE},
        "notes": [HOSTILE],
        "name": 300 * "x" + HOSTILE,
    }
    designs = [Design(1, HOSTILE, summary=HOSTILE)]
    return make_run(children, **names, designs=designs, operators={HOSTILE: (0.5, 0.6), "identity": (0.5, 0.4)})


def test_result_of_a_finalist_of_a_lower_rung_is_not_called_a_mean() -> None:
    run = make_run([Child(1, "a", "ok", 0.25, fidelity=1), Child(2, "b", "ok", 0.125, fidelity=1)])
    run = replace(run, finalists=[Finalist(1, Child(1, "a", "ok", 0.5, fidelity=3), 0.5)], best_reward=0.5)
    page = render([run])
    assert "<td>1</td><td>25.00% (rung 1)</td><td>50.00%</td><td>50.00%</td>" in page
    assert "<th>mean</th>" not in page
    assert "<th>best finalist</th>" in render([run, run])


def test_page_on_one_search_has_all_parts() -> None:
    children = make_children(60, num_failed=2)
    run = make_run(children)
    page = render([run])
    assert run.best is not None
    for text in (
        f"The best architecture: child {run.best}",
        "Reward by child",
        "Accuracy and size",
        "Accuracy and time",
        "Map of the children",
        "Operators of the best children",
        "Learning curves",
        "2 timed out",
        "it took more than 60 seconds",
        "python agents/reinforce.py --env-id NASES-Digits-v0",
        "nases train runs/test",
        "nases predict runs/test image.png",
        "tensorboard --logdir runs/test",
        "torch 2.8",
        "mean of two evaluations",
        f"{100 * run.best_reward:.2f}%",
    ):
        assert text in page, text


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("/usr/bin/nases search digits --agent reinforce", "nases search"),
        ("/usr/lib/nases_env/__main__.py search digits", "nases search"),
        ("my_agent.py --budget 3", "python my_agent.py"),
        ("'my agents/one.py' --resume runs/test", "python &#39;my agents/one.py&#39;"),
        ("", "nases search"),
        ("'damaged", "nases search"),
    ],
)
def test_stopped_search_is_resumed_by_the_program_that_started_it(command: str, program: str) -> None:
    page = render([make_run(make_children(3), state="stopped", command=command)])
    assert f"<code>{program} --resume runs/test</code>" in page


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("/usr/bin/nases search 'my images'", "nases search &#39;my images&#39;"),
        ("'/my lib/nases_env/__main__.py' search digits", "nases search digits"),
        ("my_agent.py --budget 3", "python my_agent.py --budget 3"),
        ("'damaged", "python &#39;damaged"),
    ],
)
def test_command_of_the_search_can_be_typed(command: str, shown: str) -> None:
    assert f">{shown}<" in render([make_run(make_children(3), command=command)])


def test_reward_other_than_the_accuracy_is_a_number_next_to_it() -> None:
    children = [replace(child, valid_accuracy=0.8125) for child in make_children(30)]
    run = make_run(children, has_metric_rewards=False)
    pages = render([run]), render([run, replace(run, agent="random_search")])
    for page in pages:
        assert "Reward and size" in page
        assert "Accuracy and size" not in page
        assert f"{run.best_reward:.4f}" in page
        assert f"{100 * run.best_reward:.2f}%" not in page
    assert "81.25%" in pages[0]
    assert re.findall("<th[^>]*>(reward|accuracy)([^<]*)</th>", pages[0]) == [("reward", ""), ("accuracy", " (%)")]


def test_metric_other_than_the_accuracy_is_named() -> None:
    children = [replace(child, valid_accuracy=0.8125) for child in make_children(30)]
    run = make_run(children, curves=[], quantity=Quantity("SSIM"))
    pages = [render([each]) for each in (run, replace(run, has_metric_rewards=False))]
    for page in pages:
        assert "ccuracy" not in page
        assert f"{run.best_reward:.4f}" in page
        assert f"{100 * run.best_reward:.2f}%" not in page
    assert all(text in pages[0] for text in ("Best SSIM", "SSIM and size", "↑ Validation SSIM<"))
    assert all(text in pages[1] for text in ("Validation SSIM", "validation SSIM 0.8125"))
    headings = [re.findall("<th[^>]*>(reward|SSIM)([^<]*)</th>", page) for page in pages]
    assert headings == [[("reward", "")], [("reward", ""), ("SSIM", "")]]


def test_page_shows_what_the_cells_do_not_show() -> None:
    page = render([make_run(make_children(3), designs=[Design(1, "{}", summary="stem stride 2, depth 3 1 2")])])
    assert "<p>stem stride 2, depth 3 1 2</p>" in page


def test_page_shows_measured_latencies() -> None:
    page = render([make_run(make_children(3), latencies=[Latency(2, 0.0011, 0.0123, 0.456, 1234)], processor="<CPU>")])
    assert "one thread on &lt;CPU&gt;" in page
    assert "1,234 passes" in page
    assert "<td>2</td><td>12.3</td><td>1.10 to 456</td>" in page
    assert "--latency" not in page


def test_page_is_the_same_each_time() -> None:
    run = make_run(make_children(100))
    assert render([run]) == render([run])


def test_every_drawing_has_a_description_and_every_plot_has_axes_with_labels() -> None:
    for drawing in drawings(render([make_run(make_children(60))])):
        assert drawing.get("role") == "img"
        assert drawing.get("aria-label")
        if "plot" in str(drawing.get("class")):
            labels = [str(text.text) for text in drawing.iter("text") if "axis" in str(text.get("class"))]
            assert labels[0].startswith("↑ ")
            assert labels[1].endswith(" →")


@pytest.mark.parametrize(
    "children",
    [
        [],
        make_children(1),
        make_children(2),
        make_children(5, num_failed=5),
        [Child(1, "a", "timed_out", 0.0), Child(2, "a", "ok", 0.5, fidelity=3, is_promotion=True)],
        [Child(1, "a", "ok", 0.0), Child(2, "b", "ok", 0.0)],
        [Child(1, "a", "ok", 5e-324, 1, 1, 1, 1e-300), Child(2, "b", "ok", 1.0, 2**62, 2**62, 2**62, 9e18)],
    ],
    ids=["none", "one", "two", "failed", "promoted", "equal", "extreme"],
)
def test_small_and_extreme_searches_give_a_page(children: list[Child]) -> None:
    page = render([make_run(children)])
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert drawings(page) or not any(child.status == "ok" for child in children)


def test_median_of_an_even_number_is_between_two_children() -> None:
    children = [Child(number, str(number), "ok", reward) for number, reward in enumerate((0.1, 0.2, 0.6, 0.7), start=1)]
    assert re.search(r"Median child.{0,80}?40\.00%", render([make_run(children)]), re.DOTALL)


def test_best_child_without_a_result_gives_a_page() -> None:
    """A damaged list of finalists may name such a child."""
    failed = make_run(make_children(4, num_failed=4), best=2, best_reward=0.5)
    assert "Failed" in render([failed])
    assert "no result" in render([failed, make_run(make_children(3))])


def test_20_000_children_give_a_page_below_5_megabytes() -> None:
    page = render([make_run(make_children(20_000, num_failed=200))])
    assert len(page.encode()) < MAX_BYTES
    assert "of 20,000 children are shown, evenly spaced" in page
    assert all(len(list(drawing.iter())) < 5000 for drawing in drawings(page))


def test_first_rows_of_the_table_are_shown_without_the_script() -> None:
    run = make_run(make_children(60))
    body = render([run]).partition('<table id="children">')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr>.*?</tr>", body)
    assert len(rows) == 25
    assert f"<td>{run.best}</td><td>ok</td>" in rows[0]


def test_page_refers_to_nothing_outside() -> None:
    for page in (render([make_run(make_children(60))]), render([make_run(make_children(9)), hostile_run()])):
        parser = AttributeCollector()
        parser.feed(page)
        assert not parser.names & {"src", "srcset", "data", "action", "poster", "onerror", "onload", "onclick"}
        assert all(target.startswith("#") for target in parser.targets)
        assert "url(" not in page
        assert "@import" not in page
        assert "default-src &#39;none&#39;" in page
        assert "connect-src" not in page


def test_page_of_a_server_may_request_its_version_only() -> None:
    page = render([make_run(make_children(3))], version="7")
    assert "connect-src &#39;self&#39;" in page
    assert 'data-version="7"' in page


def test_hostile_names_are_shown_as_text() -> None:
    page = render([hostile_run(), make_run(make_children(9))])
    assert "<img" not in page
    assert page.count("<script") == 1
    assert "\u202e" not in page
    assert "\\u202e" in page
    page.encode()


@needs_chromium
def test_hostile_names_run_no_script(tmp_path: Path) -> None:
    code = """
const count = (selector) => page.querySelectorAll(selector).length;
return [page.title, count("script, img"), count("#children td:first-child")];"""
    title, num_elements, num_rows = evaluate(render([hostile_run()]), code, tmp_path)
    assert title.startswith("</script><script>")
    assert num_elements == 2  # the data of the table and the script
    assert num_rows == 4


@needs_chromium
def test_table_is_paged_and_sorted_by_its_headings(tmp_path: Path) -> None:
    children = make_children(60, num_failed=1)
    code = """
const column = (index) => [...page.querySelectorAll("#children tbody tr")].map((row) => row.cells[index].textContent);
const press = (selector, index) => page.querySelectorAll(selector)[index].click();
const found = {start: column(0), text: page.querySelector("#pages span").textContent};
press("#pages button", 3);
found.last = column(0);
press("#children th button", 0);
found.ascending = column(0);
press("#children th button", 3);
found.largest = column(3);
press("#children th button", 3);
found.smallest = column(3);
found.sorted = page.querySelectorAll("th[aria-sort]").length;
return found;"""
    found = evaluate(render([make_run(children)]), code, tmp_path)
    ranked = sorted(children, key=lambda child: -child.reward)
    assert found["start"] == [str(child.number) for child in ranked[:25]]
    assert found["text"] == "1 to 25 of 60"
    assert found["last"][-1] == "60"
    assert len(found["last"]) == 10
    assert found["ascending"] == [str(number) for number in range(1, 26)]
    sizes = sorted(child.num_params for child in children if child.num_params)
    assert found["largest"] == [f"{size:,}" for size in sizes[::-1][:25]]
    assert found["smallest"] == [f"{size:,}" for size in sizes[:25]]
    assert found["sorted"] == 1


@needs_chromium
def test_update_keeps_what_the_reader_changed(tmp_path: Path) -> None:
    """Sorting, page of the table, open details, positions and focus remain, and the content is that of the new version."""
    children, failed = (
        make_children(90),
        [replace(child, number=91 + child.number) for child in make_children(40, num_failed=40)],
    )
    older = [*children[:80], *[replace(child, number=80 + index) for index, child in enumerate(failed[:39], start=1)]]
    newer = [*older, replace(children[89], number=120, num_params=1)]
    designs = [Design(1, "{}"), Design(2, "{}")]
    pages = [
        render([make_run(shown, designs=designs)], version=str(version)) for version, shown in enumerate((older, newer))
    ]
    code = """
const state = () => ({
  column: [...page.querySelectorAll("#children tbody tr")].map((row) => row.cells[3].textContent),
  rows: page.querySelector("#pages span").textContent,
  sorted: page.querySelector("#children th[aria-sort]").textContent,
  open: [...page.querySelectorAll("details[open]")].map((details) => details.id),
  top: frame.contentWindow.scrollY,
  inner: page.querySelector(".failures").scrollTop,
  left: page.querySelector(".scroll:has(#children)").scrollLeft,
  focused: page.activeElement.textContent,
  children: page.querySelector(".subtitle").textContent.match(/\\d+ of \\d+/)[0],
});
const heading = [...page.querySelectorAll("#children th button")][3];
heading.click();
heading.click();
page.querySelector("#pages button[aria-label='Next page']").click();
page.querySelector("#settings").open = true;
heading.focus();
frame.contentWindow.scrollTo(0, 700);
page.querySelector(".failures").scrollTop = 40;
page.querySelector(".scroll:has(#children)").scrollLeft = 30;
const before = state();
await update();
return [before, state()];"""
    before, after = evaluate_updates(pages, code, tmp_path, width=390)
    sizes = sorted(child.num_params for child in newer if child.num_params)
    assert before["column"] == [f"{size:,}" for size in sizes[26:51]]
    assert after["column"] == [f"{size:,}" for size in sizes[25:50]]
    assert (before["rows"], after["rows"]) == ("26 to 50 of 119", "26 to 50 of 120")
    assert (before["children"], after["children"]) == ("119 of 119", "120 of 120")
    kept = {"sorted": "parameters", "open": ["settings"], "top": 700, "inner": 40, "left": 30, "focused": "parameters"}
    assert {name: before[name] for name in kept} == kept
    assert {name: after[name] for name in kept} == kept


@needs_chromium
@pytest.mark.parametrize("width", [390, 1400])
def test_page_fits_its_width(width: int, tmp_path: Path) -> None:
    searches = [make_run(make_children(60, num_failed=3)), replace(hostile_run(), curves=[Curve(1, [1, 2], [0.1, 0.2])])]
    first, *others = (render(runs) for runs in (searches[:1], searches[1:], searches))
    texts = json.dumps(others).replace("<", "\\u003c")
    code = f"""
const widths = [page.documentElement.scrollWidth];
for (const text of {texts}) {{
  const other = document.createElement("iframe");
  other.style.cssText = frame.style.cssText;
  other.srcdoc = text;
  document.body.append(other);
  await new Promise((done) => other.addEventListener("load", done));
  widths.push(other.contentDocument.documentElement.scrollWidth);
}}
return widths;"""
    widths = evaluate(first, code, tmp_path, width=width)
    assert len(widths) == 3
    assert max(widths) <= width


@needs_chromium
@pytest.mark.parametrize("width", [840, 1250, 1700])
def test_cells_are_shown_whole_unless_the_page_is_narrow(width: int, tmp_path: Path) -> None:
    space = EnasMicro()
    in_a_row = [choice for node in range(5) for choice in (node + 1, 1, node + 1, 1)]
    graphs = space.cell_graphs(space.architecture(2 * in_a_row))
    code = 'return [...page.querySelectorAll(".cell-figure .scroll")].map((each) => each.scrollWidth - each.clientWidth);'
    page = render([make_run(make_children(3), designs=[Design(1, "{}", graphs)])])
    assert evaluate(page, code, tmp_path, width=width) == [0, 0]
