"use strict";
(() => {
  const source = document.getElementById("children-data");
  if (!source) return;
  const { rows, rowsPerPage, decimals } = JSON.parse(source.textContent);
  const table = document.getElementById("children");
  const pages = document.getElementById("pages");
  const numPages = Math.ceil(rows.length / rowsPerPage);
  const rank = rows.map((_, index) => index);
  let order = rank;
  let page = 0;

  const format = (value, digits = 0) => {
    if (value === null) return "–";
    if (typeof value !== "number") return value;
    return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };

  const button = (label, name, target) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.ariaLabel = name;
    made.disabled = target < 0 || target >= numPages || target === page;
    made.addEventListener("click", () => { page = target; show(); });
    return made;
  };

  const show = () => {
    const shown = order.slice(page * rowsPerPage, (page + 1) * rowsPerPage);
    table.tBodies[0].replaceChildren(...shown.map((index) => {
      const row = document.createElement("tr");
      rows[index].forEach((value, column) => { row.insertCell().textContent = format(value, decimals[column]); });
      return row;
    }));
    const first = page * rowsPerPage + 1;
    const text = document.createElement("span");
    text.textContent = `${format(first)} to ${format(first + shown.length - 1)} of ${format(rows.length)}`;
    pages.replaceChildren(
      button("«", "First page", 0), button("‹", "Previous page", page - 1), text,
      button("›", "Next page", page + 1), button("»", "Last page", numPages - 1));
    pages.hidden = numPages < 2;
  };

  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = heading.textContent;
    heading.replaceChildren(made);
    made.addEventListener("click", () => {
      const sign = heading.ariaSort === "descending" ? 1 : heading.ariaSort === "ascending" ? -1 : column ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
      heading.ariaSort = sign > 0 ? "ascending" : "descending";
      order = [...rank].sort((a, b) => {
        const [x, y] = [rows[a][column], rows[b][column]];
        return (x === null) - (y === null) || sign * compare(x, y) || a - b;
      });
      page = 0;
      show();
    });
  });
  show();
})();

(() => {
  const { version, refreshSeconds } = document.body.dataset;
  if (version === undefined) return;
  const key = `scroll ${location.pathname}`;
  scrollTo(0, Number(sessionStorage.getItem(key) || 0));
  addEventListener("scroll", () => sessionStorage.setItem(key, String(scrollY)), { passive: true });
  setInterval(async () => {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      document.body.classList.remove("offline");
      if (answer.ok && (await answer.text()) !== version) location.reload();
    } catch {
      document.body.classList.add("offline");
    }
  }, 1000 * Number(refreshSeconds));
})();
