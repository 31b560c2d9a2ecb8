// Nodes with similar embeddings, as a list with cosines and on a map of the embeddings.

import { ask, askBytes, currentModel, into, place } from "./api.js";
import { bar, counted, el, svg, typeName } from "./dom.js";
import { headCells, narrowStated, stated } from "./ranks.js";

const ROWS = 20;
const NAMED = 8; // of the similar nodes, on the map
const REACH = 12; // pixels around the pointer in which a node is found
const EDGE = 18; // pixels around the map

/** Return the tab. */
export function similarTab(known, node) {
  let type = node.type;
  const list = el("div", { class: "ranks-list" });
  const map = el("section", { class: "card map", "aria-label": "Map" });
  const choice = el("select", {
    id: "similar-type", onchange: (event) => { type = event.target.value; load(); },
  }, Object.keys(known.counts).map((one) =>
    el("option", { value: one, selected: one === type }, typeName(one))));
  const box = el("div", {},
    el("div", { class: "choices" }, el("label", { for: "similar-type" }, "Nodes of type "), choice),
    el("div", { class: "columns" }, list, map));

  function load() {
    const asked = { model: currentModel(), node: node.node, type, top: ROWS };
    into(list, () => ask("similar", asked), (rows) => {
      drawMap(rows);
      return table(rows);
    });
    map.replaceChildren();
  }

  function table(rows) {
    return el("table", { class: "ranks" },
      el("caption", {}, `The nodes of type ${typeName(type)} with the most similar embeddings. A cosine of 1 is the same direction.`),
      el("thead", {}, el("tr", {}, headCells(["Rank", "Name", "Cosine", "Stated in the graph"]))),
      el("tbody", {}, rows.map((one) => el("tr", { class: one.contraindicated ? "harmful" : "" },
        el("td", { class: "number" }, one.rank),
        el("th", { scope: "row" }, el("a", { href: place("node", one.node, "similar") }, one.name),
          narrowStated(one)),
        el("td", {}, bar(one.cosine, one.cosine.toFixed(2))),
        el("td", { class: "wide-only" }, stated(one))))));
  }

  function drawMap(rows) {
    const model = currentModel();
    into(map, () => askBytes("map", { model, type }), (bytes) => {
      const named = [...(type === node.type ? [{ ...node, own: true }] : []), ...rows];
      return mapOf(bytes, named, type, model);
    });
  }

  load();
  return { box };
}

/** Return the map of a type: all its nodes as points, some with their names. */
function mapOf(bytes, named, type, model) {
  const size = bytes.byteLength / 12;
  const numbers = new Int32Array(bytes, 0, size);
  const places = new Float32Array(bytes, 4 * size, 2 * size);
  const marks = new Map(named.map((one, at) => [one.node, { ...one, at }]));
  const canvas = el("canvas", { "aria-hidden": "true" });
  const names = svg("svg", { class: "map-names", "aria-hidden": "true" });
  const tip = el("div", { class: "tip", "aria-hidden": "true" });
  const frame = el("div", { class: "map-frame" }, canvas, names, tip);
  let tree = null;
  let hovered = null;

  const bounds = boundsOf(places);

  /** Return where a node is; both directions have the same scale. */
  function at(i, width, height) {
    const scale = Math.min((width - 2 * EDGE) / bounds.width, (height - 2 * EDGE) / bounds.height);
    return [width / 2 + (places[2 * i] - bounds.x) * scale,
      height / 2 - (places[2 * i + 1] - bounds.y) * scale];
  }

  function draw() {
    const [width, height] = [frame.clientWidth, frame.clientHeight];
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.fillStyle = getComputedStyle(frame).getPropertyValue("--point");
    const radius = size > 5000 ? 1.2 : size > 800 ? 1.8 : 2.6;
    const points = [];
    const found = [];
    for (let i = 0; i < size; i += 1) {
      const [x, y] = at(i, width, height);
      points.push({ x, y, node: numbers[i] });
      const mark = marks.get(numbers[i]);
      if (mark) found.push({ ...mark, x, y });
      else {
        context.beginPath();
        context.arc(x, y, radius, 0, 7);
        context.fill();
      }
    }
    tree = d3.quadtree(points, (one) => one.x, (one) => one.y);
    names.setAttribute("viewBox", `0 0 ${width} ${height}`);
    names.replaceChildren(...labels(found, width, height));
  }

  frame.addEventListener("pointermove", async (event) => {
    const area = frame.getBoundingClientRect();
    const near = tree?.find(event.clientX - area.left, event.clientY - area.top, REACH);
    frame.classList.toggle("over", Boolean(near));
    if (near?.node === hovered?.node) return;
    hovered = near;
    tip.textContent = "";
    if (!near) return;
    const name = marks.get(near.node)?.name ?? (await ask("name", { model, node: near.node }).catch(() => ({}))).name;
    if (hovered !== near || !name) return;
    tip.textContent = name;
    tip.style.left = `${Math.min(near.x + 10, area.width - 150)}px`;
    tip.style.top = `${near.y + 10}px`;
  });
  frame.addEventListener("pointerleave", () => { hovered = null; tip.textContent = ""; });
  frame.addEventListener("click", () => {
    if (hovered) location.hash = place("node", hovered.node, "similar");
  });
  new ResizeObserver(draw).observe(frame);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return [
    el("h2", {}, `Map of ${counted(size, typeName(type))}`),
    frame,
    el("p", { class: "quiet small" },
      "Each point is a node; near points have similar embeddings. The two directions are those in which the embeddings differ most (principal components), so some nodes that are close here are apart in other directions. The list has the exact cosines."),
  ];
}

/** Return the middle and the size of the points. */
function boundsOf(places) {
  const low = [Infinity, Infinity];
  const high = [-Infinity, -Infinity];
  places.forEach((value, i) => {
    low[i % 2] = Math.min(low[i % 2], value);
    high[i % 2] = Math.max(high[i % 2], value);
  });
  return {
    x: (low[0] + high[0]) / 2, y: (low[1] + high[1]) / 2,
    width: high[0] - low[0] || 1, height: high[1] - low[1] || 1,
  };
}

/** Return the marked nodes with their names; a name that would cover another is left out. */
function labels(found, width, height) {
  found.sort((a, b) => a.at - b.at);
  const circle = (one) => svg("circle", {
    class: one.own ? "own" : "similar", cx: one.x, cy: one.y, r: one.own ? 7 : 4,
  });
  const taken = [];
  const texts = found.filter((one) => one.own || one.at <= NAMED).map((one) => {
    const text = one.name.length > 26 ? `${one.name.slice(0, 25)}…` : one.name;
    const long = 7 * text.length;
    const spots = [[10, 4.5], [-10 - long, 4.5], [-long / 2, -11], [-long / 2, 20]]
      .map(([dx, dy]) => ({ x: one.x + dx, y: one.y + dy, long }))
      .filter((spot) => spot.x > 2 && spot.x + long < width - 2 && spot.y > 14 && spot.y < height - 4);
    const free = spots.find((spot) => taken.every((other) =>
      spot.x > other.x + other.long || other.x > spot.x + long || Math.abs(spot.y - other.y) > 15));
    const spot = free ?? (one.own ? spots[0] : null);
    if (!spot) return null;
    taken.push(spot);
    return svg("text", { class: one.own ? "own" : "", x: spot.x, y: spot.y }, text);
  });
  return [...found.map(circle).reverse(), ...texts.filter(Boolean)];
}
