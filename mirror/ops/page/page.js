// Asks the daemon every two seconds and shows what it says. When it does not answer, the page says so in its largest
// letters and stops claiming anything: what stands below is from then on labelled with its age.
const ASK_EVERY_MS = 2000;
const ASK_EVERY_HIDDEN_MS = 15_000;
const ANSWER_WITHIN_MS = 4000;
const OLD_AFTER_MS = 2 * ASK_EVERY_MS + ANSWER_WITHIN_MS; // a tab that slept: nobody has asked for so long

const heard = { status: null, at: 0, trouble: "", since: performance.now() };
let timer = null;
let asking = false;

async function ask() {
  if (asking) return;
  asking = true;
  try {
    hear(await reply());
    heard.trouble = "";
  } catch (error) {
    heard.trouble = error instanceof Unintelligible ? error.message : "";
    heard.silent = true;
  } finally {
    asking = false;
  }
  render();
  clearTimeout(timer);
  timer = setTimeout(ask, document.hidden ? ASK_EVERY_HIDDEN_MS : ASK_EVERY_MS);
}

class Unintelligible extends Error {}

async function reply() {
  const since = chart.points.length ? `?since=${chart.points.at(-1)[AT]}` : "";
  const answer = await fetch(`api/status${since}`, {
    cache: "no-store",
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
  });
  const status = await answer.json().catch(() => null);
  if (typeof status?.verdict !== "string" || !known(status.now)) {
    throw new Unintelligible(`Something answers here (${answer.status}), but not with the status of the daemon.`);
  }
  return status;
}

function hear(status) {
  Object.assign(heard, { status, at: performance.now(), silent: false });
  if (status.now < chart.points.at(-1)?.[AT]) chart.points = []; // another daemon, whose clock is behind
  const newest = chart.points.at(-1)?.[AT] ?? -Infinity;
  chart.points.push(...(status.history?.points ?? []).filter((point) => point[AT] > newest));
  chart.points = chart.points.filter((point) => point[AT] > status.now - KEPT_S);
  chart.interval = status.history?.interval_seconds ?? chart.interval;
  chart.limit = known(status.stale_after_seconds) ? status.stale_after_seconds : null;
  chart.now = status.now;
}

/** The daemon's clock as of now: the one of whoever looks may be wrong. */
const clock = () => heard.status.now + age();
const age = () => (performance.now() - heard.at) / 1000;

function verdict() {
  if (heard.silent) return "silent";
  if (!heard.status || age() * 1000 > OLD_AFTER_MS) return "asking";
  return heard.status.verdict in VERDICTS ? heard.status.verdict : "unknown";
}

function render() {
  renderVerdict(verdict());
  if (!heard.status) return;
  const { status } = heard;
  byId("shown").hidden = false;
  byId("version").textContent = status.version ?? "";
  byId("reasons").hidden = !status.doubts?.length;
  show("reasons", status.doubts?.length ? doubts(status.doubts) : null);
  show("figures", figures(status, chart.points));
  show("way", way(status));
  renderCopy(status);
  show("parked", parked(status.parked, clock()));
  show("drift", drift(status.drift, clock()));
  show("errors", errors(status.errors, clock()));
  drawCharts();
}

function renderCopy(status) {
  show("proof", proof(status, clock()));
  show("tables", tables(status));
  show("work", work(followed && status.resync?.id === followed.id ? null : status.resync));
  byId("open-resync").disabled = !status.resync_allowed;
  byId("no-resync").hidden = Boolean(status.resync_allowed);
}

function renderVerdict(name) {
  const { word, tone, shape: form } = VERDICTS[name];
  const live = !["silent", "asking"].includes(name);
  document.body.dataset.tone = tone;
  document.body.classList.toggle("old", !live);
  show("sign", shape(form));
  byId("word").textContent = word;
  byId("sentence").textContent = live ? (heard.status.words?.sentence ?? "") : silence(name);
  byId("meaning").textContent = live ? (heard.status.words?.meaning ?? "") : remains();
  announce(word, live);
  renderAge();
}

function silence(name) {
  if (name === "asking") return heard.status ? "Nobody looked for a while." : "The daemon has not answered yet.";
  return (
    heard.trouble || (heard.status ? `The daemon has not answered for ${spell(age())}.` : "The daemon does not answer.")
  );
}

function remains() {
  if (!heard.status) return heard.silent ? "Is it running? Its log says why, when it is not." : "";
  const from = clockTime.format(heard.status.now * 1000);
  return `What is shown below is ${spell(age())} old, from ${from}. How fresh the copy is now is not known.`;
}

/** A screen reader hears the verdict when it changes, not twice a second; the tab's title and icon say it as well. */
function announce(word, live) {
  const said = live ? `${word}. ${heard.status.ready ? "" : "Not ready."}`.trim() : `${word}.`;
  if (byId("spoken").textContent !== said) byId("spoken").textContent = said;
  document.title = `${word} · permission mirror`;
  const colour = getComputedStyle(document.body).getPropertyValue("--tone").trim();
  const [outline, sign] = SHAPES[VERDICTS[verdict()].shape];
  const drawing =
    `<svg xmlns="${SVG}" viewBox="0 0 24 24" fill="${colour}"><path d="${outline}"/>` +
    `<path d="${sign}" fill="none" stroke="#fff" stroke-width="2.6"/></svg>`;
  const address = `data:image/svg+xml,${encodeURIComponent(drawing)}`;
  if (byId("icon").href !== address) byId("icon").href = address;
}

function renderAge() {
  byId("heard").textContent = heard.status ? `heard ${age() < 1.5 ? "just now" : ago(age())}` : "";
}

function tick() {
  if (["silent", "asking"].includes(verdict())) renderVerdict(verdict());
  else renderAge();
}

listenToReader();
listenToOperator();
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  tick();
  clearTimeout(timer);
  ask();
});
setInterval(tick, 1000);
render();
ask();
