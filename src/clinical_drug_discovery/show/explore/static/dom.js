// Elements of the page. Texts become text nodes, so a name is never read as markup.

const SVG = "http://www.w3.org/2000/svg";
const KNOWN_TYPES = [
  ["drug", "drug"], ["compound", "drug"], ["disease", "disease"], ["gene", "gene"],
  ["protein", "gene"], ["effect", "effect"], ["phenotype", "effect"], ["symptom", "effect"],
  ["pathway", "pathway"], ["process", "process"], ["anatomy", "anatomy"],
];

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined));
  return element;
}

/** Return a new element; attributes that begin with "on" are listeners. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return a new element of an SVG picture. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Return the class of a node type's colour; the text beside it always names the type, too. */
export function typeClass(type) {
  const found = KNOWN_TYPES.find(([part]) => type.toLowerCase().includes(part));
  return `type-${found ? found[1] : "other"}`;
}

/** Return the name of a node type in words. */
export function typeName(type) {
  return type.replaceAll("_", " ");
}

/** Return a mark in the colour of a node type, with the name of the type. */
export function typeMark(type) {
  return el("span", { class: `mark ${typeClass(type)}` }, typeName(type));
}

/** Return a number with separators, such as 1,234. */
export function count(number) {
  return number.toLocaleString("en");
}

/** Return a number of things in words, such as "1 fact" or "12 facts". */
export function counted(number, thing) {
  return `${count(number)} ${thing}${number === 1 ? "" : "s"}`;
}

/** Return a probability as a percentage that keeps small values apart. */
export function percent(value) {
  const whole = value * 100;
  if (whole >= 10) return `${whole.toFixed(0)}%`;
  if (whole >= 1) return `${whole.toFixed(1)}%`;
  return whole >= 0.01 ? `${whole.toFixed(2)}%` : "<0.01%";
}

/** Return a bar for a value from 0 to 1, beside the text that states it. */
export function bar(value, text, kind = "") {
  const inner = el("span", { class: "bar-fill" });
  inner.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
  return el("span", { class: `bar ${kind}` },
    el("span", { class: "bar-text" }, text),
    el("span", { class: "bar-track", "aria-hidden": "true" }, inner));
}

/** Return the mark of a contraindication; the words say it without the colour. */
export function warningMark(...text) {
  return el("span", { class: "harm" }, el("span", { "aria-hidden": "true" }, "⚠ "), text);
}
