// The steps in view: one range for all charts, in the address of the page, so that a link or a
// reload shows the same.
const view = (() => {
  const [first, last] = data.span;
  const room = Math.max(0.005 * (last - first), 0.5);
  const whole = [first - room, last + room];
  const least = Math.min(8, whole[1] - whole[0]);
  const listeners = [];
  // It may also be the name of a section.
  const address = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  let now = whole, band = null;

  const isWhole = () => now[0] <= whole[0] && now[1] >= whole[1];

  const remember = () => {
    if (isWhole()) address.delete("steps");
    else address.set("steps", `${Math.ceil(now[0])}-${Math.floor(now[1])}`);
    // The address of a page from disk may not be replaced in every browser.
    try { history.replaceState(null, "", `#${address}`); } catch { /* not kept */ }
  };

  const set = (low, high, marked = null) => {
    const width = Math.min(Math.max(high - low, least), whole[1] - whole[0]);
    const middle = (low + high) / 2;
    const left = Math.min(Math.max(middle - width / 2, whole[0]), whole[1] - width);
    now = [left, left + width];
    band = marked;
    remember();
    for (const listener of listeners) listener();
  };

  const zoom = (factor, around = (now[0] + now[1]) / 2) =>
    set(around - (around - now[0]) * factor, around + (now[1] - around) * factor);
  const pan = (share) => set(now[0] + share * (now[1] - now[0]), now[1] + share * (now[1] - now[0]));
  const reset = () => set(...whole);

  const kept = /^(\d+)-(\d+)$/.exec(address.get("steps") ?? "");
  if (kept && Number(kept[1]) < whole[1] && Number(kept[2]) > whole[0]) {
    now = [Math.max(Number(kept[1]), whole[0]), Math.min(Number(kept[2]), whole[1])];
  }

  const bar = document.getElementById("view"), shown = bar.querySelector("output");
  const show = () => {
    const from = Math.max(Math.ceil(now[0]), first), to = Math.min(Math.floor(now[1]), last);
    shown.textContent = `steps ${counted(from)} to ${counted(to)}`;
    for (const one of bar.querySelectorAll("[data-do=out], [data-do=all]")) one.disabled = isWhole();
  };
  const deeds = {
    in: () => zoom(0.5), out: () => zoom(2), left: () => pan(-0.5), right: () => pan(0.5), all: reset,
  };
  bar.addEventListener("click", (event) => deeds[event.target.closest("button")?.dataset.do]?.());
  listeners.push(show);
  bar.hidden = false;
  show();

  return {
    set, zoom, reset, address, remember,
    get now() { return now; },
    get band() { return band; },
    onChange: (listener) => listeners.push(listener),
  };
})();
