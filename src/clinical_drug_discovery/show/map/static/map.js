"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const map = document.getElementById("map");
const plain = {"&": "&amp;", "<": "&lt;", ">": "&gt;"};
const escaped = (text) => text.replace(/[&<>]/g, (letter) => plain[letter]);
const narrow = () => window.innerWidth < 700;
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const traces = data.traces.map((one) => ({
  type: data.webgl ? "scattergl" : "scatter", mode: "markers", x: one.x, y: one.y,
  name: escaped(one.name), hoverinfo: "text", legendrank: one.rank,
  text: one.names.map((name, i) => escaped(name) + "<br>" + escaped(one.ids[i])
    + (one.values ? "<br>" + one.values[i] + " facts" : "")),
  marker: one.values ? {
    size: data.size, colorscale: "Viridis",
    color: one.values.map((n) => Math.log10(Math.max(n, 1))),
    colorbar: {title: {text: escaped(data.title)}, thickness: 14, tickvals: [0, 1, 2, 3, 4, 5],
      ticktext: ["1", "10", "100", "1,000", "10,000", "100,000"]},
  } : {size: data.size, color: one.color, symbol: one.symbol, opacity: one.gray ? 0.45 : 0.9},
}));
const axis = {showgrid: false, zeroline: false, showticklabels: false, showline: false};
function layout() {
  const ink = color("--ink");
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: ink, size: 13},
    margin: {l: 4, r: 4, t: 40, b: 4}, hovermode: "closest", dragmode: "pan",
    hoverlabel: {bgcolor: color("--paper"), font: {color: ink}},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: color("--line"), activecolor: ink},
    xaxis: {...axis}, yaxis: {...axis, scaleanchor: "x"}, showlegend: !data.logarithmic,
    legend: narrow() ? {orientation: "h", y: -0.02, font: {size: 11}, itemsizing: "constant"}
      : {title: {text: escaped(data.title)}, itemsizing: "constant"},
  };
}
const settings = {responsive: true, displaylogo: false, scrollZoom: true, displayModeBar: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]]};
let mark = [];
const draw = () => Plotly.react(map, traces, {...layout(), annotations: mark}, settings);
draw();
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

const found = document.getElementById("found");
document.getElementById("query").addEventListener("input", (event) => {
  const query = event.target.value.trim().toLowerCase();
  found.replaceChildren();
  mark = [];
  if (query.length > 1) {
    let left = 12;
    for (const one of data.traces) {
      for (let i = 0; i < one.names.length && left > 0; i++) {
        if (!one.names[i].toLowerCase().includes(query)) continue;
        left -= 1;
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = one.names[i];
        button.addEventListener("click", () => {
          mark = [{x: one.x[i], y: one.y[i], text: escaped(one.names[i]), showarrow: true,
            arrowcolor: color("--ink"), font: {color: color("--ink")}, bgcolor: color("--paper"),
            bordercolor: color("--ink"), borderpad: 3}];
          draw();
        });
        const item = document.createElement("li");
        item.append(button);
        found.append(item);
      }
    }
    if (left === 12) found.textContent = "No node of the map has this in its name.";
  }
  draw();
});
