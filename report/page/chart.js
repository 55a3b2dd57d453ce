// Charts of lines with one crosshair through all of them. A line has a value or null, a gap, at each of its places `xs`.
const HEIGHT = 168, LEFT = 42, RIGHT = 8, TOP = 10, BOTTOM = 30;
const charts = [];

// A number of a row, or null where it is missing or not finite.
const valueOf = (row, key, factor = 1) => (row && typeof row[key] === "number" && Number.isFinite(row[key]) ? row[key] * factor : null);

function focusCharts(x) { charts.forEach((chart) => chart.focus(x)); }

function nearestIndex(xs, x) {
  let found = 0;
  xs.forEach((each, index) => { if (Math.abs(each - x) < Math.abs(xs[found] - x)) found = index; });
  return found;
}

// panel: {title, unit, bounds, show, threshold}; lines: [{label, colour, dash, xs, values, hidden}];
// axis: {label, mark, exact, write, click}, of which `mark` is a place with a dashed line, `exact` lets a line tell its value
// only where it has that very place.
function makeChart(host, panel, lines, axis) {
  const write = panel.show || number;
  const finite = lines.flatMap((line) => line.values).filter((value) => value !== null);
  if (!finite.length) return;
  let [low, high] = [Math.min(...finite), Math.max(...finite)];
  const log = !panel.bounds && low > 0 && high / low > 12;
  if (panel.bounds) {
    low = Math.min(low, panel.bounds[0]);
    high = panel.bounds[1] === null ? high * 1.05 : Math.max(high, panel.bounds[1]);
  }
  const unit = [panel.unit, log ? "log" : ""].filter(Boolean).join(", ");
  const shown = lines.map(() => el("b", {}));
  const swatch = (line) => el("span", { class: "swatch", style: `background:${line.colour}` });
  const legend = el("div", { class: "legend" }, lines.map((line, place) => el("span", {}, swatch(line), `${line.label} `, shown[place])));
  const picture = svg("svg", { class: "plot", height: HEIGHT, role: "img", "aria-label": `${panel.title} by ${axis.label}` });
  host.append(el("div", { class: "card" }, el("h3", {}, panel.title, el("small", {}, unit)), legend, picture));
  const places = [...new Set(lines.flatMap((line) => line.xs))].sort((a, b) => a - b);
  const whole = places.every(Number.isInteger);
  let x, y, cross, dots;

  function draw() {
    const width = picture.clientWidth || 300;
    const last = Math.max(places[places.length - 1], places[0] + (whole ? 1 : 1e-6));
    x = linear(places[0], last, LEFT, width - RIGHT, whole ? Math.min(6, last - places[0]) : 5);
    y = (log ? logarithmic : linear)(low, high, HEIGHT - BOTTOM, TOP, 4);
    cross = svg("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    dots = lines.map((line) => svg("circle", { r: 3.2, fill: line.colour, visibility: "hidden" }));
    picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    picture.replaceChildren(
      ...y.ticks.flatMap((tick) => [
        svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y.at(tick), y2: y.at(tick) }),
        svg("text", { x: LEFT - 7, y: y.at(tick) + 4, "text-anchor": "end" }, number(tick)),
      ]),
      svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }),
      ...x.ticks.filter((tick) => !whole || Number.isInteger(tick)).map((tick) =>
        svg("text", { x: x.at(tick), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, String(tick))),
      svg("text", { x: width - RIGHT, y: HEIGHT - 1, "text-anchor": "end" }, axis.label),
      ...(axis.mark ? [svg("line", { class: "best", x1: x.at(axis.mark), x2: x.at(axis.mark), y1: TOP, y2: HEIGHT - BOTTOM })] : []),
      ...(panel.threshold ? [
        svg("line", { class: "threshold", x1: LEFT, x2: width - RIGHT, y1: y.at(panel.threshold[0]), y2: y.at(panel.threshold[0]) }),
        svg("text", { x: width - RIGHT, y: y.at(panel.threshold[0]) - 4, "text-anchor": "end" }, panel.threshold[1]),
      ] : []),
      ...lines.filter((line) => !line.hidden).flatMap(drawLine),
      cross, ...dots,
    );
    focus(null);
  }
  function drawLine(line) {
    let pen = "M", path = "";
    const alone = [];
    line.values.forEach((value, index) => {
      if (value === null) { pen = "M"; return; }
      const [left, top] = [x.at(line.xs[index]), y.at(value)];
      if (pen === "M" && (line.values[index + 1] ?? null) === null) alone.push(svg("circle", { r: 2.2, fill: line.colour, cx: left, cy: top }));
      path += `${pen}${left.toFixed(1)},${top.toFixed(1)}`;
      pen = "L";
    });
    return [svg("path", { class: "line", stroke: line.colour, "stroke-dasharray": line.dash, d: path }), ...alone];
  }
  function indexAt(line, place) { // of the value that a line has at a place, or -1
    const index = place === null ? line.xs.length - 1 : nearestIndex(line.xs, place);
    const outside = place !== null && (axis.exact ? line.xs[index] !== place : place > line.xs[line.xs.length - 1]);
    return outside || line.hidden ? -1 : index;
  }
  function focus(place) {
    cross.setAttribute("visibility", place === null ? "hidden" : "visible");
    if (place !== null) { cross.setAttribute("x1", x.at(place)); cross.setAttribute("x2", x.at(place)); }
    lines.forEach((line, which) => {
      const index = indexAt(line, place), value = index < 0 ? null : line.values[index];
      shown[which].textContent = write(value);
      dots[which].setAttribute("visibility", place === null || value === null ? "hidden" : "visible");
      if (value !== null) { dots[which].setAttribute("cx", x.at(line.xs[index])); dots[which].setAttribute("cy", y.at(value)); }
    });
  }
  function placeOf(event) {
    const left = event.clientX - picture.getBoundingClientRect().left;
    return places[nearestIndex(places.map((place) => x.at(place)), left)];
  }
  charts.push({ focus });
  drawn(draw);
  hover(picture, (event) => {
    const place = placeOf(event);
    focusCharts(place);
    tip.show(event, el("b", {}, axis.write(place)), ...lines.filter((line) => !line.hidden).map((line) => {
      const index = indexAt(line, place);
      return el("span", {}, swatch(line), `${line.label} ${write(index < 0 ? null : line.values[index])}`);
    }));
  }, () => focusCharts(null));
  if (axis.click) picture.addEventListener("click", (event) => axis.click(placeOf(event)));
}
