// Filters the rows of the table, and with them the sections below.
(() => {
  "use strict";

  const form = document.getElementById("filters");
  const paper = document.getElementById("filter-paper");
  const verdict = document.getElementById("filter-verdict");
  const text = document.getElementById("filter-text");
  const idle = document.getElementById("filter-idle");
  const shown = document.getElementById("shown");

  // The cells that span a claim's rows sit in its first row; remember them, their words count for every row.
  const groups = [...document.querySelectorAll("table.claims tbody")].map((body) => {
    const spans = [...body.querySelectorAll("[data-span]")];
    const common = spans.map((cell) => cell.textContent).join(" ");
    const lines = [...body.rows].map((row) => ({ row, words: `${common} ${row.textContent}`.toLowerCase() }));
    return { body, spans, lines, section: document.getElementById(body.dataset.claim) };
  });

  function matches({ row, words }, wanted) {
    if ("idle" in row.dataset && !(idle.checked && verdict.value === "")) return false;
    if (verdict.value === "changed" && !("changed" in row.dataset)) return false;
    if (!["", "changed", row.dataset.verdict].includes(verdict.value)) return false;
    return wanted.every((word) => words.includes(word));
  }

  function apply() {
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    let total = 0;
    for (const { body, spans, lines, section } of groups) {
      const fits = paper.value === "" || body.dataset.paper === paper.value;
      const kept = lines.filter((line) => fits && matches(line, wanted));
      for (const { row } of lines) row.hidden = true;
      for (const { row } of kept) row.hidden = false;
      body.hidden = section.hidden = kept.length === 0;
      if (kept.length) kept[0].row.prepend(...spans);
      for (const cell of spans) cell.rowSpan = Math.max(1, kept.length);
      count += kept.length;
      total += lines.length;
    }
    shown.textContent = `${count} of ${total} rows shown`;
  }

  function showEverything() {
    form.reset();
    idle.checked = true;
    apply();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  apply();

  window.mliCheck.showEverything = showEverything;
})();
