// The reasons for a drug in a disease: what the graph states, sentences, and a network of both.

import { place } from "./api.js";
import { count, el, percent, typeClass, warningMark } from "./dom.js";
import { networkOf } from "./network.js";

const KINDS = {
  mechanism: ["Mechanism", "The drug acts on genes or pathways of the disease."],
  "similar drug": ["Similar drugs", "Drugs that resemble this one treat the disease."],
  "related disease": ["Related diseases", "The drug treats diseases that resemble this one."],
};

/** Return the elements of the panel. */
export function whyPanel(found, back) {
  const { drug, disease, listed } = found;
  const kinds = [...new Set(found.evidence.map((one) => one.kind))];
  const link = (node) => el("a", { class: typeClass(node.type), href: place("node", node.node) }, node.name);
  return [
    el("a", { class: "back", href: back }, "← Back to the list"),
    el("h2", {}, "Why ", link(drug), " for ", link(disease), "?"),
    listed
      ? el("dl", { class: "figures" },
        figure("Rank among drugs", `${count(listed.rank)} of ${count(found.candidates)}`),
        figure("Probability", percent(listed.probability)),
        figure("Known treatment", listed.known ? "yes" : "no"))
      : el("p", { class: "quiet" }, "The drug is not ranked for this disease."),
    found.stated.length
      ? el("section", {}, el("h3", {}, "The graph states"),
        el("ul", { class: "sentences" }, found.stated.map((one) => el("li", {},
          one.harms ? warningMark(linked(one.pieces)) : linked(one.pieces)))))
      : null,
    ...kinds.map((kind) => kindSection(kind, found.evidence.filter((one) => one.kind === kind))),
    found.evidence.length ? null : el("p", {}, "No path in the graph speaks for this drug."),
    found.note ? el("p", { class: "note" }, found.note) : null,
    found.network.edges.length
      ? el("section", {}, el("h3", {}, "The evidence as a network"),
        networkOf({
          ...found.network, title: `Evidence for ${drug.name} in ${disease.name}`, layered: true,
        }))
      : null,
  ].filter(Boolean);
}

function figure(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value));
}

function kindSection(kind, paths) {
  const [title, text] = KINDS[kind] ?? [kind, ""];
  return el("section", {},
    el("h3", {}, title),
    el("p", { class: "quiet small" }, text),
    el("ul", { class: "sentences" }, paths.map((path) => el("li", {}, linked(path.pieces)))));
}

/** Return a sentence whose nodes are links. */
function linked(pieces) {
  return pieces.map((piece) => (piece.node === undefined ? piece.text
    : el("a", { class: typeClass(piece.type), href: place("node", piece.node) }, piece.text)));
}
