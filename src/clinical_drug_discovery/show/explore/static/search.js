// The search box: a combobox with suggestions while typing (WAI-ARIA pattern "combobox").

import { ask } from "./api.js";
import { el, typeMark } from "./dom.js";

const PAUSE = 60; // milliseconds without a key before the server is asked
let boxes = 0;

/**
 * Return a labelled search box.
 *
 * options: label; hint; model() returns the name of the model; types() returns node types or null;
 * chosen(node, input) is called with the choice.
 */
export function searchBox({ label, hint, model, types, chosen, showLabel = false }) {
  const id = `search-${(boxes += 1)}`;
  let found = [];
  let active = -1;
  let asked = 0;
  let timer = null;
  let pending = null; // a key before the suggestions have come: the number asked, and what it does

  const input = el("input", {
    id, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false",
    "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": `${id}-list`,
    placeholder: hint, oninput: type, onkeydown: key, onblur: close, onfocus: type,
  });
  const list = el("ul", { id: `${id}-list`, role: "listbox", "aria-label": `${label}: suggestions` });
  const note = el("div", { class: "unseen", role: "status", "aria-live": "polite" });
  list.hidden = true;

  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function type() {
    clearTimeout(timer);
    asked += 1;
    found = [];
    if (!input.value.trim()) {
      note.textContent = "";
      close();
      return;
    }
    timer = setTimeout(look, PAUSE, asked);
  }

  async function look(number) {
    const parameters = { text: input.value.trim(), model: model() };
    const wanted = types ? types() : null;
    if (wanted) parameters.type = wanted;
    const answer = await ask("search", parameters).catch(() => []);
    if (number !== asked) return;
    found = answer;
    draw();
    if (pending?.number === number && found.length) pending.act();
    pending = null;
  }

  function draw() {
    active = -1;
    list.replaceChildren(...found.map((one, at) => el("li", {
      id: `${id}-${at}`, role: "option", "aria-selected": "false",
      onmousedown: (event) => { event.preventDefault(); choose(one); }, // also if newer ones are asked
    },
    el("span", { class: "option-name" }, one.name),
    one.synonym ? el("span", { class: "option-synonym" }, `also: ${one.synonym}`) : null,
    el("span", { class: "option-id" }, one.id),
    typeMark(one.type))));
    if (!found.length) list.append(el("li", { class: "nothing", role: "option", "aria-disabled": "true" }, "No node has such a name"));
    note.textContent = found.length ? `${found.length} suggestions` : "No node has such a name";
    list.hidden = document.activeElement !== input;
    input.setAttribute("aria-expanded", String(!list.hidden));
    input.removeAttribute("aria-activedescendant");
  }

  function mark(at) {
    active = (at + found.length) % found.length;
    [...list.children].forEach((one, i) => one.setAttribute("aria-selected", String(i === active)));
    list.children[active].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", `${id}-${active}`);
  }

  function choose(one) {
    asked += 1; // an answer that is under way is too late
    found = [];
    input.value = "";
    close();
    chosen(one, input);
  }

  function move(down) {
    if (list.hidden) draw();
    mark(active < 0 ? (down ? 0 : found.length - 1) : active + (down ? 1 : -1));
  }

  function soon(act) {
    if (found.length) act();
    else if (input.value.trim()) pending = { number: asked, act };
  }

  function key(event) {
    if (event.key === "Escape") {
      if (list.hidden) input.value = "";
      close();
    } else if (event.key === "Enter") {
      event.preventDefault();
      soon(() => choose(found[Math.max(active, 0)]));
    } else if (["ArrowDown", "ArrowUp"].includes(event.key)) {
      event.preventDefault();
      soon(() => move(event.key === "ArrowDown"));
    }
  }

  return el("div", { class: "combobox" },
    el("label", { for: id, class: showLabel ? "" : "unseen" }, label), input, list, note);
}
