// What lies over the curves: stretches that were not recorded, rollbacks, and marks of deeds.
const SPACE = 7; // pixels between two marks

const spanX = (u, first, last) => {
  const left = Math.max(u.valToPos(first, "x", true), u.bbox.left);
  return [left, Math.min(u.valToPos(last, "x", true), u.bbox.left + u.bbox.width) - left];
};

// Below the curves.
const drawUnder = (u) => {
  const { ctx } = u, pixel = devicePixelRatio, { top, height } = u.bbox;
  ctx.save();
  if (view.band) {
    const [left, width] = spanX(u, view.band[0] - 0.5, view.band[1] + 0.5);
    ctx.fillStyle = theme.color("note");
    ctx.globalAlpha = 0.16;
    if (width > -4) ctx.fillRect(left - 2 * pixel, top, Math.max(width, 0) + 4 * pixel, height);
    ctx.globalAlpha = 1;
  }
  ctx.strokeStyle = theme.color("line");
  ctx.lineWidth = pixel;
  for (const [first, last] of data.gaps) {
    const [left, width] = spanX(u, first - 0.5, last + 0.5);
    if (width <= 0) continue;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, Math.max(width, pixel), height);
    ctx.clip();
    ctx.beginPath();
    for (let x = left - height; x < left + width; x += 6 * pixel) {
      ctx.moveTo(x, top + height);
      ctx.lineTo(x + height, top);
    }
    ctx.stroke();
    ctx.restore();
  }
  ctx.restore();
};

const drawRollbacks = (u) => {
  const { ctx } = u, pixel = devicePixelRatio, { left, top, width, height } = u.bbox;
  ctx.save();
  ctx.setLineDash([4 * pixel, 3 * pixel]);
  ctx.lineWidth = 1.3 * pixel;
  let before = -Infinity;
  for (const [step, tone] of data.rollbacks) {
    const x = u.valToPos(step, "x", true);
    if (x < left || x > left + width || x - before < 3 * pixel) continue;
    before = x;
    ctx.strokeStyle = theme.color(tone);
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
  }
  ctx.restore();
};

const SHAPES = {
  cross: (ctx, x, y, r) => {
    ctx.moveTo(x - r, y - r); ctx.lineTo(x + r, y + r);
    ctx.moveTo(x + r, y - r); ctx.lineTo(x - r, y + r);
  },
  ring: (ctx, x, y, r) => { ctx.moveTo(x + r, y); ctx.arc(x, y, r, 0, 7); },
  square: (ctx, x, y, r) => ctx.rect(x - r, y - r, 2 * r, 2 * r),
  triangle: (ctx, x, y, r) => {
    ctx.moveTo(x, y - r); ctx.lineTo(x + r, y + r); ctx.lineTo(x - r, y + r); ctx.closePath();
  },
};

// Of marks closer than a mark's width, one is drawn; on a curve, the highest.
const drawMark = (u, mark, logarithmic) => {
  const table = data.tables[mark.table], { ctx } = u, pixel = devicePixelRatio;
  const column = mark.column && table.columns[mark.column];
  const [low, high] = view.now, places = new Map();
  for (let row = 0; row < table.step.length; row++) {
    const step = table.step[row];
    if (!(table.deed[row] & mark.bits) || step < low || step > high) continue;
    const x = u.valToPos(step, "x", true);
    let y = u.bbox.top + (-8 - LANE * mark.row) * pixel;
    if (column) {
      if (column[row] == null || (logarithmic && column[row] <= 0)) continue;
      y = Math.max(u.valToPos(column[row], "y", true), u.bbox.top);
    }
    const place = Math.floor(x / (SPACE * pixel));
    if (!places.has(place) || places.get(place)[1] > y) places.set(place, [x, y]);
  }
  ctx.save();
  ctx.lineWidth = 1.5 * pixel;
  ctx.strokeStyle = ctx.fillStyle = theme.color(mark.tone);
  ctx.beginPath();
  for (const [x, y] of places.values()) SHAPES[mark.shape](ctx, x, y, 3 * pixel);
  if (mark.shape === "square") ctx.fill(); else ctx.stroke();
  ctx.restore();
};

// Small arrows at the edge where a curve leaves the axis, which fits the usual values.
const drawBeyond = (u, series, values) => {
  const { ctx } = u, pixel = devicePixelRatio, { min, max } = u.scales.y;
  const [low, high] = view.now, [steps] = u.data, places = new Map();
  for (let row = 0; row < steps.length; row++) {
    const value = values[row];
    if (value == null || steps[row] < low || steps[row] > high) continue;
    if (value > max || value < min) {
      const x = u.valToPos(steps[row], "x", true);
      places.set(`${Math.floor(x / (SPACE * pixel))}${value > max}`, [x, value > max]);
    }
  }
  ctx.save();
  ctx.fillStyle = theme.color(series.tone);
  for (const [x, up] of places.values()) {
    const y = up ? u.bbox.top : u.bbox.top + u.bbox.height, size = (up ? 5 : -5) * pixel;
    ctx.beginPath();
    ctx.moveTo(x, y); ctx.lineTo(x - 4 * pixel, y + size); ctx.lineTo(x + 4 * pixel, y + size);
    ctx.fill();
  }
  ctx.restore();
};
