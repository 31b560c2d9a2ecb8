// A network of nodes and facts to click through. Each node is a button that keys reach, too.

import { ask, currentModel, place, say } from "./api.js";
import { counted, el, svg, typeClass, typeMark, typeName } from "./dom.js";

const HEIGHT = 30; // of a node's box
const LONGEST = 24; // characters of a name in a box
const ADDED = 8; // neighbors that one click adds
const TICKS = 240;
const NARROW = 560; // pixels of width below which layers are rows
const pen = document.createElement("canvas").getContext("2d");

function widthOf(text) {
  pen.font = "600 13px system-ui, sans-serif";
  return pen.measureText(text).width + 30;
}

function shortName(name) {
  return name.length > LONGEST ? `${name.slice(0, LONGEST - 1).trimEnd()}…` : name;
}

/**
 * Return the picture with its buttons and the box about the chosen node.
 *
 * nodes: with node, name, type, facts and, in a layered picture, place from 0 to 1.
 * edges: with source, target, phrase and harms.
 */
export function networkOf({ nodes, edges, title, layered = false }) {
  const all = new Map();
  const links = [];
  let chosen = null;
  let view = null; // x, y, width and height of the part that is shown
  let whole = null;

  const edgeLayer = svg("g", { class: "edges", "aria-hidden": "true" });
  const nodeLayer = svg("g", {});
  const picture = svg("svg", { class: "network", role: "group", "aria-label": title },
    edgeLayer, nodeLayer);
  const about = el("div", { class: "about" }, el("span", { class: "quiet small" },
    "Choose a node to see its facts and to add its neighbors. Arrow keys move between nodes."));
  const button = (text, label, work) => el("button", {
    type: "button", class: "button light square", "aria-label": label, title: label, onclick: work,
  }, text);
  const box = el("div", { class: "network-box" },
    el("div", { class: "network-frame" }, picture),
    el("div", { class: "below" }, about, el("div", { class: "zoom" },
      button("+", "Enlarge", () => zoom(0.75)), button("−", "Reduce", () => zoom(1.33)),
      button("⤢", "Show all", () => { view = null; fit(); }))));

  function add(newNodes, newEdges, from) {
    for (const one of newNodes) {
      if (all.has(one.node)) continue;
      const label = shortName(one.name);
      all.set(one.node, {
        ...one, label, width: widthOf(label), x: from?.x, y: from?.y, fresh: true,
      });
    }
    for (const one of newEdges) {
      if (all.has(one.source) && all.has(one.target)) {
        links.push({ ...one, source: all.get(one.source), target: all.get(one.target) });
      }
    }
  }

  /** Place the new nodes. Nodes that have a place keep it, so that the reader does not lose them. */
  function arrange() {
    const width = Math.max(box.clientWidth || 640, 280);
    const rows = width < NARROW;
    const list = [...all.values()];
    const first = list.every((one) => one.fresh);
    if (first && layered) (rows ? placeInRows : placeInColumns)(list, links, width);
    else spread(list, first, rows);
    const push = apart(list, layered || rows);
    for (let i = 0; i < TICKS; i += 1) {
      if (rows && !(first && layered)) {
        for (const one of list) {
          const most = Math.max(0, (width - one.width) / 2 - 8);
          one.x = Math.max(-most, Math.min(most, one.x));
        }
      }
      push();
    }
    for (const one of list) {
      one.fresh = false;
      one.fx = one.fy = null;
    }
  }

  function spread(list, first, rows) {
    list.forEach((one, at) => {
      const angle = at * 2.4; // the golden angle spreads them, in the same way at each call
      if (!one.fresh) [one.fx, one.fy] = [one.x, one.y];
      else if (one.x === undefined) {
        one.x = 30 * at * Math.cos(angle);
        one.y = 12 * at * Math.sin(angle);
      } else { // beside the node that was opened
        one.x += 120 * Math.cos(angle);
        one.y += 80 * Math.sin(angle);
      }
    });
    if (first) [list[0].fx, list[0].fy] = [0, 0];
    d3.forceSimulation(list).stop()
      .force("links", d3.forceLink(links).distance(rows ? 90 : 170).strength(0.15))
      .force("push", d3.forceManyBody().strength(rows ? -300 : -700).distanceMax(500))
      .force("x", d3.forceX(0).strength(rows ? 0.25 : 0.03))
      .force("y", d3.forceY(0).strength(rows ? 0.02 : 0.12))
      .tick(TICKS);
  }

  function draw() {
    const list = [...all.values()];
    edgeLayer.replaceChildren(...links.map((link) => {
      const { source, target } = link;
      const bow = bowOf(link);
      const [middleX, middleY] = [(source.x + target.x + bow.x) / 2, (source.y + target.y + bow.y) / 2];
      const near = chosen && (chosen === source || chosen === target);
      return svg("g", { class: `edge ${link.harms ? "harms" : ""} ${near ? "near" : ""} ${chosen && !near ? "far" : ""}` },
        svg("path", {
          d: `M${source.x},${source.y} q${(target.x - source.x) / 2 + bow.x},${(target.y - source.y) / 2 + bow.y} ${target.x - source.x},${target.y - source.y}`,
        }),
        (links.length <= 16 || near) && roomFor(link)
          ? svg("text", { x: middleX, y: middleY + 4, "text-anchor": "middle" }, link.phrase) : null);
    }));
    const first = chosen ?? list[0];
    nodeLayer.replaceChildren(...list.map((one) => svg("g", {
      class: `node ${typeClass(one.type)} ${one === chosen ? "chosen" : ""}`,
      transform: `translate(${one.x},${one.y})`, role: "button", "data-node": one.node,
      tabindex: one === first ? "0" : "-1", "aria-pressed": String(one === chosen),
      "aria-label": spokenOf(one), onclick: () => choose(one), onkeydown: (event) => key(event, one),
    },
    svg("title", {}, `${one.name} (${typeName(one.type)})`),
    svg("rect", { x: -one.width / 2, y: -HEIGHT / 2, width: one.width, height: HEIGHT, rx: HEIGHT / 2 }),
    svg("circle", { cx: 14 - one.width / 2, cy: 0, r: 5 }),
    svg("text", { x: 8, y: 4.5, "text-anchor": "middle" }, one.label))));
    fit();
  }

  /** Return how far the middle of a line is bent, so that a fact about both ends passes below. */
  function bowOf({ source, target }) {
    const places = [source.place, target.place].sort();
    if (!layered || places[0] !== 0 || places[1] !== 1) return { x: 0, y: 0 };
    const list = [...all.values()];
    if (Math.abs(source.x - target.x) < Math.abs(source.y - target.y)) {
      return { x: 2 * (Math.max(...list.map((one) => one.x + one.width / 2)) - Math.max(source.x, target.x) - 30), y: 0 };
    }
    return { x: 0, y: 2 * (Math.max(...list.map((one) => one.y)) + 34 - Math.max(source.y, target.y)) };
  }

  function roomFor({ source, target, phrase }) {
    const ends = (source.width + target.width) / 2;
    return Math.abs(source.y - target.y) > HEIGHT + 18
      || Math.abs(source.x - target.x) - ends > 6.2 * phrase.length;
  }

  function spokenOf(one) {
    const own = links.filter((link) => link.source === one || link.target === one).slice(0, 4)
      .map((link) => `${link.source.name} ${link.phrase} ${link.target.name}`);
    return [`${one.name}, ${typeName(one.type)}`, ...own].join(". ");
  }

  function fit() {
    const list = [...all.values()];
    const edge = 14;
    const left = Math.min(...list.map((one) => one.x - one.width / 2)) - edge;
    const right = Math.max(...list.map((one) => one.x + one.width / 2)) + edge;
    const bows = links.map((link) => (link.source.y + link.target.y + bowOf(link).y) / 2);
    const above = Math.min(...list.map((one) => one.y)) - HEIGHT / 2 - edge;
    const below = Math.max(...list.map((one) => one.y), ...bows) + HEIGHT / 2 + edge;
    const width = Math.max(right - left, box.clientWidth || 640);
    whole = { x: (left + right - width) / 2, y: above, width, height: below - above };
    const shown = view ?? whole;
    picture.setAttribute("viewBox", `${shown.x} ${shown.y} ${shown.width} ${shown.height}`);
    const tall = whole.height * Math.min(1, (box.clientWidth || 640) / whole.width);
    picture.style.height = `${Math.max(120, Math.min(620, tall))}px`;
  }

  function zoom(factor) {
    const old = view ?? whole;
    const [width, height] = [old.width * factor, old.height * factor];
    view = { x: old.x + (old.width - width) / 2, y: old.y + (old.height - height) / 2, width, height };
    fit();
  }

  function choose(one) {
    chosen = one;
    draw();
    focusOn(one);
    const open = el("button", { type: "button", class: "button", onclick: () => expand(one, open) },
      "Show its neighbors");
    about.replaceChildren(
      el("strong", {}, one.name), typeMark(one.type),
      el("span", { class: "quiet" }, `${one.id ?? ""} · ${counted(one.facts, "fact")}`),
      open, el("a", { class: "button light", href: place("node", one.node) }, "Open its page"));
  }

  async function expand(one, button) {
    if (button.busy) return; // not disabled: a disabled button loses the focus
    button.busy = true;
    try {
      const found = await ask("neighbors", {
        model: currentModel(), node: one.node, shown: [...all.keys()].join(","), limit: ADDED,
      });
      add(found.nodes, found.edges.filter((edge) => !has(edge)), one);
      arrange();
      view = null;
      draw();
      say(found.nodes.length ? `${counted(found.nodes.length, "neighbor")} of ${one.name} added`
        : `All neighbors of ${one.name} are there already`);
      if (!found.nodes.length) button.textContent = "All neighbors are there";
    } catch (error) {
      say(error.message);
    }
    button.busy = false;
  }

  function has(edge) {
    const ends = [edge.source, edge.target];
    return links.some((link) => ends.includes(link.source.node) && ends.includes(link.target.node));
  }

  function focusOn(one) {
    nodeLayer.querySelector(`[data-node="${one.node}"]`)?.focus({ preventScroll: true });
  }

  function key(event, one) {
    if (["Enter", " "].includes(event.key)) {
      event.preventDefault();
      choose(one);
      return;
    }
    const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    const way = ways[event.key];
    if (!way) return;
    event.preventDefault();
    let best = null;
    for (const other of all.values()) {
      const [dx, dy] = [other.x - one.x, other.y - one.y];
      const ahead = dx * way[0] + dy * way[1];
      if (ahead <= 1) continue;
      const cost = ahead + 3 * Math.abs(dx * way[1] + dy * way[0]);
      if (!best || cost < best.cost) best = { other, cost };
    }
    if (!best) return;
    for (const group of nodeLayer.children) group.setAttribute("tabindex", "-1");
    nodeLayer.querySelector(`[data-node="${best.other.node}"]`).setAttribute("tabindex", "0");
    focusOn(best.other);
  }

  let drag = null;
  picture.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || event.target.closest(".node")) return;
    drag = { x: event.clientX, y: event.clientY, start: view ?? whole };
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const unit = drag.start.width / picture.clientWidth;
    view = {
      ...drag.start,
      x: drag.start.x - (event.clientX - drag.x) * unit, y: drag.start.y - (event.clientY - drag.y) * unit,
    };
    fit();
  });
  picture.addEventListener("pointerup", () => { drag = null; });

  add(nodes, edges);
  // The width is known only in the page; a new width, as after a turn of a phone, draws it anew.
  let drawn = 0;
  new ResizeObserver(() => {
    const kind = box.clientWidth < NARROW ? 1 : 2;
    if (!box.clientWidth) return;
    if (kind !== drawn) {
      drawn = kind;
      for (const one of all.values()) {
        one.x = one.y = undefined;
        one.fresh = true;
      }
      arrange();
      draw();
    } else fit();
  }).observe(box);
  return box;
}

/** Return the nodes by level: the drug, what the paths have in between, the disease. */
function levelsOf(list, links) {
  const levels = new Map();
  for (const one of list) {
    const level = Math.round(one.place * 6); // places such as 1/4 and 1/3 share a level
    const shared = { 1: 2, 5: 4 }[level] ?? level;
    levels.set(shared, [...(levels.get(shared) ?? []), one]);
  }
  const sorted = [...levels.keys()].sort((a, b) => a - b).map((level) => levels.get(level));
  // Each level in the order of its neighbors in the levels before, so that few edges cross.
  const order = new Map();
  for (const level of sorted) {
    for (const one of level) {
      const before = links.flatMap(({ source, target }) =>
        (source === one ? [order.get(target)] : target === one ? [order.get(source)] : []))
        .filter((place) => place !== undefined);
      one.mean = before.length ? before.reduce((sum, place) => sum + place, 0) / before.length : 0.5;
    }
    level.sort((a, b) => a.mean - b.mean);
    level.forEach((one, at) => order.set(one, (at + 0.5) / level.length));
  }
  return sorted;
}

function placeInColumns(list, links, width) {
  const levels = levelsOf(list, links);
  const last = Math.max(1, levels.length - 1);
  const [left, right] = [levels[0], levels[last] ?? levels[0]].map((level) =>
    Math.max(...level.map((one) => one.width)) / 2);
  const span = Math.max(width - left - right - 30, 150 * last);
  levels.forEach((level, column) => level.forEach((one, at) => {
    one.x = (column / last) * span;
    one.y = (at - (level.length - 1) / 2) * 54;
    if (column === 0 || column === last) [one.fx, one.fy] = [one.x, one.y];
    else one.y += column % 2 ? -30 : 30; // so that few lines cross a box between their ends
  }));
}

function placeInRows(list, links, width) {
  let y = 0;
  levelsOf(list, links).forEach((level, number, levels) => {
    const lines = [];
    for (const one of level) {
      const line = lines.at(-1);
      const used = line?.reduce((sum, other) => sum + other.width + 14, 0) ?? 0;
      if (line && used + one.width <= width - 16) line.push(one);
      else lines.push([one]);
    }
    const inside = number > 0 && number < levels.length - 1;
    lines.forEach((line, at) => {
      const long = line.reduce((sum, one) => sum + one.width + 14, -14);
      const free = Math.max(0, (width - 16 - long) / 2);
      let x = -long / 2 + (inside ? ((number + at) % 2 ? 0.6 : -0.6) * free : 0);
      for (const one of line) {
        [one.x, one.y] = [x + one.width / 2, y];
        x += one.width + 14;
      }
      y += 52;
    });
    y += 24;
  });
}

/** Return a function that moves overlapping boxes apart by one step. */
function apart(list, upDown) {
  const gap = { x: 16, y: upDown ? 14 : 26 };
  return () => {
    for (let i = 0; i < list.length; i += 1) {
      for (let j = i + 1; j < list.length; j += 1) {
        const [a, b] = [list[i], list[j]];
        const overX = (a.width + b.width) / 2 + gap.x - Math.abs(a.x - b.x);
        const overY = HEIGHT + gap.y - Math.abs(a.y - b.y);
        if (overX <= 0 || overY <= 0) continue;
        if (upDown || overY < overX) move(a, b, "y", (overY / 2) * (a.y <= b.y ? -1 : 1));
        else move(a, b, "x", (overX / 2) * (a.x <= b.x ? -1 : 1));
      }
    }
  };
}

function move(a, b, axis, step) {
  const fixed = `f${axis}`;
  const [aStays, bStays] = [a[fixed] !== null && a[fixed] !== undefined, b[fixed] !== null && b[fixed] !== undefined];
  if (!aStays) a[axis] += bStays ? 2 * step : step;
  if (!bStays) b[axis] -= aStays ? 2 * step : step;
}
