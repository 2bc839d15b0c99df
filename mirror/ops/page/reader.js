// Pointing at a moment of the charts, by mouse, finger or keyboard, and what was measured then.
function pointer(panel, { x, y, bottom }) {
  if (chart.chosen === null) return [];
  const point = measured(chart.chosen);
  const at = x(point?.[AT] ?? chart.chosen);
  const marks = panel.columns
    .filter((column) => known(point?.[column]))
    .map((column) => drawn("circle", { class: `mark of-${column}`, cx: round(at), cy: round(y(point[column])), r: 4 }));
  return [drawn("path", { class: "pointer", d: `M${crisp(at)} ${TOP}V${bottom}` }), ...marks];
}

/** The point nearest to a moment; none within a hole. */
function measured(at) {
  const distance = (point) => Math.abs(point[AT] - at);
  const near = chart.points.filter((point) => !apart(0, distance(point)));
  return near.sort((a, b) => distance(a) - distance(b))[0];
}

/** The read-out, which is the legend as well. */
function describe() {
  const point = chart.chosen === null ? chart.points.at(-1) : measured(chart.chosen);
  const time = clockTime.format((point?.[AT] ?? chart.chosen ?? chart.now) * 1000);
  const at = !point ? `${time}: nothing measured` : `${time}${chart.chosen === null ? " (newest)" : ""}`;
  const value = (column, none) => (known(point?.[column]) ? span(point[column]) : point ? none : "not known");
  const entry = (name, title, said) =>
    element("span", { class: "entry" }, element("i", { class: `swatch ${name}` }), `${title} `, element("b", {}, said));
  show(
    "read-age",
    element("span", { class: "at" }, at),
    entry("staleness", "staleness", value(STALENESS, "not known")),
    entry("lag", "lag", value(LAG, "not known")),
  );
  show(
    "read-takes",
    entry("median", "median", value(MEDIAN, "no change")),
    entry("slowest", "slowest", value(SLOWEST, "no change")),
    entry("rows", "rows applied", number(point?.[ROWS])),
  );
  tellSlider(at, value);
}

function tellSlider(at, value) {
  const slider = byId("charts");
  const minutes = chart.chosen === null ? 0 : Math.round((chart.chosen - chart.now) / MINUTE);
  slider.setAttribute("aria-valuenow", Math.max(-KEPT_S / MINUTE, minutes));
  slider.setAttribute(
    "aria-valuetext",
    `${at}: staleness ${value(STALENESS, "not known")}, lag ${value(LAG, "not known")}, ` +
      `a change took ${value(MEDIAN, "no change")}`,
  );
}

function choose(at) {
  chart.chosen = at;
  drawCharts();
}

function listenToReader() {
  const charts = byId("charts");
  const under = (event) => {
    const { left, width } = charts.getBoundingClientRect();
    const share = (event.clientX - left - GUTTER) / (width - GUTTER - RIGHT);
    choose(chart.now - shownS() * (1 - Math.min(1, Math.max(0, share))));
  };
  charts.addEventListener("pointermove", under);
  charts.addEventListener("pointerdown", under);
  charts.addEventListener("pointerleave", ({ pointerType }) => {
    if (pointerType === "mouse") choose(null); // a finger leaves as soon as it has tapped
  });
  charts.addEventListener("blur", () => choose(null));
  charts.addEventListener("keydown", (event) => {
    const from = chart.chosen ?? chart.now;
    const far = event.shiftKey ? MINUTE : 2 * chart.interval;
    const to = {
      ArrowLeft: from - far,
      ArrowRight: from + far,
      Home: chart.points[0]?.[AT] ?? null,
      End: null,
      Escape: null,
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    const at = to[event.key];
    choose(at === null || at >= chart.now ? null : Math.max(chart.now - shownS(), at));
  });
  new ResizeObserver(drawCharts).observe(charts);
}
