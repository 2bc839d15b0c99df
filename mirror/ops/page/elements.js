// Elements are made from names and texts, never from markup: whatever a row or an error carries stays text.
const SVG = "http://www.w3.org/2000/svg";

// Each verdict has a shape of its own, so that nobody has to tell colours apart: an outline and a sign upon it.
const SHAPES = {
  good: ["M12 1a11 11 0 1 0 0 22a11 11 0 0 0 0-22z", "M6.7 12.5l3.7 3.7l7-7.6"],
  stale: ["M12 2L23 21.5H1z", "M12 9v5.6M12 18.2v.1"],
  loading: ["M2 2h20v20H2z", "M8 6.5h8L8 17.5h8z"],
  standby: ["M6.5 2h11l5.5 10l-5.5 10h-11L1 12z", "M9.5 8v8M14.5 8v8"],
  unknown: ["M12 .8L23.2 12L12 23.2L.8 12z", "M9.2 9.3a2.9 2.9 0 1 1 4.3 2.6c-1 .5-1.5 1.1-1.5 2.2M12 17.4v.1"],
  bad: ["M7.4 1h9.2L23 7.4v9.2L16.6 23H7.4L1 16.6V7.4z", "M8.2 8.2l7.6 7.6M15.8 8.2l-7.6 7.6"],
};

const byId = (id) => document.getElementById(id);

function element(name, attributes, ...children) {
  return furnished(document.createElement(name), attributes, children);
}

function drawn(name, attributes, ...children) {
  return furnished(document.createElementNS(SVG, name), attributes, children);
}

function furnished(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const paragraph = (...said) => element("p", {}, ...said);
const detail = (...said) => element("p", { class: "detail" }, ...said);
const bold = (...said) => element("strong", {}, ...said);
const code = (...said) => element("code", {}, ...said);
const item = (...said) => element("li", {}, ...said);

function shape(name) {
  const [outline, sign] = SHAPES[name];
  const parts = [drawn("path", { class: "outline", d: outline }), drawn("path", { class: "sign", d: sign })];
  return drawn("svg", { class: "shape", viewBox: "0 0 24 24", "aria-hidden": "true" }, parts);
}

/** Text of others: kept apart, so that it cannot turn the direction of what stands around it. */
function foreign(text, name = "span") {
  return element(name, { class: "foreign" }, clipped(text));
}

function moment(at, now) {
  if (!known(at)) return "at a time not known";
  return element("time", { title: dayAndTime.format(at * 1000) }, ago(now - at));
}

/** Makes what stands in a place equal to this, and touches only what differs: a selection, the focus and an opened
 *  detail survive, and a screen reader is not told the same again. */
function show(id, ...children) {
  patchChildren(byId(id), element("div", {}, ...children).childNodes);
}

function patchChildren(parent, children) {
  const present = [...parent.childNodes];
  const wanted = [...children];
  wanted.forEach((node, n) => (n < present.length ? patch(present[n], node) : parent.append(node)));
  present.slice(wanted.length).forEach((node) => node.remove());
}

function patch(present, wanted) {
  if (present.nodeName !== wanted.nodeName) {
    present.replaceWith(wanted);
  } else if (present.nodeType === Node.TEXT_NODE) {
    if (present.data !== wanted.data) present.data = wanted.data;
  } else {
    patchAttributes(present, wanted);
    patchChildren(present, wanted.childNodes);
  }
}

function patchAttributes(present, wanted) {
  for (const { name } of [...present.attributes]) {
    if (!wanted.hasAttribute(name) && name !== "open") present.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (present.getAttribute(name) !== value) present.setAttribute(name, value);
  }
}
