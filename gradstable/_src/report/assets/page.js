// The page: draw all charts, follow the width of the window, and jump to what happened.
const KINDS = { lines: linesChart, heat: heatChart, bars: barsChart };

// One chart of several, which the reader chooses.
const choiceChart = (room, chart, name) => {
  const names = Object.keys(chart.charts);
  const wanted = view.address.get(`${name}-of`);
  const chosen = names.includes(wanted) ? wanted : names[0];
  const label = make("label", "choice soft", `${chart.label} `), select = make("select");
  for (const one of names) select.append(new Option(one, one, one === chosen, one === chosen));
  select.addEventListener("change", () => {
    view.address.set(`${name}-of`, select.value);
    view.remember();
    room.dispatchEvent(new CustomEvent("redraw", { bubbles: true }));
  });
  label.append(select);
  room.append(label);
  return linesChart(room, chart.charts[chosen], name);
};

const plots = new Map();

const draw = (room) => {
  const name = room.dataset.chart, chart = data.charts[name];
  plots.get(room)?.destroy();
  room.replaceChildren();
  plots.set(room, (KINDS[chart.kind] ?? choiceChart)(room, chart, name));
};

const rooms = [...document.querySelectorAll("[data-chart]")];
rooms.forEach(draw);
theme.onChange(() => rooms.forEach(draw));
addEventListener("redraw", (event) => draw(event.target));

view.onChange(() => {
  for (const plot of plots.values()) {
    if (plot.cursor.sync?.key === "steps") plot.setScale("x", { min: view.now[0], max: view.now[1] });
  }
});

const watched = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const plot = plots.get(target);
    if (target.clientWidth && Math.abs(plot.width - target.clientWidth) > 1) draw(target);
  }
});
for (const room of rooms) watched.observe(room);

// A row of the table of events shows its steps in all charts, with some room around them.
document.getElementById("events")?.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-first]");
  if (!link) return;
  event.preventDefault();
  const first = Number(link.dataset.first), last = Number(link.dataset.last);
  const room = Math.max(20, 1.5 * (last - first));
  view.set(first - room, last + room, [first, last]);
  document.querySelector("figure")?.closest("section").scrollIntoView({ block: "start" });
});

// The page of a run that goes on is rewritten from time to time.
if (document.body.dataset.reload) {
  const again = () => document.hidden ? setTimeout(again, 1000) : location.reload();
  setTimeout(again, 1000 * Number(document.body.dataset.reload));
}
