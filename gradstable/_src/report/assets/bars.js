// A histogram over a logarithmic axis, with bars of several kinds on top of each other.
const barsChart = (room, chart) => {
  const [low, high] = chart.logs, number = chart.bars[0].counts.length;
  const width = (high - low) / number;
  const places = Array.from({ length: number }, (_, cell) => low + cell * width);
  // The whole pile is drawn first, then what is below its top.
  const piles = chart.bars.map((_, kind) => places.map((__, cell) =>
    chart.bars.slice(0, kind + 1).reduce((sum, one) => sum + one.counts[cell], 0) || null));
  const highest = Math.max(...piles.at(-1).map((one) => one ?? 0), 2);
  let say;
  const bars = uPlot.paths.bars({ size: [1], align: 1, gap: 1 });
  const order = chart.bars.map((_, kind) => chart.bars.length - 1 - kind);
  const plot = new uPlot({
    width: room.clientWidth,
    height: 250,
    padding: [TOP, RIGHT, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: false, range: () => [low, high] },
      y: { distr: 3, range: () => [0.7, 1.6 * highest] },
    },
    axes: [
      stepAxis({
        label: chart.name,
        splits: () => decades(10 ** low, 10 ** high).map(Math.log10),
        filter: (_, splits) => splits,
        values: (_, splits) => splits.map((one) => plain(10 ** one, 2)),
      }),
      axis({
        size: LEFT,
        splits: (u) => decades(u.scales.y.min, u.scales.y.max).filter((one) => one >= 1),
        filter: (_, splits) => splits,
        values: (_, splits) => splits.map((one) => plain(one, 3)),
      }),
    ],
    series: [{}, ...order.map((kind) => ({
      fill: () => theme.color(chart.bars[kind].tone),
      width: 0,
      paths: bars,
      fillTo: 0.7,
      points: { show: false },
    }))],
    cursor: { x: false, y: false, points: { show: false }, drag: { x: false, y: false } },
    hooks: {
      draw: [(u) => nameAxis(u, "steps, logarithmic")],
      setCursor: [(u) => say?.(told(u))],
    },
  }, [places, ...order.map((kind) => piles[kind])], room);
  const told = (u) => {
    if (u.cursor.left < 0) return null;
    const cell = Math.floor((u.posToVal(u.cursor.left, "x") - low) / width);
    if (cell < 0 || cell >= number) return null;
    const ends = [10 ** places[cell], 10 ** (places[cell] + width)].map((one) => plain(one, 3));
    return [
      [`${chart.name} ${ends[0]} to ${ends[1]}`, null, true],
      ...chart.bars.map((one) => [`${counted(one.counts[cell])} ${one.label}`, one.tone]),
    ];
  };
  say = tip(plot);
  return plot;
};
