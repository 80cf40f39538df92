// Sort a table by a click on a header; numbers by value, their intervals ignored. Without this script the tables stay as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const number = (text) => {
    const found = text.replaceAll("\u2212", "-").replace(/^[<>\[\s]+/, "").match(/^[+-]?\d+(\.\d+)?(e[+-]?\d+)?/i);
    return found ? Number(found[0]) : NaN;
  };
  const value = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rows = [...table.tBodies[0].rows];
      const numeric = rows.some((row) => !Number.isNaN(number(value(row, column))));
      const up = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : !numeric;
      const key = (row) => (numeric ? number(value(row, column)) : value(row, column));
      const empty = (item) => item === "" || Number.isNaN(item);
      rows.sort((first, second) => {
        const [a, b] = [key(first), key(second)];
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        return (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      table.tBodies[0].append(...rows);
    });
  });
}
