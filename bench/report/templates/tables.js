// Tables that are sorted by any column and filtered; then everything is started.

function listing(section) {
  const body = section.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...section.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...sorted(rows, column, down));
    });
  });
  const filter = section.querySelector("input");
  const count = section.querySelector("output");
  filter?.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      left += !row.hidden;
    }
    count.textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
  });
}

// Numbers by value, text by name; what is missing stays last in either direction.
function sorted(rows, column, down) {
  const key = (row) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.toLowerCase();
    return cell.classList.contains("n") || text === "—" ? null : text;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const way = typeof a === "number" ? a - b : a.localeCompare(b);
    return down ? -way : way;
  };
  return rows
    .map((row) => [key(row), row])
    .sort(([a], [b]) => compare(a, b))
    .map(([, row]) => row);
}

for (const section of document.querySelectorAll(".knob")) new Knob(section);
for (const section of document.querySelectorAll(".listing")) listing(section);
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
