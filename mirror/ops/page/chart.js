// The last minutes as two drawings over one axis of time: how old the copy is, and how long a change takes. The scale
// is logarithmic: a millisecond and an hour are both to be seen. What nobody measured is hatched, never drawn.
const KEPT_S = 900;
// The shortest that has room for all points is shown, so that a daemon that has just started is not lost in it; each
// with the minutes that are named below, on a wide page and on a narrow one.
const SPANS = [
  [120, [2, 1.5, 1, 0.5, 0], [2, 1, 0]],
  [300, [5, 4, 3, 2, 1, 0], [5, 3, 1, 0]],
  [KEPT_S, [15, 12, 9, 6, 3, 0], [15, 10, 5, 0]],
];
const TICKS = [
  [0.001, "1 ms"],
  [0.01, "10 ms"],
  [0.1, "100 ms"],
  [1, "1 s"],
  [10, "10 s"],
  [60, "1 min"],
  [600, "10 min"],
  [HOUR, "1 h"],
  [DAY, "1 day"],
  [30 * DAY, "30 days"],
];
const [AT, LAG, STALENESS, MEDIAN, SLOWEST, ROWS] = [0, 1, 2, 3, 4, 5]; // places in a point of the history
const [GUTTER, RIGHT, TOP, BOTTOM] = [52, 10, 8, 22];

const PANELS = [
  { id: "age", columns: [LAG, STALENESS], floor: 0.01, least: 10, draw: drawAge },
  { id: "takes", columns: [MEDIAN, SLOWEST], floor: 0.001, least: 0.1, draw: drawTakes },
];

/** What the drawings stand on: { points, now, interval, limit }; `chosen` is the moment a reader points at. */
const chart = { points: [], now: 0, interval: 2, limit: null, chosen: null };

function drawCharts() {
  PANELS.forEach(drawPanel);
  describe();
}

function drawPanel(panel) {
  const svg = byId(panel.id);
  const { width, height } = svg.getBoundingClientRect();
  if (!width) return;
  const scale = scaled(panel, width, height);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const wanted = [
    hatch(panel.id),
    ...grid(scale),
    ...unknown(panel, scale),
    ...panel.draw(scale),
    ...pointer(panel, scale),
  ];
  patchChildren(svg, wanted);
}

function scaled(panel, width, height) {
  const top = Math.max(
    panel.least,
    ...panel.columns.map(highest),
    panel.columns.includes(LAG) ? (chart.limit ?? 0) : 0,
  );
  const ticks = TICKS.filter(([value], n) => value >= panel.floor && (n === 0 || TICKS[n - 1][0] < top * 1.15));
  const low = Math.log10(panel.floor);
  const high = Math.log10(ticks.at(-1)[0]);
  const bottom = height - BOTTOM;
  const from = chart.now - shownS();
  return {
    width,
    height,
    bottom,
    ticks,
    from,
    x: (at) => GUTTER + ((at - from) / shownS()) * (width - GUTTER - RIGHT),
    y: (value) => bottom - ((Math.log10(Math.max(value, panel.floor)) - low) / (high - low)) * (bottom - TOP),
  };
}

const shown = () => SPANS.find(([seconds]) => seconds >= chart.now - (chart.points[0]?.[AT] ?? 0)) ?? SPANS.at(-1);
const shownS = () => shown()[0];
const highest = (column) => chart.points.reduce((most, point) => Math.max(most, point[column] ?? 0), 0);
const crisp = (value) => Math.round(value) + 0.5;
const round = (value) => Math.round(value * 10) / 10;

function grid({ width, height, bottom, ticks, from, x, y }) {
  const lines = ticks.map(([value]) => `M${GUTTER} ${crisp(y(value))}H${width - RIGHT}`).join("");
  const names = ticks.map(([value, name]) =>
    drawn("text", { x: GUTTER - 8, y: round(y(value) + 4), class: "of-y" }, name),
  );
  const [, wide, narrow] = shown();
  const isNarrow = width < 480;
  const times = (isNarrow ? narrow : wide).map((ago, n) => {
    const said = ago === 0 ? "now" : `${span(ago * MINUTE)}${n === 0 && !isNarrow ? " ago" : ""}`;
    return drawn(
      "text",
      {
        x: round(x(chart.now - ago * MINUTE)),
        y: height - 4,
        class: `of-x ${ago === 0 ? "end" : n === 0 ? "start" : "middle"}`,
      },
      said,
    );
  });
  return [
    drawn("path", { class: "grid", d: lines }),
    drawn("path", { class: "axis", d: `M${GUTTER} ${crisp(bottom)}H${width - RIGHT}` }),
    ...names,
    ...times,
  ];
}

function hatch(id) {
  const line = drawn("path", { d: "M0 6L6 0", class: "hatching" });
  return drawn(
    "defs",
    {},
    drawn("pattern", { id: `hatch-${id}`, width: 6, height: 6, patternUnits: "userSpaceOnUse" }, line),
  );
}

/** Where nothing was measured: before the first point, after the last one, and between two that are too far apart. */
function unknown(panel, { from, bottom, x }) {
  const seen = chart.points.filter(
    (point) => panel.columns.includes(MEDIAN) || known(point[LAG]) || known(point[STALENESS]),
  );
  const times = [from, ...seen.map((point) => point[AT]), chart.now];
  const holes = [];
  for (let n = 1; n < times.length; n++) {
    if (apart(times[n - 1], times[n])) holes.push([Math.max(from, times[n - 1]), times[n]]);
  }
  return holes.map(([start, end]) =>
    drawn("rect", {
      class: "hole",
      x: round(x(start)),
      y: TOP,
      width: round(Math.max(0, x(end) - x(start))),
      height: bottom - TOP,
      fill: `url(#hatch-${panel.id})`,
    }),
  );
}

const apart = (before, after) => after - before > Math.max(3, 2.6 * chart.interval);

/** Unbroken pieces of one column, as points of the drawing. Where it has no room for all, the worst of each few. */
function pieces(column, { x, y, width }) {
  const found = [];
  const room = width < 480 ? 4 : 0;
  let last = null;
  for (const point of chart.points) {
    if (!known(point[column])) {
      last = null;
      continue;
    }
    if (last === null || apart(last, point[AT])) found.push([]);
    const piece = found.at(-1);
    const here = [round(x(point[AT])), round(y(point[column]))];
    if (piece.length && here[0] - piece.at(-1)[0] < room) piece.at(-1)[1] = Math.min(piece.at(-1)[1], here[1]);
    else piece.push(here);
    last = point[AT];
  }
  return found;
}

const line = (found) =>
  found.map((piece) => `M${piece.map((xy) => xy.join(" ")).join("L")}${piece.length === 1 ? "h.1" : ""}`).join("");

function area(found, bottom) {
  return found
    .map(
      (piece) => `M${piece[0][0]} ${bottom}L${piece.map((xy) => xy.join(" ")).join("L")}L${piece.at(-1)[0]} ${bottom}Z`,
    )
    .join("");
}

function drawAge(scale) {
  const lag = pieces(LAG, scale);
  const limit = chart.limit && [
    drawn("path", { class: "limit", d: `M${GUTTER} ${crisp(scale.y(chart.limit))}H${scale.width - RIGHT}` }),
    drawn(
      "text",
      { class: "of-limit", x: GUTTER + 6, y: round(scale.y(chart.limit) - 6) },
      `stale above ${span(chart.limit)}`,
    ),
  ];
  return [
    drawn("path", { class: "lag-area", d: area(lag, scale.bottom) }),
    drawn("path", { class: "staleness-line", d: line(pieces(STALENESS, scale)) }),
    drawn("path", { class: "lag-line", d: line(lag) }),
    ...(limit || []),
  ];
}

function drawTakes({ x, y }) {
  const changes = chart.points.filter((point) => known(point[MEDIAN]));
  const spread = changes.filter((point) => known(point[SLOWEST]));
  return [
    drawn("path", {
      class: "spread",
      d: spread.map((p) => `M${round(x(p[AT]))} ${round(y(p[MEDIAN]))}V${round(y(p[SLOWEST]))}`).join(""),
    }),
    drawn("path", {
      class: "median",
      d: changes.map((p) => `M${round(x(p[AT]))} ${round(y(p[MEDIAN]))}h.01`).join(""),
    }),
  ];
}
