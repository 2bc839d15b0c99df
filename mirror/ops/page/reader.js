// Pointing at a moment of the charts, by mouse, finger or keyboard, and what was measured then.
function pointer(panel, { x, y, bottom }) {
  const point = chart.chosen === null ? null : nearest(chart.chosen);
  if (!point) return [];
  const marks = panel.columns
    .filter((column) => known(point[column]))
    .map((column) =>
      drawn("circle", { class: `mark of-${column}`, cx: round(x(point[AT])), cy: round(y(point[column])), r: 4 }),
    );
  return [drawn("path", { class: "pointer", d: `M${crisp(x(point[AT]))} ${TOP}V${bottom}` }), ...marks];
}

function nearest(at) {
  let best = null;
  for (const point of chart.points) {
    if (best === null || Math.abs(point[AT] - at) < Math.abs(best[AT] - at)) best = point;
  }
  return best;
}

/** The read-out, which is the legend as well. */
function describe() {
  const point = chart.chosen === null ? chart.points.at(-1) : nearest(chart.chosen);
  const at = point
    ? `${clockTime.format(point[AT] * 1000)}${chart.chosen === null ? " (newest)" : ""}`
    : "nothing measured yet";
  const value = (column, none) => (point && known(point[column]) ? span(point[column]) : none);
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
    entry("rows", "rows applied", point ? number(point[ROWS]) : "0"),
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
