// Filters the rows of the table, and with them the sections below.
(() => {
  "use strict";

  const form = document.getElementById("filters");
  const paper = document.getElementById("filter-paper");
  const verdict = document.getElementById("filter-verdict");
  const text = document.getElementById("filter-text");
  const idle = document.getElementById("filter-idle");
  const shown = document.getElementById("shown");

  // A claim's own cells sit in a row before the others, or span them from the first: those move to the first row shown.
  const groups = [...document.querySelectorAll("table.claims tbody")].map((body) => {
    const spans = [...body.querySelectorAll("[data-span]")];
    const common = [...body.querySelectorAll(".statement, .source-cell")].map((cell) => cell.textContent).join(" ");
    const lines = [...body.querySelectorAll("tr:not([data-head])")].map((row) => {
      const found = [...row.querySelectorAll("[data-verdict]")].map((cell) => cell.dataset);
      const words = [...row.querySelectorAll("td:not(.absent)")].map((cell) => cell.textContent).join(" ");
      return { row, found, words: `${common} ${words}`.toLowerCase() };
    });
    return { body, spans, lines, section: document.getElementById(body.dataset.claim) };
  });

  // A row has a verdict for each scale it was judged at; any of them will do.
  function matches({ row, found, words }, wanted) {
    if ("idle" in row.dataset && !idle.checked) return false;
    const fits = (result) => (verdict.value === "changed" ? "changed" in result : verdict.value === result.verdict);
    if (verdict.value !== "" && !found.some(fits)) return false;
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
