// What links, buttons and the colour switch do.
(() => {
  "use strict";

  const root = document.documentElement;
  const announce = (words) => { document.getElementById("announce").textContent = words; };

  // A link to a claim, or to a result in it, opens the claim; one that is filtered away comes back.
  function follow() {
    const target = document.getElementById(location.hash.slice(1));
    const claim = target?.closest("details.claim");
    if (!claim) return;
    if (claim.hidden) window.mliCheck.showEverything();
    claim.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) follow(); // the same link again: no hashchange
  });
  follow();

  const scheme = document.getElementById("scheme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : prefersDark.matches);
  const label = () => { scheme.textContent = isDark() ? "Light colours" : "Dark colours"; };
  scheme.addEventListener("click", () => { root.dataset.scheme = isDark() ? "light" : "dark"; label(); });
  prefersDark.addEventListener("change", label);
  label();

  const unfold = document.getElementById("unfold");
  unfold.addEventListener("click", () => {
    const open = unfold.textContent === "Open all";
    for (const claim of document.querySelectorAll("details.claim")) claim.open = open && !claim.hidden;
    unfold.textContent = open ? "Close all" : "Open all";
  });

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not allowed here: the old way
      const field = document.body.appendChild(document.createElement("textarea"));
      field.value = text;
      field.select();
      document.execCommand("copy");
      field.remove();
    }
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await copy(button.dataset.copy);
      button.textContent = "Copied";
      announce("Command copied");
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
})();
