// The frame of the page: addresses such as #/m0/node/12/facts, the start page, the search box.

import { ask, currentModel, into, place, say, words } from "./api.js";
import { count, counted, el, typeMark } from "./dom.js";
import { formPage } from "./form.js";
import { nodePage } from "./node.js";
import { searchBox } from "./search.js";

const NAME = "Clinical drug discovery";
const main = document.getElementById("main");
const homes = new Map(); // what is known of each model, by its name
let page = null; // the node page that is shown, which can change its part without a new page

/** Return what is known of a model: its node types, its size, its new nodes. */
async function home(model = currentModel()) {
  if (!homes.has(model)) homes.set(model, ask("home", { model }));
  try {
    return await homes.get(model);
  } catch (error) {
    homes.delete(model);
    throw error;
  }
}

async function route() {
  const [, kind, ...rest] = words();
  const model = currentModel();
  document.getElementById("brand").href = place();
  document.getElementById("new-link").href = place("new");
  banner(model);
  if (kind === "node" && page?.model === model && page.number === rest[0]) {
    page.show(...rest.slice(1));
    return;
  }
  page = null;
  if (kind === "node") {
    page = { model, number: rest[0], show: () => {} };
    const mine = page;
    await into(main, () => Promise.all([home(), ask("node", { model, node: rest[0] })]),
      ([known, node]) => {
        const made = nodePage(known, node);
        mine.show = made.show;
        mine.show(...rest.slice(1));
        arrived(node.name);
        return made.parts;
      });
  } else if (kind === "new") {
    await into(main, () => home(), (known) => { arrived("New drug"); return formPage(known); });
  } else {
    await into(main, () => home(), (known) => { arrived(""); return startPage(known); });
  }
  const heading = main.querySelector("h1");
  if (heading && route.moved) heading.focus({ preventScroll: true });
  if (route.moved) window.scrollTo(0, 0);
  route.moved = true; // the first page leaves the focus at the top
}

function arrived(title) {
  document.title = title ? `${title} · ${NAME}` : NAME;
  if (title) say(title);
}

async function banner(model) {
  const box = document.getElementById("banner");
  if (model === "m0") {
    box.replaceChildren();
    return;
  }
  const known = await home(model).catch(() => ({ new: [] }));
  if (model !== currentModel()) return;
  const links = known.new.map((one) =>
    el("a", { href: place("node", one.node) }, `${one.name} (${counted(one.facts, "fact")})`));
  box.replaceChildren(el("p", { class: "banner" },
    links.length ? "All answers now include what you have added: " : null,
    links.flatMap((link, at) => [at ? ", " : "", link]), links.length ? ". " : null,
    el("a", { href: "#/m0" }, "Back to the model as it was")));
}

function startPage(known) {
  const types = Object.entries(known.counts).sort((a, b) => b[1] - a[1]);
  const list = (title, nodes, text, thing) => el("section", { class: "card" },
    el("h2", {}, title), el("p", { class: "quiet" }, text),
    el("ul", { class: "plain" }, nodes.map((one) => el("li", {},
      el("a", { href: place("node", one.node) }, one.name),
      el("span", { class: "quiet small" }, counted(one[`${thing}s`], thing))))));
  return [
    el("h1", { tabindex: "-1" }, "Explore the graph and its rankings"),
    el("p", { class: "lead" },
      "Search for a drug, a disease, a gene or any other node by name, synonym or identifier. ",
      "A disease shows its ranked drugs, a drug its ranked diseases, and each rank its reasons."),
    known.no_ranks ? el("p", { class: "error" }, `Nothing is ranked: ${known.no_ranks}`) : null,
    el("div", { class: "cards" },
      list("Diseases", known.diseases, "with the most known treatments", "treatment"),
      list("Drugs", known.drugs, "with the most facts", "fact"),
      el("section", { class: "card" },
        el("h2", {}, "The graph"),
        el("p", { class: "quiet" }, `${count(known.nodes)} nodes, ${count(known.facts)} facts`),
        el("ul", { class: "plain" }, types.map(([type, size]) => el("li", {},
          typeMark(type), el("span", { class: "quiet small" }, count(size))))))),
  ].filter(Boolean);
}

document.getElementById("search").append(searchBox({
  label: "Search",
  hint: "Drug, disease, gene, … or identifier",
  model: currentModel,
  chosen: (node) => { location.hash = place("node", node.node); },
}));
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address belongs to the pages
  main.focus();
});
window.addEventListener("hashchange", route);
route();
