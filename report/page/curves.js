// Curves by epoch, one panel a quantity, one crosshair through all of them.
const PANELS = [
  { title: "Loss", unit: "nats a character", series: [["train_loss", "train"], ["dev_loss", "dev"], ["train_ctc_loss", "train, CTC"]] },
  { title: "Dev distance", unit: "characters an utterance", series: [["dev_distance", "decoded"], ["dev_ctc_distance", "CTC alone"]] },
  { title: "Dev error rates", unit: "%", scale: 100, series: [["dev_cer", "CER"], ["dev_wer", "WER"]] },
  { title: "Attention on dev", unit: "0 to 1", bounds: [0, 1], show: (value) => (value === null ? "–" : value.toFixed(2)), threshold: [DATA.aligned, "aligned"],
    series: [["dev_monotonicity", "monotonicity"], ["dev_coverage", "coverage"], ["dev_sharpness", "sharpness"]] },
  { title: "Dev texts gone astray", unit: "% of utterances", scale: 100, bounds: [0, 100],
    series: [["dev_unended", "no end"], ["dev_loops", "loops"]] },
  { title: "Learning rate", unit: "", bounds: [0, null], series: [["learning_rate", "AdamW"]] },
  { title: "Teacher forcing", unit: "rate", bounds: [0, 1], series: [["teacher_forcing_rate", "true characters"]] },
  { title: "Gradient norm", unit: "before clipping", series: [["gradient_norm", "mean"]] },
  { title: "Time", unit: "seconds an epoch", bounds: [0, null], series: [["seconds", "epoch"]] },
];
const HEIGHT = 168, LEFT = 42, RIGHT = 8, TOP = 10, BOTTOM = 30;
const panels = [];

function focusEpoch(index) { panels.forEach((panel) => panel.focus(index)); }

function makePanel(panel) {
  const factor = panel.scale || 1, write = panel.show || number;
  const series = panel.series
    .map(([key, label], place) => ({ label, colour: COLOURS[place], values: DATA.rows.map((row) => (key in row ? row[key] * factor : null)) }))
    .filter((one) => one.values.some((value) => value !== null));
  if (!series.length) return;
  const values = series.flatMap((one) => one.values).filter((value) => value !== null);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const log = !panel.bounds && low > 0 && high / low > 12;
  if (panel.bounds) {
    low = Math.min(low, panel.bounds[0]);
    high = panel.bounds[1] === null ? high * 1.05 : Math.max(high, panel.bounds[1]);
  }
  const unit = [panel.unit, log ? "log" : ""].filter(Boolean).join(", ");
  const shown = series.map(() => el("b", {}));
  const legend = el("div", { class: "legend" }, series.map((one, place) =>
    el("span", {}, el("span", { class: "swatch", style: `background:${one.colour}` }), `${one.label} `, shown[place])));
  const picture = svg("svg", { class: "plot", height: HEIGHT, role: "img", "aria-label": `${panel.title} by epoch` });
  $("curves").append(el("div", { class: "card" }, el("h3", {}, panel.title, el("small", {}, unit)), legend, picture));
  const epochs = DATA.rows.map((row) => row.epoch);
  let x, y, cross, dots;

  function draw() {
    const width = picture.clientWidth || 300;
    const last = Math.max(epochs[epochs.length - 1], epochs[0] + 1);
    x = linear(epochs[0], last, LEFT, width - RIGHT, Math.min(6, last - epochs[0]));
    y = (log ? logarithmic : linear)(low, high, HEIGHT - BOTTOM, TOP, 4);
    cross = svg("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    dots = series.map((one) => svg("circle", { r: 3.2, fill: one.colour, visibility: "hidden" }));
    picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    picture.replaceChildren(
      ...y.ticks.flatMap((tick) => [
        svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y.at(tick), y2: y.at(tick) }),
        svg("text", { x: LEFT - 7, y: y.at(tick) + 4, "text-anchor": "end" }, number(tick)),
      ]),
      svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }),
      ...x.ticks.filter(Number.isInteger).map((tick) =>
        svg("text", { x: x.at(tick), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, String(tick))),
      svg("text", { x: width - RIGHT, y: HEIGHT - 1, "text-anchor": "end" }, "epoch"),
      ...(DATA.best ? [svg("line", { class: "best", x1: x.at(DATA.best), x2: x.at(DATA.best), y1: TOP, y2: HEIGHT - BOTTOM })] : []),
      ...(panel.threshold ? [
        svg("line", { class: "threshold", x1: LEFT, x2: width - RIGHT, y1: y.at(panel.threshold[0]), y2: y.at(panel.threshold[0]) }),
        svg("text", { x: width - RIGHT, y: y.at(panel.threshold[0]) - 4, "text-anchor": "end" }, panel.threshold[1]),
      ] : []),
      ...series.map((one) => svg("path", { class: "line", stroke: one.colour, d: path(one.values) })),
      ...(epochs.length === 1 ? series.map((one) => svg("circle", { r: 3, fill: one.colour, cx: x.at(epochs[0]), cy: y.at(one.values[0]) })) : []),
      cross, ...dots,
    );
    focus(null);
  }
  function path(values) {
    let pen = "M", drawnPath = "";
    values.forEach((value, index) => {
      if (value === null) { pen = "M"; return; }
      drawnPath += `${pen}${x.at(epochs[index]).toFixed(1)},${y.at(value).toFixed(1)}`;
      pen = "L";
    });
    return drawnPath;
  }
  function focus(index) {
    const at = index === null ? epochs.length - 1 : index;
    cross.setAttribute("visibility", index === null ? "hidden" : "visible");
    cross.setAttribute("x1", x.at(epochs[at]));
    cross.setAttribute("x2", x.at(epochs[at]));
    series.forEach((one, place) => {
      const value = one.values[at];
      shown[place].textContent = write(value);
      dots[place].setAttribute("visibility", index === null || value === null ? "hidden" : "visible");
      if (value !== null) { dots[place].setAttribute("cx", x.at(epochs[at])); dots[place].setAttribute("cy", y.at(value)); }
    });
  }
  function nearest(event) {
    const place = event.clientX - picture.getBoundingClientRect().left;
    let found = 0;
    epochs.forEach((epoch, index) => { if (Math.abs(x.at(epoch) - place) < Math.abs(x.at(epochs[found]) - place)) found = index; });
    return found;
  }
  panels.push({ focus });
  drawn(draw);
  hover(picture, (event) => {
    const index = nearest(event);
    focusEpoch(index);
    tip.show(event, el("b", {}, `epoch ${epochs[index]}${epochs[index] === DATA.best ? ", best" : ""}`),
      ...series.map((one) => el("span", {}, el("span", { class: "swatch", style: `background:${one.colour}` }), `${one.label} ${write(one.values[index])}`)));
  }, () => focusEpoch(null));
  picture.addEventListener("click", (event) => showMaps(epochs[nearest(event)]));
}
if (DATA.rows.length) PANELS.forEach(makePanel);
else $("learning").hidden = true;
