// The form for a new drug (or another node): a name and facts. The model then ranks it at once.

import { ask, currentModel, place, say, send, whileWaiting } from "./api.js";
import { el, typeName } from "./dom.js";
import { searchBox } from "./search.js";

/** Return the page with the form. */
export function formPage(known) {
  const model = currentModel();
  let type = known.drug_type;
  let relations = [];
  const facts = [];

  const name = el("input", { id: "new-name", type: "text", maxlength: "200", required: true, autocomplete: "off" });
  const types = el("select", { id: "new-type", onchange: (event) => { type = event.target.value; facts.length = 0; load(); } },
    [known.drug_type, known.disease_type].map((one) =>
      el("option", { value: one, selected: one === type }, typeName(one))));
  const relation = el("select", { id: "new-relation" });
  const list = el("ul", { class: "added" });
  const message = el("p", { class: "error", role: "alert" });
  const submit = el("button", { type: "submit", class: "button strong" }, "Add and rank");
  const search = searchBox({
    label: "The other node of the fact",
    showLabel: true,
    hint: "Name or identifier",
    model: () => model,
    types: () => [relations[relation.value]?.type].filter(Boolean),
    chosen: (node, input) => { addFact(node); input.focus(); },
  });

  async function load() {
    relations = await ask("relations", { model, type }).catch(() => []);
    // Targets first: they say the most about a new drug.
    const order = relations.map((one, at) => at).sort((a, b) => rank(relations[a]) - rank(relations[b]));
    relation.replaceChildren(...order.map((at) =>
      el("option", { value: String(at) }, `${relations[at].phrase} … (${typeName(relations[at].type)})`)));
    draw();
  }

  function rank(one) {
    return /gene|protein/i.test(one.type) ? 0 : [known.drug_type, known.disease_type].includes(one.type) ? 2 : 1;
  }

  function addFact(node) {
    const chosen = relations[relation.value];
    const twice = facts.some((one) => one.node === node.node && one.relation === chosen.relation);
    if (twice) {
      say(`${node.name} is in the list already`);
      return;
    }
    facts.push({ relation: chosen.relation, phrase: chosen.phrase, node: node.node, name: node.name });
    say(`Fact added: ${chosen.phrase} ${node.name}`);
    message.textContent = "";
    draw();
  }

  function draw() {
    list.replaceChildren(...facts.map((fact, at) => el("li", {},
      el("span", {}, el("span", { class: "quiet" }, `${fact.phrase} `), fact.name),
      el("button", {
        type: "button", class: "button light square", "aria-label": `Remove: ${fact.phrase} ${fact.name}`,
        onclick: () => {
          facts.splice(at, 1);
          draw();
          (list.querySelectorAll("button")[Math.max(0, at - 1)] ?? search.querySelector("input")).focus();
        },
      }, "×"))));
    if (!facts.length) list.append(el("li", { class: "quiet" }, "No facts yet. Choose a relation, then search for the other node."));
  }

  async function add(event) {
    event.preventDefault();
    message.textContent = "";
    if (!name.value.trim()) return fail("Give the new node a name.", name);
    if (!facts.length) return fail("Add at least one fact.", search.querySelector("input"));
    submit.disabled = true;
    const done = whileWaiting((part) => { submit.textContent = part; });
    submit.textContent = "Adding";
    try {
      const record = { name: name.value, type, facts: facts.map(({ relation: one, node }) => ({ relation: one, node })) };
      const made = await send("add", { model }, record);
      location.hash = `#/${made.model}/node/${made.node}`;
    } catch (error) {
      fail(error.message, name);
    } finally {
      done();
      submit.disabled = false;
      submit.textContent = "Add and rank";
    }
    return undefined;
  }

  function fail(text, field) {
    message.textContent = text;
    field.focus();
  }

  load();
  return [
    el("h1", { tabindex: "-1" }, "Add a new drug and rank it"),
    el("p", { class: "lead" },
      "State what is known about it, such as the proteins it binds. The model places it in the graph and ranks it without a training. ",
      "The files of the model do not change, and the page forgets the drug when it ends."),
    el("form", { class: "card form", onsubmit: add, novalidate: true },
      el("div", { class: "field" }, el("label", { for: "new-type" }, "Kind"), types),
      el("div", { class: "field" }, el("label", { for: "new-name" }, "Name"), name),
      el("fieldset", {}, el("legend", {}, "Facts"),
        el("div", { class: "fact-row" },
          el("div", { class: "field" }, el("label", { for: "new-relation" }, "It …"), relation),
          el("div", { class: "field grow" }, search)),
        list),
      message, submit),
  ];
}
