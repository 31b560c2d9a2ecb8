// The page of a node: its identifier, and tabs with ranks, facts, similar nodes and a network.

import { ask, currentModel, into, place } from "./api.js";
import { count, counted, el, typeMark, typeName } from "./dom.js";
import { networkOf } from "./network.js";
import { ranksTab } from "./ranks.js";
import { similarTab } from "./similar.js";

const MORE = 100; // neighbors that one click adds

/** Return the parts of the page, and a function that shows a tab. */
export function nodePage(known, node) {
  const ranked = [known.drug_type, known.disease_type].includes(node.type) && !known.no_ranks;
  const isDrug = node.type === known.drug_type;
  const tabs = [
    ...(ranked ? [{ name: "ranks", title: isDrug ? "Ranked diseases" : "Ranked drugs" }] : []),
    { name: "facts", title: "Facts" },
    { name: "similar", title: "Similar" },
    { name: "network", title: "Network" },
  ];
  const panels = new Map();
  const panel = el("div", { role: "tabpanel", id: "panel", tabindex: "-1" });
  const links = tabs.map(({ name, title }) => el("a", {
    role: "tab", id: `tab-${name}`, "aria-controls": "panel", "aria-selected": "false",
    tabindex: "-1", href: place("node", node.node, name),
    onkeydown: (event) => move(event, name),
  }, title));

  function move(event, name) {
    const at = tabs.findIndex((one) => one.name === name);
    const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 };
    if (event.key === " ") steps[" "] = at;
    if (!(event.key in steps)) return;
    event.preventDefault();
    const next = links[(steps[event.key] + tabs.length) % tabs.length];
    next.focus();
    location.replace(next.href);
  }

  function show(name, other) {
    const chosen = tabs.some((one) => one.name === name) ? name : tabs[0].name;
    for (const link of links) {
      const selected = link.id === `tab-${chosen}`;
      link.setAttribute("aria-selected", String(selected));
      link.tabIndex = selected ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `tab-${chosen}`);
    if (!panels.has(chosen)) panels.set(chosen, makeTab(chosen));
    const tab = panels.get(chosen);
    if (panel.firstChild !== tab.box) panel.replaceChildren(tab.box);
    tab.show?.(other);
  }

  function makeTab(name) {
    if (name === "ranks") return ranksTab(known, node, isDrug);
    if (name === "similar") return similarTab(known, node);
    if (name === "network") return networkTab(node);
    return { box: factsTab(node) };
  }

  const parts = [
    el("div", { class: "title" },
      el("h1", { tabindex: "-1" }, node.name),
      el("p", { class: "facts-line" }, typeMark(node.type),
        node.links.map(({ text, url }) => (url
          ? el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, text,
            el("span", { class: "unseen" }, " (opens another site)"))
          : el("span", {}, text))),
        el("span", { class: "quiet" }, counted(node.facts, "fact")))),
    el("div", { role: "tablist", class: "tabs", "aria-label": `About ${node.name}` }, links),
    panel,
  ];
  return { parts, show };
}

function factsTab(node) {
  if (!node.groups.length) return el("p", {}, "The graph does not have facts about this node.");
  const order = node.nearest ? null : el("p", { class: "quiet small" },
    "The facts are in the order of the graph, because the model has not computed the embeddings yet.");
  return el("div", {}, order, el("div", { class: "groups" }, node.groups.map((group) => {
    const list = el("ul", { class: "chips" }, group.nodes.map(chip));
    const section = el("section", { class: "card group" },
      el("h2", {}, group.phrase, " ", el("span", { class: "quiet" },
        count(group.count))),
      el("p", { class: "quiet small" }, `${typeName(group.type)}; relation ${group.relation}`),
      list);
    let shown = group.nodes.length;
    const more = el("button", { type: "button", class: "button light", onclick: load });
    const label = () => {
      more.textContent = `Show ${Math.min(MORE, group.count - shown)} more`;
      more.hidden = shown >= group.count;
    };
    async function load() {
      more.disabled = true;
      const found = await ask("facts", {
        model: currentModel(), node: node.node, relation: group.relation, type: group.type,
        start: shown, stop: shown + MORE, nearest: node.nearest ? 1 : 0,
      }).catch(() => []);
      list.append(...found.map(chip));
      const first = list.children[shown];
      shown += found.length;
      more.disabled = false;
      label();
      first?.querySelector("a").focus();
    }
    label();
    section.append(more);
    return section;
  })));
}

function chip(one) {
  return el("li", {}, el("a", { href: place("node", one.node), title: one.id }, one.name));
}

function networkTab(node) {
  const box = el("div", {});
  into(box, () => ask("neighbors", { model: currentModel(), node: node.node, limit: 12 }),
    (found) => networkOf({
      nodes: [{ ...node, place: 0.5 }, ...found.nodes],
      edges: found.edges,
      title: `Neighbors of ${node.name}`,
    }));
  return { box };
}
