"use strict";
(() => {
  const sorting = { heading: null, sign: 1, page: 0 }; // of the table; it remains when the page is updated

  const format = (value, digits = 0) => {
    if (value === null) return "–";
    if (typeof value !== "number") return value;
    return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };

  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

  const setUpTable = () => {
    const source = document.getElementById("children-data");
    if (!source) return;
    const { rows, rowsPerPage, decimals } = JSON.parse(source.textContent);
    const table = document.getElementById("children");
    const pages = document.getElementById("pages");
    const headings = [...table.tHead.rows[0].cells];
    const names = headings.map((heading) => heading.textContent);
    const numPages = Math.ceil(rows.length / rowsPerPage);
    const rank = rows.map((_, index) => index);
    let order = rank;

    const button = (label, name, target) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = label;
      made.ariaLabel = name;
      made.disabled = target < 0 || target >= numPages || target === sorting.page;
      made.addEventListener("click", () => { sorting.page = target; show(); });
      return made;
    };

    const show = () => {
      sorting.page = Math.min(sorting.page, numPages - 1);
      const shown = order.slice(sorting.page * rowsPerPage, (sorting.page + 1) * rowsPerPage);
      table.tBodies[0].replaceChildren(...shown.map((index) => {
        const row = document.createElement("tr");
        rows[index].forEach((value, column) => { row.insertCell().textContent = format(value, decimals[column]); });
        return row;
      }));
      const first = sorting.page * rowsPerPage + 1;
      const text = document.createElement("span");
      text.textContent = `${format(first)} to ${format(first + shown.length - 1)} of ${format(rows.length)}`;
      pages.replaceChildren(
        button("«", "First page", 0), button("‹", "Previous page", sorting.page - 1), text,
        button("›", "Next page", sorting.page + 1), button("»", "Last page", numPages - 1));
      pages.hidden = numPages < 2;
    };

    const sort = () => {
      const column = names.indexOf(sorting.heading);
      if (column < 0) return;
      for (const heading of headings) heading.ariaSort = null;
      headings[column].ariaSort = sorting.sign > 0 ? "ascending" : "descending";
      order = [...rank].sort((a, b) => {
        const [x, y] = [rows[a][column], rows[b][column]];
        return (x === null) - (y === null) || sorting.sign * compare(x, y) || a - b;
      });
    };

    headings.forEach((heading, column) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = names[column];
      heading.replaceChildren(made);
      made.addEventListener("click", () => {
        const { ariaSort } = heading;
        sorting.heading = names[column];
        sorting.sign = ariaSort === "descending" ? 1 : ariaSort === "ascending" ? -1 : column ? -1 : 1;
        sorting.page = 0;
        sort();
        show();
      });
    });
    sort();
    show();
  };

  const label = (element) => element.ariaLabel || element.textContent;

  // Replaces the content of the page, except for what the reader has changed: sorting, details, positions and focus.
  const replaceContent = (next) => {
    const isOpen = [...document.querySelectorAll("details[id][open]")].map((details) => details.id);
    const positions = [...document.querySelectorAll(".scroll, .failures")].map((each) => [label(each), each.scrollLeft, each.scrollTop]);
    const [left, top] = [scrollX, scrollY];
    const focused = document.activeElement === document.body ? null : label(document.activeElement);
    document.querySelector("main").replaceWith(next.querySelector("main"));
    document.body.dataset.version = next.body.dataset.version;
    setUpTable();
    for (const id of isOpen) {
      const details = document.getElementById(id);
      if (details) details.open = true;
    }
    for (const each of document.querySelectorAll(".scroll, .failures")) {
      const position = positions.find(([name]) => name === label(each));
      if (position) [, each.scrollLeft, each.scrollTop] = position;
    }
    scrollTo(left, top);
    const candidates = [...document.querySelectorAll("a, button, summary, [tabindex]")];
    if (focused !== null) candidates.find((each) => label(each) === focused)?.focus({ preventScroll: true });
  };

  const update = async () => {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      document.body.classList.remove("offline");
      if (!answer.ok || (await answer.text()) === document.body.dataset.version) return;
      const page = await fetch(".", { cache: "no-store" });
      if (page.ok) replaceContent(new DOMParser().parseFromString(await page.text(), "text/html"));
    } catch {
      document.body.classList.add("offline");
    }
  };

  setUpTable();
  const { version, refreshSeconds } = document.body.dataset;
  if (version !== undefined) setInterval(update, 1000 * Number(refreshSeconds));
})();
