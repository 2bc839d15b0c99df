// How numbers and times are said. Nothing here knows the page.
const grouped = new Intl.NumberFormat("en");
const clockTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayAndTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

const [MINUTE, HOUR, DAY] = [60, 3600, 86400];
const LONGEST_TEXT = 600; // of a reason or an error: the whole of it is in the log

const known = (value) => typeof value === "number" && Number.isFinite(value);

function number(value) {
  return known(value) ? grouped.format(value) : "not known";
}

function many(count, one, more = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : more}`;
}

/** A length of time for a figure: 0.3 ms, 12 ms, 1.4 s, 3 min 20 s. */
function span(seconds) {
  if (!known(seconds)) return "not known";
  if (seconds <= 0) return "0 s";
  if (seconds < 0.00095) return "< 1 ms";
  if (seconds < 0.0095) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < MINUTE) return `${Math.round(seconds)} s`;
  if (seconds < HOUR) return two(seconds, MINUTE, "min", 1, "s");
  if (seconds < DAY) return two(seconds, HOUR, "h", MINUTE, "min");
  return two(seconds, DAY, "d", HOUR, "h");
}

function two(seconds, large, largeName, small, smallName) {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${largeName}${rest ? ` ${rest} ${smallName}` : ""}`;
}

/** A length of time within a sentence: 8 seconds, 4 minutes, 2 days. */
function spell(seconds) {
  if (seconds < 90) return many(Math.max(1, Math.round(seconds)), "second");
  if (seconds < 90 * MINUTE) return many(Math.round(seconds / MINUTE), "minute");
  if (seconds < 36 * HOUR) return many(Math.round(seconds / HOUR), "hour");
  return many(Math.round(seconds / DAY), "day");
}

function ago(seconds) {
  if (!known(seconds)) return "at a time not known";
  if (seconds < -1) return `in ${spell(-seconds)}`;
  return seconds < 1 ? "just now" : `${spell(seconds)} ago`;
}

function bytes(value) {
  if (!known(value)) return "not known";
  if (value < 1000) return `${value} B`;
  if (value < 1e6) return `${Math.round(value / 1000)} kB`;
  return value < 1e9 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e9).toFixed(1)} GB`;
}

/** Text of others, cut where it would bury the page. */
function clipped(text) {
  const said = String(text ?? "");
  return said.length > LONGEST_TEXT ? `${said.slice(0, LONGEST_TEXT)} …` : said;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const listed = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);
const key = (parts) =>
  parts
    .filter((part) => part !== null && part !== undefined)
    .map(String)
    .join(" / ");
