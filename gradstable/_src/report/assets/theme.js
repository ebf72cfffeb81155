// The theme: the one of the system, until the button is used. The choice is stored if the browser
// allows it, which it may not for a page from disk.
const theme = (() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const listeners = [];
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const show = () => {
    button.textContent = dark() ? "\u2600 Light" : "\u263e Dark";
    button.setAttribute("aria-label", dark() ? "Use the light theme" : "Use the dark theme");
    for (const listener of listeners) listener();
  };
  try {
    const kept = localStorage.getItem("gradstable-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* no store: the theme of the system */ }
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("gradstable-theme", root.dataset.theme); } catch { /* as above */ }
    show();
  });
  system.addEventListener("change", show);
  show();
  return {
    // The color that the theme has for a name of the palette.
    color: (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim(),
    onChange: (listener) => listeners.push(listener),
  };
})();
