// What all charts have in common: axes, their fonts and colors, zoom, pan, and the linked cursor.
const FONT = '11.5px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const LEFT = 56, RIGHT = 14, TOP = 32, BOTTOM = 34, LANE = 12;

const isNarrow = () => innerWidth <= 640;

// Ticks of a logarithmic axis: powers of ten, or more if there are few of them.
const decades = (low, high, most = 6) => {
  const inside = (subs, every) => {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      if (power % every) continue;
      for (const sub of subs) {
        const tick = sub * 10 ** power;
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    return ticks;
  };
  for (const subs of [[1], [1, 3], [1, 2, 5]]) {
    const ticks = inside(subs, 1);
    if (ticks.length > most && subs.length === 1) {
      return inside([1], Math.ceil(ticks.length / most));
    }
    if (ticks.length > 2) return ticks;
  }
  return round(low, high);
};

// Round numbers between two others.
const round = (low, high, most = 4) => {
  const power = 10 ** Math.floor(Math.log10((high - low) / most));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => (high - low) / one <= most);
  const ticks = [];
  for (let tick = Math.ceil(low / step); tick * step <= high; tick++) {
    ticks.push(Number((tick * step).toPrecision(12)));
  }
  return ticks;
};

const axis = (fields) => ({
  font: FONT,
  stroke: () => theme.color("soft"),
  grid: { stroke: () => theme.color("grid"), width: 1 },
  ticks: { show: false },
  ...fields,
});

const stepAxis = (fields = {}) => axis({
  size: BOTTOM,
  space: isNarrow() ? 70 : 100,
  incrs: [1, 2, 5].flatMap((one) => Array.from({ length: 13 }, (_, power) => one * 10 ** power))
    .sort((a, b) => a - b),
  values: (_, splits) => splits.map(shortStep),
  grid: { show: false },
  ticks: { show: true, stroke: () => theme.color("line"), width: 1, size: 5 },
  border: { show: true, stroke: () => theme.color("line"), width: 1 },
  label: "step",
  labelFont: FONT,
  labelSize: 14,
  labelGap: -2,
  ...fields,
});

// A plot over steps: drag to zoom, drag with shift to pan, double-click for the whole run, and
// turn the wheel with ctrl to zoom at the cursor. The cursor is at the same step in all of them.
const stepPlot = (room, options, values) => {
  const plot = new uPlot({
    width: room.clientWidth,
    padding: [TOP, RIGHT, 0, 0],
    legend: { show: false },
    ...options,
    scales: { x: { time: false, range: () => view.now }, ...options.scales },
    axes: [stepAxis(), ...options.axes],
    cursor: {
      y: false,
      points: { size: 6, width: 1.5, ...options.points },
      drag: { x: true, y: false, setScale: false, dist: 6 },
      sync: { key: "steps", setSeries: false, scales: ["x", null] },
      bind: { dblclick: () => () => { view.reset(); return null; } },
    },
    hooks: {
      ...options.hooks,
      setSelect: [(u) => {
        if (u.select.width > 0) {
          const low = u.posToVal(u.select.left, "x");
          view.set(low, u.posToVal(u.select.left + u.select.width, "x"));
        }
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      }],
    },
  }, values, room);
  const over = plot.over;
  over.addEventListener("mouseenter", () => { room.dataset.hovered = "yes"; });
  over.addEventListener("mouseleave", () => { delete room.dataset.hovered; });
  over.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const at = plot.posToVal(event.clientX - over.getBoundingClientRect().left, "x");
    view.zoom(event.deltaY < 0 ? 0.7 : 1 / 0.7, at);
  }, { passive: false });
  over.addEventListener("mousedown", (event) => {
    if (!event.shiftKey || event.button !== 0) return;
    event.stopImmediatePropagation();
    const start = event.clientX, [low, high] = view.now;
    const perPixel = (high - low) / over.clientWidth;
    const move = (to) => view.set(low - (to.clientX - start) * perPixel, high - (to.clientX - start) * perPixel);
    const stop = () => {
      removeEventListener("mousemove", move);
      removeEventListener("mouseup", stop);
    };
    addEventListener("mousemove", move);
    addEventListener("mouseup", stop);
  }, { capture: true });
  return plot;
};

// The title of a vertical axis stands above it, so that it reads horizontally, and above all marks.
const nameAxis = (u, text) => {
  const { ctx } = u, pixel = devicePixelRatio;
  ctx.save();
  ctx.font = FONT.replace("11.5px", `${11.5 * pixel}px`);
  ctx.fillStyle = theme.color("soft");
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillText(text, u.bbox.left, 12 * pixel);
  ctx.restore();
};

// A box beside the cursor with what is there.
const tip = (u) => {
  const box = make("div", "tip");
  box.hidden = true;
  u.over.append(box);
  return (rows) => {
    box.hidden = !rows || u.cursor.left < 0;
    if (box.hidden) return;
    box.replaceChildren(...rows.map(([text, tone, strong]) => {
      const line = make(strong ? "b" : "span", "", text);
      if (tone) line.style.setProperty("--tone", `var(--${tone})`);
      return line;
    }));
    const right = u.cursor.left > u.over.clientWidth / 2;
    box.style.left = right ? "" : `${u.cursor.left + 12}px`;
    box.style.right = right ? `${u.over.clientWidth - u.cursor.left + 12}px` : "";
  };
};
