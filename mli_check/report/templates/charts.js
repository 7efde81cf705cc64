// Draws each chart when it comes near the window, and clears it away when its claim is closed.
(() => {
  "use strict";

  const specs = JSON.parse(document.getElementById("chart-specs").textContent);
  const views = new Map(); // chart id -> Vega view, for whoever wants to look at the numbers
  const stages = new Map(); // chart id -> what the empty stage held, and its width

  // Colours are the page's own variables, so a chart follows the colour scheme without being drawn again.
  function look() {
    const ink = "var(--ink-soft)";
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      axis: {
        domainColor: "var(--rule-strong)", gridColor: "var(--rule)", tickColor: "var(--rule-strong)",
        labelColor: ink, titleColor: ink, titleFontWeight: "normal",
        labelFontSize: 11, titleFontSize: 12, labelPadding: 4, titlePadding: 8, tickSize: 4,
      },
      axisX: { grid: false, tickCount: 6 },
      axisY: { domain: false, ticks: false, tickCount: 5 },
      legend: {
        orient: "top", direction: "horizontal", labelColor: "var(--ink)", labelFontSize: 12, offset: 12,
        titleColor: ink, titleFontSize: 12, titleFontWeight: "normal",
        symbolType: "stroke", symbolStrokeWidth: 3, symbolSize: 180, columnPadding: 18,
      },
      range: { category: [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `var(--curve-${number})`) },
      view: { stroke: null },
    };
  }

  // The numbers of a chart, a line each, under their names.
  function table(spec) {
    const grid = spec.params.find((param) => param.name === "grid").value;
    const rows = (of) => spec.data.values.flatMap((row) => grid.map((x, i) => of(row, x, i)));
    return spec.data.name === "surface"
      ? [["x", "y", "value"], ...rows(({ y, value }, x, i) => [x, y, value[i]])]
      : [["group", "curve", "x", "y"], ...rows(({ group, label, y }, x, i) => [group, label, x, y[i]])];
  }

  async function draw(figure) {
    if (stages.has(figure.id)) return;
    const stage = figure.querySelector(".stage");
    stages.set(figure.id, { empty: stage.innerHTML, width: stage.clientWidth });
    const options = { renderer: "svg", actions: false, defaultStyle: false, config: look() };
    const { view } = await vegaEmbed(stage, specs[figure.id], options);
    if (!stages.has(figure.id)) return view.finalize(); // closed meanwhile
    views.set(figure.id, view);
    const pick = figure.querySelector("[data-pick]");
    if (pick) view.addSignalListener("pick", (_, chosen) => { pick.value = chosen.group?.[0] ?? ""; });
  }

  function clear(figure) {
    if (!stages.has(figure.id)) return;
    views.get(figure.id)?.finalize();
    views.delete(figure.id);
    const stage = figure.querySelector(".stage");
    stage.innerHTML = stages.get(figure.id).empty;
    stages.delete(figure.id);
    const pick = figure.querySelector("[data-pick]");
    if (pick) pick.value = "";
  }

  function save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function saveCsv(figure) {
    const cell = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value ?? "");
    const lines = table(specs[figure.id]).map((line) => line.map(cell).join(","));
    save(`${figure.id}.csv`, "text/csv", lines.join("\n") + "\n");
  }

  async function saveSvg(figure) {
    await draw(figure);
    const probe = document.body.appendChild(document.createElement("span"));
    const solid = (variable) => { probe.style.color = variable; return getComputedStyle(probe).color; };
    const svg = (await views.get(figure.id).toSVG()).replace(/var\(--[\w-]+\)/g, solid);
    probe.remove();
    save(`${figure.id}.svg`, "image/svg+xml", svg);
  }

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "300px" });

  for (const figure of document.querySelectorAll("figure.chart")) {
    near.observe(figure);
    figure.querySelector("[data-save=csv]").addEventListener("click", () => saveCsv(figure));
    figure.querySelector("[data-save=svg]").addEventListener("click", () => saveSvg(figure));
    figure.querySelector("[data-pick]")?.addEventListener("change", (event) => {
      views.get(figure.id)?.signal("pick_group_legend", event.target.value || null).runAsync();
    });
  }
  for (const claim of document.querySelectorAll("details.claim")) {
    claim.addEventListener("toggle", () => { if (!claim.open) claim.querySelectorAll("figure.chart").forEach(clear); });
  }

  // Vega widens or narrows a chart by itself, but does not make room for a legend that then needs more lines.
  let settled;
  addEventListener("resize", () => { clearTimeout(settled); settled = setTimeout(fit, 200); });
  function fit() {
    for (const [id, { width }] of [...stages]) {
      const figure = document.getElementById(id);
      if (figure.querySelector(".stage").clientWidth === width) continue;
      clear(figure);
      near.unobserve(figure);
      near.observe(figure); // draws it if it is in sight
    }
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details[open] figure.chart").forEach(draw));

  window.mliCheck = { views };
})();
