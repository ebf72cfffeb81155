// Curves over steps, with a logarithmic or linear axis that fits the usual values.

// How far from the middle 98 % of the values the axis goes, in multiples of their range; on a
// logarithmic axis at least three decades. What lies beyond has an arrow at the edge.
const BEYOND = 3, LEAST_DECADES = 3;

const usual = (values, logarithmic) => {
  const shown = values.map((value) => logarithmic ? Math.log10(value) : value).sort((a, b) => a - b);
  const at = (share) => shown[Math.round(share * (shown.length - 1))];
  const low = at(0.01), high = at(0.99);
  const room = Math.max(BEYOND * (high - low), logarithmic ? LEAST_DECADES : 1e-9 * Math.abs(high));
  const inside = shown.filter((value) => value >= low - room && value <= high + room);
  return [inside[0], inside.at(-1)];
};

// Both ends of the axis for what is in view. Rejected steps can leave it at the top.
const limits = (chart, columns, steps, rejected, logarithmic) => {
  const [low, high] = view.now;
  const gather = (limit, keep) => {
    const found = [];
    chart.lines.forEach((line, place) => {
      if (line.limit !== limit) return;
      const values = columns[place];
      for (let row = 0; row < steps.length; row++) {
        const value = values[row];
        if (value == null || steps[row] < low || steps[row] > high) continue;
        if (keep(place, row) && (!logarithmic || value > 0)) found.push(value);
      }
    });
    return found;
  };
  let values = gather(false, (place, row) => !rejected[place].has(steps[row]));
  if (!values.length) values = gather(false, () => true);
  if (!values.length) values = gather(true, () => true);
  if (!values.length) return logarithmic ? [0.1, 10] : [0, 1];
  let [from, to] = usual(values, logarithmic);
  // A threshold far above all norms, as while it still learns, is not shown.
  for (const value of gather(true, () => true)) {
    const place = logarithmic ? Math.log10(value) : value;
    if (logarithmic ? place < to + 2 : place < to + 2 * (to - from)) to = Math.max(to, place);
  }
  // At least half a decade, or rounding errors of a constant would look like waves.
  const small = logarithmic ? 0.5 : 1e-3 * Math.max(Math.abs(from), Math.abs(to), 1e-9);
  if (to - from < small) [from, to] = [(from + to - small) / 2, (from + to + small) / 2];
  const room = 0.05 * (to - from);
  [from, to] = [from - room, to + room];
  return logarithmic ? [10 ** Math.max(from, -37), 10 ** Math.min(to, 38)] : [from, to];
};

// The columns of a chart over the same steps; undefined where a table has no such step.
const joined = (lines) => {
  const names = [...new Set(lines.map((line) => line.table))];
  const column = (line) => data.tables[line.table].columns[line.column];
  if (names.length === 1) return [data.tables[names[0]].step, ...lines.map(column)];
  const parts = names.map((name) => [
    data.tables[name].step, ...lines.filter((line) => line.table === name).map(column),
  ]);
  const [steps, ...columns] = uPlot.join(parts);
  const order = names.flatMap((name) => lines.filter((line) => line.table === name));
  return [steps, ...lines.map((line) => columns[order.indexOf(line)])];
};

const deedText = (deed, reason) => {
  const parts = [];
  if (deed & DEED.rejected) parts.push(["rejected", "bad"]);
  else if (deed & DEED.clipped) parts.push(["clipped", "warn"]);
  if (deed & (DEED.lossBroken | DEED.normBroken)) parts.push(["not finite", "bad"]);
  if (deed & (DEED.rmsAlarm | DEED.ratioAlarm)) parts.push(["alarm", "bad"]);
  const why = deed & (DEED.rejected | DEED.clipped) && data.reasons[reason];
  return parts.map(([text, tone], place) => [place || !why ? text : `${text}: ${why}`, tone]);
};

const rejectedIn = (table) =>
  new Set(table.step.filter((_, row) => table.deed?.[row] & DEED.rejected));

// What happened, by step, where a chart shows a single run.
const deedsOf = (chart) => {
  const names = new Set(chart.marks.map((mark) => mark.table));
  if (names.size !== 1) return null;
  const table = data.tables[[...names][0]], found = new Map();
  table.step.forEach((step, row) => {
    if (table.deed?.[row]) found.set(step, [table.deed[row], table.reason?.[row]]);
  });
  return found;
};

// Rows between two gaps.
const lonely = (values) => {
  const known = (row) => values[row] != null;
  const found = [];
  for (let row = 0; row < values.length; row++) {
    if (!known(row)) continue;
    let before = row - 1, after = row + 1;
    while (before >= 0 && values[before] === undefined) before--;
    while (after < values.length && values[after] === undefined) after++;
    if (!known(before) && !known(after)) found.push(row);
  }
  return found;
};

const linesChart = (room, chart, name) => {
  const values = joined(chart.lines), [steps, ...columns] = values;
  const happened = deedsOf(chart);
  const rejected = chart.lines.map((line) => rejectedIn(data.tables[line.table]));
  const every = columns.flat().filter((value) => value != null);
  const positive = every.some((value) => value > 0) && every.every((value) => value >= 0);
  const either = positive && !chart.ends;
  const wanted = view.address.get(name);
  const logarithmic = either && (wanted ? wanted === "log" : chart.log);
  const title = `${chart.name}${logarithmic ? ", logarithmic" : ""}`;
  const lanes = LANE * Math.max(0, ...chart.marks.map((mark) => mark.row));
  const told = (u) => {
    const row = u.cursor.idx;
    if (row == null) return null;
    const rows = [[`step ${counted(steps[row])}`, null, true]];
    chart.lines.forEach((line, place) => {
      const value = columns[place][u.cursor.idxs?.[place + 1] ?? row];
      if (!line.quiet && value !== undefined) rows.push([`${line.label} ${plain(value)}`, line.tone]);
    });
    const deed = happened?.get(steps[row]);
    return deed ? [...rows, ...deedText(...deed)] : rows;
  };

  let say;
  const plot = stepPlot(room, {
    height: chart.height + lanes,
    padding: [TOP + lanes, RIGHT, 0, 0],
    scales: {
      y: {
        distr: logarithmic ? 3 : 1,
        range: () => chart.ends ?? limits(chart, columns, steps, rejected, logarithmic),
      },
    },
    axes: [axis({
      size: LEFT,
      space: chart.height > 120 ? 34 : 18,
      values: (_, splits) => splits.map((value) => plain(value, 3)),
      ...(logarithmic && {
        splits: (u) => decades(u.scales.y.min, u.scales.y.max),
        filter: (_, splits) => splits,
      }),
    })],
    series: [{}, ...chart.lines.map((line, place) => ({
      label: line.label,
      stroke: () => {
        const tone = theme.color(line.tone);
        return line.faint ? `color-mix(in srgb, ${tone} 50%, transparent)` : tone;
      },
      width: line.width,
      dash: line.dash,
      ...(line.stepped && { paths: uPlot.paths.stepped({ align: 1 }) }),
      points: {
        size: 4,
        // A point between two gaps would not show.
        filter: () => lonely(columns[place]),
      },
    }))],
    hooks: {
      drawClear: [drawUnder],
      draw: [(u) => {
        drawRollbacks(u);
        if (chart.level != null) drawLevel(u, chart.level);
        chart.lines.forEach((line, place) => {
          if (!line.limit && !line.quiet) drawBeyond(u, line, columns[place]);
        });
        for (const mark of chart.marks) drawMark(u, mark, logarithmic);
        nameAxis(u, title);
      }],
      setCursor: [(u) => say?.(told(u))],
    },
  }, values);
  say = tip(plot);

  if (either) {
    const button = make("button", "scale", logarithmic ? "linear" : "log");
    button.type = "button";
    button.title = `Show ${chart.name} on a ${logarithmic ? "linear" : "logarithmic"} axis`;
    button.addEventListener("click", () => {
      view.address.set(name, logarithmic ? "linear" : "log");
      view.remember();
      room.dispatchEvent(new CustomEvent("redraw", { bubbles: true }));
    });
    room.append(button);
  }
  return plot;
};

const drawLevel = (u, level) => {
  const { ctx } = u, pixel = devicePixelRatio, y = u.valToPos(level, "y", true);
  if (y < u.bbox.top || y > u.bbox.top + u.bbox.height) return;
  ctx.save();
  ctx.strokeStyle = theme.color("soft");
  ctx.setLineDash([pixel, 3 * pixel]);
  ctx.lineWidth = pixel;
  ctx.beginPath();
  ctx.moveTo(u.bbox.left, y);
  ctx.lineTo(u.bbox.left + u.bbox.width, y);
  ctx.stroke();
  ctx.restore();
};
