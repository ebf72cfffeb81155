// A map: one row per leaf or tap, and in each cell the color of its largest value.
const UNKNOWN = 0, FIRST = 1, LAST = 250, BROKEN = 255;
const ROW = 17;
// viridis: evenly spaced in lightness for everyone, and never as light or dark as the page.
const VIRIDIS = [
  [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137],
  [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37],
];
const shade = (share) => {
  const place = share * (VIRIDIS.length - 1), low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[low].map((one, color) => one + (place - low) * (VIRIDIS[low + 1][color] - one));
};

const heatChart = (room, chart) => {
  const cells = data.bytes(chart.cells), rows = chart.names.length, { columns } = chart;
  const [first, last] = chart.steps, [low, high] = chart.logs;
  const width = (last - first) / columns;

  const picture = make("canvas");
  picture.width = columns;
  picture.height = rows;
  const pen = picture.getContext("2d"), pixels = pen.createImageData(columns, rows);
  cells.forEach((code, place) => {
    const known = code !== UNKNOWN && code !== BROKEN;
    const [red, green, blue] = known ? shade((code - FIRST) / (LAST - FIRST)) : [0, 0, 0];
    pixels.data.set([red, green, blue, known ? 255 : 0], 4 * place);
  });
  pen.putImageData(pixels, 0, 0);

  const most = isNarrow() ? 18 : 32;
  const named = chart.names.map((name) =>
    name.length <= most ? name : `${name.slice(0, most / 2)}…${name.slice(1 - most / 2)}`);
  const letters = Math.max(...named.map((name) => name.length));
  // A line through a row where it is not finite, with an edge in the color of the page.
  const drawBroken = (ctx, { at, top, wide, tall }) => {
    for (const [tone, thick] of [["card", 0.65], ["bad", 0.3]]) {
      ctx.fillStyle = theme.color(tone);
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          if (cells[row * columns + column] !== BROKEN) continue;
          let end = column;
          while (end + 1 < columns && cells[row * columns + end + 1] === BROKEN) end++;
          const y = top + (row + 0.5 - thick / 2) * tall;
          const length = Math.max((end - column + 1) * wide, 2);
          ctx.fillRect(at + column * wide, y, length, thick * tall);
          column = end;
        }
      }
    }
  };

  const told = (u) => {
    if (u.cursor.left < 0 || !room.dataset.hovered) return null;
    const column = Math.floor((u.posToVal(u.cursor.left, "x") - first) / width);
    const row = Math.floor(u.cursor.top / u.over.clientHeight * rows);
    if (column < 0 || column >= columns || row < 0 || row >= rows) return null;
    const code = cells[row * columns + column];
    const from = Math.ceil(first + column * width), to = Math.floor(first + (column + 1) * width);
    const value = 10 ** (low + (code - FIRST) / (LAST - FIRST) * (high - low));
    const about = code === LAST ? "at least" : code === FIRST ? "at most" : "about";
    return [
      [to > from ? `steps ${counted(from)} to ${counted(to)}` : `step ${counted(from)}`, null, true],
      [chart.names[row]],
      code === BROKEN ? ["NaN or infinite", "bad"]
        : [code === UNKNOWN ? "not known" : `${chart.what} ${about} ${plain(value, 2)}`],
    ];
  };
  let say;
  const plot = stepPlot(room, {
    padding: [6, RIGHT, 0, 0],
    height: 6 + BOTTOM + Math.max(60, ROW * rows),
    scales: { y: { dir: -1, range: () => [0, rows] } },
    axes: [axis({
      size: 14 + 6.4 * letters,
      gap: 6,
      splits: () => named.map((_, row) => row + 0.5),
      filter: (_, splits) => splits,
      values: () => named,
      grid: { show: false },
    })],
    series: [{}, { stroke: "transparent", points: { show: false } }],
    points: { show: false },
    hooks: {
      draw: [(u) => {
        const { ctx } = u, { left, top, width: wide, height } = u.bbox;
        const at = u.valToPos(first, "x", true), to = u.valToPos(last, "x", true);
        ctx.save();
        ctx.beginPath();
        ctx.rect(left, top, wide, height);
        ctx.clip();
        ctx.imageSmoothingEnabled = false;
        ctx.drawImage(picture, at, top, to - at, height);
        drawBroken(ctx, { at, top, wide: (to - at) / columns, tall: height / rows });
        ctx.restore();
        drawUnder(u);
        drawRollbacks(u);
      }],
      setCursor: [(u) => say?.(told(u))],
    },
  }, [[first, last], [null, null]]);

  say = tip(plot);

  const key = make("p", "shades soft");
  key.append(make("span", "", plain(10 ** low, 2)), make("i"), make("span", "", plain(10 ** high, 2)),
    make("span", "", chart.what));
  const stops = Array.from({ length: 10 }, (_, place) => `rgb(${shade(place / 9).map(Math.round)})`);
  key.querySelector("i").style.background = `linear-gradient(to right, ${stops})`;
  room.append(key);
  return plot;
};
