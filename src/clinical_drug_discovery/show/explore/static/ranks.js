// The ranked drugs of a disease, or the ranked diseases of a drug, beside the reasons for one.

import { address, ask, askBytes, currentModel, into, place, say, whileWaiting } from "./api.js";
import { bar, count, el, percent, warningMark } from "./dom.js";
import { whyPanel } from "./why.js";

const ROWS = 25;
const MORE = 100;
const WIDE = window.matchMedia("(min-width: 1000px)");
const CHOICES = [
  ["include_known", "Known treatments too", false],
  ["hide_contraindicated", "Hide contraindicated", false],
  ["popularity", "Count the popularity of drugs", true],
];

/** Return the tab: its box, and a function that shows the reasons for one row. */
export function ranksTab(known, node, isDrug) {
  const what = isDrug ? "disease" : "drug";
  const chosen = Object.fromEntries(CHOICES.map(([name, , given]) => [name, given]));
  let top = ROWS;
  let open = null; // the row whose reasons are shown
  let first = null;

  const table = el("div", { class: "ranks-list" });
  const reasons = el("section", { class: "card reasons", "aria-label": "Reasons", tabindex: "-1" });
  const exports = el("span", { class: "exports", role: "group", "aria-label": "Export" });
  const problem = el("p", { class: "error", role: "alert" });
  const offered = CHOICES.filter(([name]) => known.contraindications || name !== "hide_contraindicated");
  const choices = offered.map(([name, text]) => el("label", { class: "check" },
      el("input", {
        type: "checkbox", checked: chosen[name],
        onchange: (event) => { chosen[name] = event.target.checked; load(); },
      }), text));
  const box = el("div", {},
    el("div", { class: "choices", role: "group", "aria-label": "Choices" }, choices, exports),
    problem,
    el("div", { class: "columns" }, table, reasons));

  function parameters() {
    const given = Object.entries(chosen).map(([name, on]) => [name, on ? "1" : "0"]);
    return { model: currentModel(), node: node.node, top, ...Object.fromEntries(given) };
  }

  function load() {
    exports.replaceChildren(
      ...(isDrug ? [] : [["html", "Report"], ["xlsx", "Excel"]]).map(([suffix, text]) => {
        const made = el("button", { type: "button", class: "button light", onclick: () => save(made, suffix) }, text);
        return made;
      }),
      el("a", {
        class: "button light", download: "", href: address("export.csv", { ...parameters(), top: isDrug ? top : 1000 }),
      }, "CSV"));
    into(table, () => ask(isDrug ? "diseases" : "drugs", parameters()), (found) => {
      first = found.rows[0]?.node ?? null;
      say(`${count(found.total)} ranked ${what}s`);
      if (open === null && first !== null && WIDE.matches) showReasons(first, false);
      const drawn = draw(found);
      mark(drawn);
      return drawn;
    });
  }

  /** Save a report, which takes a while; the button shows the progress. */
  async function save(button, suffix) {
    if (button.busy) return;
    const text = button.textContent;
    const done = whileWaiting((part) => { button.textContent = part; });
    button.busy = true;
    problem.textContent = "";
    try {
      const bytes = await askBytes(`export.${suffix}`, { ...parameters(), top: Math.min(top, 50) });
      const where = URL.createObjectURL(new Blob([bytes]));
      const name = `${node.name} - ranked drugs.${suffix}`.replace(/[^\p{L}\p{N} .-]+/gu, "_");
      el("a", { href: where, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(where), 60_000);
      say("The report is saved");
    } catch (error) {
      say(error.message);
      problem.textContent = error.message;
    }
    done();
    button.busy = false;
    button.textContent = text;
  }

  function draw(found) {
    if (!found.rows.length) return el("p", {}, `No ${what} is left to rank.`);
    const heads = ["Rank", isDrug ? "Disease" : "Drug", "Probability", "Stated in the graph"];
    const rows = found.rows.map((one) => el("tr", {
      "data-node": one.node, class: one.contraindicated ? "harmful" : "",
      onclick: (event) => { if (!event.target.closest("a")) location.hash = place("node", node.node, "ranks", one.node); },
    },
    el("td", { class: "number" }, one.rank),
    el("th", { scope: "row" },
      el("a", { href: place("node", node.node, "ranks", one.node) }, one.name), narrowStated(one)),
    el("td", {}, bar(one.probability, percent(one.probability))),
    el("td", { class: "wide-only" }, stated(one))));
    const more = el("button", {
      type: "button", class: "button light", onclick: () => { top += MORE; load(); },
    }, "Show more");
    return el("div", {},
      el("table", { class: "ranks" },
        el("caption", {}, `${count(found.total)} ${what}s are ranked. The probability is that the graph records the treatment.`,
          known.contraindications ? null : " This graph does not list contraindications, so none is marked."),
        el("thead", {}, el("tr", {}, headCells(heads))),
        el("tbody", {}, rows)),
      found.rows.length < found.total ? more : null);
  }

  function mark(where) {
    for (const row of where.querySelectorAll("tr[data-node]")) {
      const is = row.dataset.node === String(open);
      row.classList.toggle("selected", is);
      const link = row.querySelector("a");
      if (is) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  function showReasons(other, asked) {
    open = other;
    mark(table);
    const [drug, disease] = isDrug ? [node.node, other] : [other, node.node];
    into(reasons, () => ask("why", { ...parameters(), drug, disease }), (found) => {
      say(`Reasons: ${found.drug.name} for ${found.disease.name}`);
      return whyPanel(found, place("node", node.node, "ranks"));
    }).then(() => {
      if (!asked || open !== other) return;
      if (!WIDE.matches) reasons.scrollIntoView();
      reasons.focus({ preventScroll: true });
    });
  }

  load();
  return {
    box,
    show(other) {
      if (other !== undefined && Number(other) !== open) showReasons(Number(other), true);
      box.classList.toggle("with-reasons", other !== undefined);
    },
  };
}

/** Return the cells of a head; the last column is not shown on a narrow page. */
export function headCells(heads) {
  return heads.map((text, at) => el("th", {
    scope: "col", class: at === heads.length - 1 ? "wide-only" : "",
  }, text));
}

/** Return what the graph says about a pair; a contraindication is marked. */
export function stated(one) {
  if (!one.stated) return el("span", { class: "quiet" }, "–", el("span", { class: "unseen" }, "nothing"));
  const words = one.stated.split("; ");
  return el("span", { class: "stated" }, words.map((word) =>
    one.contraindicated && (/contra/i.test(word) || words.length === 1)
      ? warningMark(word) : el("span", {}, word)));
}

/** Return the same below a name, for a narrow page; null if the graph says nothing. */
export function narrowStated(one) {
  return one.stated ? el("span", { class: "narrow-only small" }, stated(one)) : null;
}
