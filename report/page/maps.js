// Attention maps, an epoch at a time. A grey pixel is the square root of a weight.
const STOPS = {
  light: [[255, 255, 255], [214, 228, 240], [120, 170, 210], [43, 108, 176], [22, 40, 90]],
  dark: [[20, 22, 26], [88, 40, 124], [190, 58, 116], [248, 146, 92], [252, 236, 180]],
};
const ROW_WITH_LETTER = 9, TALLEST = 560, LOWEST = 150;
const MAPS = DATA.maps.epochs, UTTERANCES = DATA.maps.utterances;
const greys = new Map();
const BEST_MAP = MAPS.findIndex((one) => one.epoch === DATA.best);
let currentMap = BEST_MAP >= 0 ? BEST_MAP : MAPS.length - 1, playing = null;

function palette() {
  const stops = STOPS[darkness.matches ? "dark" : "light"];
  return Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (stops.length - 1), before = Math.min(Math.floor(place), stops.length - 2);
    return stops[before].map((channel, i) => channel + (stops[before + 1][i] - channel) * (place - before));
  });
}
// The weights of one map as they were kept: {width, height, grey}.
async function read(png) {
  if (!greys.has(png)) {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    const canvas = el("canvas", { width: image.naturalWidth, height: image.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const { width, height, data } = context.getImageData(0, 0, canvas.width, canvas.height);
    greys.set(png, { width, height, grey: data.filter((_, index) => index % 4 === 0) });
  }
  return greys.get(png);
}

// A card with the map of an utterance; `head` is its title in an epoch, `wanted` whether that epoch is still to be shown.
function makeView(host, place, head, wanted = () => true) {
  const utterance = UTTERANCES[place];
  const canvas = el("canvas", { class: "weights" }), frame = svg("svg", {}), title = el("span", {}), detail = el("small", {});
  const caption = el("h3", {}, el("span", {}, soundButton(utterance.sound, utterance.utterance), title), detail);
  host.append(el("div", { class: "card" }, caption, el("div", { class: "map" }, frame, canvas)));
  const U = utterance.characters.length;
  const text = utterance.characters.map((one) => (one === "<eos>" ? "⏎" : one));
  let grid = null;

  function layout() {
    const width = frame.parentNode.clientWidth;
    const height = Math.min(TALLEST, Math.max(LOWEST, U * 13)), row = height / U;
    const letters = row >= ROW_WITH_LETTER, left = letters ? 18 : 76, bottom = 34;
    const x = linear(0, utterance.seconds, left, width - 4, 5);
    let labels = text.map((character, u) => [u + 0.5, visible(character)]);
    if (!letters) { // no room for each: the words, where they begin
      const words = utterance.characters.slice(0, -1).join("").matchAll(/\S+/g);
      let free = 0;
      labels = [...words].map((word) => [word.index + 0.5, word[0].length > 9 ? `${word[0].slice(0, 8)}…` : word[0]])
        .filter(([u]) => { if (u * row < free) return false; free = u * row + 11; return true; });
    }
    frame.setAttribute("height", height + bottom);
    frame.setAttribute("viewBox", `0 0 ${width} ${height + bottom}`);
    frame.replaceChildren(
      ...labels.map(([u, label]) => svg("text", { x: left - 6, y: u * row + 3.5, "text-anchor": "end" }, label)),
      ...x.ticks.flatMap((tick) => [
        svg("line", { class: "axis", x1: x.at(tick), x2: x.at(tick), y1: height, y2: height + 4 }),
        svg("text", { class: "tick", x: x.at(tick), y: height + 16, "text-anchor": "middle" }, number(tick)),
      ]),
      svg("text", { class: "tick", x: width - 4, y: height + 31, "text-anchor": "end" }, "seconds"),
    );
    Object.assign(canvas.style, { left: `${left}px`, top: "0", width: `${width - 4 - left}px`, height: `${height}px` });
  }
  async function show(index) {
    [title.textContent, detail.textContent] = head(utterance, MAPS[index], MAPS[index].distance[place]);
    const weights = await read(MAPS[index].png[place]).catch(() => null);
    if (!wanted(index) || !weights) return;
    grid = weights;
    canvas.width = grid.width;
    canvas.height = grid.height;
    const colours = palette(), context = canvas.getContext("2d"), image = context.createImageData(grid.width, grid.height);
    grid.grey.forEach((grey, i) => image.data.set([...colours[grey], 255], 4 * i));
    context.putImageData(image, 0, 0);
  }
  hover(canvas, (event) => {
    if (!grid) return;
    const box = canvas.getBoundingClientRect();
    const inside = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    const u = inside((event.clientY - box.top) / box.height, grid.height), s = inside((event.clientX - box.left) / box.width, grid.width);
    const around = utterance.characters.slice(Math.max(0, u - 8), u).join("");
    const after = text.slice(u + 1, u + 9).join("");
    tip.show(event, el("code", {}, around, el("b", {}, `[${visible(text[u])}]`), after),
      `at ${number(((s + 0.5) / grid.width) * utterance.seconds)} s: weight ${((grid.grey[s + u * grid.width] / 255) ** 2).toFixed(2)}`);
  });
  return { layout, show };
}
const secondsOf = (utterance) => `${number(Math.round(utterance.seconds * 10) / 10)} s`;
const distanceOf = (distance) => (distance === null ? "" : `distance ${number(distance)}`);
const joined = (...parts) => parts.filter(Boolean).join(" · ");

const views = UTTERANCES.map((_, place) => makeView($("maps"), place,
  (utterance, map, distance) => [utterance.utterance, joined(distanceOf(distance), secondsOf(utterance))],
  (index) => index === currentMap));

// One utterance after the first epoch that was kept and after the best one.
const ENDS = [...new Set([0, BEST_MAP])].filter((index) => MAPS[index]);
let pair = [];
function makePair(place) {
  $("pair").replaceChildren();
  const head = (utterance, map, distance) => [`epoch ${map.epoch}${map.epoch === DATA.best ? " (best)" : ""}`, distanceOf(distance)];
  pair = ENDS.map((index) => ({ index, ...makeView($("pair"), place, head) }));
}
function drawPair() { pair.forEach((view) => { view.layout(); view.show(view.index); }); }

function showMaps(epoch, exactly = false) {
  let index = epoch;
  if (!exactly) {
    index = 0;
    MAPS.forEach((one, i) => { if (Math.abs(one.epoch - epoch) < Math.abs(MAPS[index].epoch - epoch)) index = i; });
  }
  if (!MAPS[index]) return;
  currentMap = index;
  $("epoch").value = index;
  const row = DATA.rows.find((one) => one.epoch === MAPS[index].epoch);
  const measured = [["distance", "dev_distance"], ["monotonicity", "dev_monotonicity"], ["coverage", "dev_coverage"], ["sharpness", "dev_sharpness"]]
    .filter(([, key]) => valueOf(row, key) !== null).map(([label, key]) => `${label} ${number(Math.round(row[key] * 100) / 100)}`);
  const title = `epoch ${MAPS[index].epoch}${MAPS[index].epoch === DATA.best ? " (best)" : ""}`;
  $("epoch-label").textContent = [title, ...measured].join(" · ");
  views.forEach((view) => view.show(index));
}
function play() {
  if (playing) { clearInterval(playing); playing = null; } else {
    if (currentMap === MAPS.length - 1) showMaps(0, true);
    playing = setInterval(() => {
      if (currentMap + 1 < MAPS.length) showMaps(currentMap + 1, true);
      if (currentMap + 1 >= MAPS.length) play();
    }, Math.max(60, Math.min(400, 12000 / MAPS.length)));
  }
  $("play").textContent = playing ? "❚❚" : "▶";
}
if (MAPS.length) {
  $("epoch").max = MAPS.length - 1;
  $("epoch").addEventListener("input", () => { if (playing) play(); showMaps(Number($("epoch").value), true); });
  $("play").addEventListener("click", play);
  if (ENDS.length > 1) {
    const middle = UTTERANCES.length >> 1;
    const choice = el("select", { id: "pair-of" }, UTTERANCES.map((one, place) => el("option", { value: place }, one.utterance)));
    choice.selectedIndex = middle;
    choice.addEventListener("change", () => { makePair(choice.selectedIndex); drawPair(); });
    $("pair").before(el("div", { class: "controls" }, el("label", {}, `Epoch ${MAPS[0].epoch} beside the best: `, choice)));
    makePair(middle);
  } else $("pair").hidden = true;
  if (MAPS.length < DATA.maps.of) $("attention").querySelector(".note").append(` Here are ${MAPS.length} of ${DATA.maps.of} epochs.`);
  drawn(() => {
    views.forEach((view) => view.layout());
    const context = $("scale").getContext("2d"), colours = palette(), image = context.createImageData(256, 1);
    for (let i = 0; i < 256; i++) image.data.set([...colours[Math.round(255 * Math.sqrt(i / 255))], 255], 4 * i);
    context.putImageData(image, 0, 0);
    drawPair();
    showMaps(currentMap, true);
  });
} else $("attention").hidden = true;
