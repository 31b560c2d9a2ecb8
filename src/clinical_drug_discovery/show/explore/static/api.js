// Questions to the server of this page. All addresses are relative to the page's own.

import { el } from "./dom.js";

const SLOW = 350; // milliseconds after which the page says what the server does
const EACH = 700; // milliseconds between two looks at the progress

/** Return the address of a page of the current model. */
export function place(...parts) {
  return `#/${[currentModel(), ...parts].map(encodeURIComponent).join("/")}`;
}

/** Return the name of the model in the address. */
export function currentModel() {
  return words()[0] || "m0";
}

/** Return the parts of the page's address. */
export function words() {
  return location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
}

/** Return the relative address of a question. */
export function address(question, parameters = {}) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) given.append(name, one);
  }
  return `api/${question}?${given}`;
}

async function answerOf(response) {
  if (response.ok) return response;
  const found = await response.json().catch(() => ({}));
  throw new Error(found.error ?? `The server answered with status ${response.status}.`);
}

async function request(where, options) {
  try {
    return await answerOf(await fetch(where, options));
  } catch (error) {
    if (error instanceof TypeError) {
      throw new Error("The page's server does not answer. Is cdd explore still running?");
    }
    throw error;
  }
}

/** Return the answer to a question. */
export async function ask(question, parameters, signal) {
  return (await request(address(question, parameters), { signal })).json();
}

/** Return the bytes of an answer. */
export async function askBytes(question, parameters, signal) {
  return (await request(address(question, parameters), { signal })).arrayBuffer();
}

/** Send a record, and return the answer. */
export async function send(question, parameters, record) {
  return (await request(address(question, parameters), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(record),
  })).json();
}

/** Tell people who do not see the page what has changed. */
export function say(text) {
  document.getElementById("live").textContent = text;
}

/** Call `show` with the part of the work that the server does, until the result is called. */
export function whileWaiting(show) {
  const look = async () => {
    const { part } = await ask("progress").catch(() => ({}));
    if (part && timer) show(part);
  };
  let timer = setInterval(look, EACH);
  look();
  return () => {
    clearInterval(timer);
    timer = null;
  };
}

/** Show the answer of `work` in a box; until then, the progress; in the end, perhaps an error. */
export async function into(box, work, draw) {
  const mine = {};
  box.work = mine; // a later call for the same box replaces this one
  box.setAttribute("aria-busy", "true");
  const waiting = el("p", { class: "waiting" }, el("span", { class: "spinner" }), "Working");
  let done = () => {};
  const slow = setTimeout(() => {
    if (box.work !== mine) return;
    box.replaceChildren(waiting);
    done = whileWaiting((part) => { waiting.lastChild.textContent = part; });
  }, SLOW);
  try {
    const answer = await work();
    if (box.work === mine) box.replaceChildren(...[draw(answer)].flat());
  } catch (error) {
    if (error.name !== "AbortError" && box.work === mine) {
      box.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
    }
  } finally {
    clearTimeout(slow);
    done();
    if (box.work === mine) box.removeAttribute("aria-busy");
  }
}
