// What kind of errors there are in the chosen partition.
const MOST_SYMBOLS = 40, MOST_ERRORS = 14, BINS = 10;

const told = (said, heard) => (said === "" ? `${visible(heard)} made up` : heard === "" ? `${visible(said)} left out` : `${visible(said)} heard as ${visible(heard)}`);

function drawConfusion() {
  const { spoken, confused } = texts.split, weight = new Map(Object.entries(spoken));
  confused.forEach(([said, heard, count]) => { if (heard && !weight.has(heard)) weight.set(heard, count); });
  const symbols = [...weight.entries()].sort((a, b) => b[1] - a[1]).slice(0, MOST_SYMBOLS).map(([symbol]) => symbol).sort();
  symbols.push("");
  const place = new Map(symbols.map((symbol, index) => [symbol, index]));
  const all = Object.values(spoken).reduce((sum, count) => sum + count, 0);
  const shown = confused.filter(([said, heard]) => place.has(said) && place.has(heard))
    .map(([said, heard, count]) => ({ said, heard, count, of: said === "" ? all : spoken[said], share: count / (said === "" ? all : spoken[said]) }));
  const largest = Math.max(1e-9, ...shown.filter((one) => one.of >= 5).map((one) => one.share));
  const cell = 18, edge = 22, size = edge + cell * symbols.length;
  const at = (index) => edge + cell * index;
  const picture = svg("svg", { viewBox: `-16 -16 ${size + 16} ${size + 16}`, role: "img", "aria-label": "Confusion of characters" },
    svg("text", { x: edge + (size - edge) / 2, y: -8 }, "recognised →"),
    svg("text", { transform: `translate(-8 ${edge + (size - edge) / 2}) rotate(-90)` }, "← said"),
    ...symbols.flatMap((symbol, index) => [
      svg("text", { x: at(index) + cell / 2, y: edge - 10 }, visible(symbol)),
      svg("text", { x: edge - 10, y: at(index) + cell / 2 }, visible(symbol)),
      svg("rect", { class: "diagonal", x: at(index), y: at(index), width: cell - 1, height: cell - 1, rx: 2 }),
    ]),
    ...shown.map((one) => {
      const opacity = Math.min(1, 0.12 + 0.88 * Math.sqrt(one.share / largest));
      const rect = svg("rect", { class: "cell", x: at(place.get(one.heard)), y: at(place.get(one.said)), width: cell - 1, height: cell - 1, rx: 2, "fill-opacity": opacity.toFixed(2) });
      hover(rect, (event) => tip.show(event, el("b", {}, told(one.said, one.heard)), `${number(one.count)} of ${number(one.of)} (${percent(one.share)})`));
      return rect;
    }));
  $("confusion").replaceChildren(shown.length ? picture : el("p", { class: "muted" }, "No errors."));
  const top = confused.slice(0, MOST_ERRORS), errors = confused.reduce((sum, one) => sum + one[2], 0);
  $("frequent").replaceChildren(el("div", { class: "bars" }, ...top.flatMap(([said, heard, count]) => [
    el("code", {}, told(said, heard)), el("i", { style: `width:${((100 * count) / top[0][2]).toFixed(1)}%` }), el("span", {}, number(count)),
  ])), el("p", { class: "muted" }, `${number(errors)} edits in all, of ${confused.length} kinds`));
}

function drawScatter() {
  const points = texts.split.points, host = $("scatter"), width = host.clientWidth || 600, height = 300;
  if (!points.length) { host.replaceChildren(); return; }
  const left = 46, right = 12, top = 12, bottom = 44;
  const x = linear(0, Math.max(...points.map((point) => point[0]), 1) * 1.02, left, width - right, width < 500 ? 5 : 10);
  const y = linear(0, Math.max(...points.map((point) => point[1]), 1) * 1.05, height - bottom, top, 5);
  const total = points.reduce((sum, point) => sum + point[2], 0), means = [];
  let bin = [0, 0, 0];
  for (const [length, distance, count] of [...points].sort((a, b) => a[0] - b[0])) {
    bin = [bin[0] + length * count, bin[1] + distance * count, bin[2] + count];
    if (bin[2] >= total / BINS) { means.push([bin[0] / bin[2], bin[1] / bin[2]]); bin = [0, 0, 0]; }
  }
  if (bin[2]) means.push([bin[0] / bin[2], bin[1] / bin[2]]);
  const picture = svg("svg", { class: "plot", height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Distance against length" },
    ...y.ticks.flatMap((tick) => [
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y.at(tick), y2: y.at(tick) }),
      svg("text", { x: left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, number(tick)),
    ]),
    ...x.ticks.map((tick) => svg("text", { x: x.at(tick), y: height - bottom + 17, "text-anchor": "middle" }, number(tick))),
    svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    svg("text", { x: width - right, y: height - 8, "text-anchor": "end" }, "length of the transcript, characters"),
    svg("text", { transform: `translate(11 ${top}) rotate(-90)`, "text-anchor": "end" }, "distance, characters"),
    ...points.map(([length, distance, count]) => svg("circle", { class: "dot", cx: x.at(length), cy: y.at(distance), r: (2.6 + 1.1 * Math.sqrt(count - 1)).toFixed(1) })),
    svg("path", { class: "line mean", d: means.map(([length, distance], i) => `${i ? "L" : "M"}${x.at(length).toFixed(1)},${y.at(distance).toFixed(1)}`).join("") }));
  hover(picture, (event) => {
    const box = picture.getBoundingClientRect(), far = ([length, distance]) => (x.at(length) - event.clientX + box.left) ** 2 + (y.at(distance) - event.clientY + box.top) ** 2;
    const near = points.reduce((best, point) => (far(point) < far(best) ? point : best));
    if (far(near) > 900) { tip.hide(); return; }
    tip.show(event, el("b", {}, `distance ${number(near[1])}`), `${number(near[0])} characters, ${number(near[2])} ${near[2] === 1 ? "utterance" : "utterances"}`);
  });
  host.replaceChildren(picture);
}
function drawErrors() { drawConfusion(); drawScatter(); }
if (DATA.splits.length) drawn(drawErrors);
else $("errors").hidden = true;
