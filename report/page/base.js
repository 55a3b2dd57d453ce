// What all parts share. Data becomes text nodes and attributes only, never markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["var(--one)", "var(--two)", "var(--three)", "var(--four)"];
const $ = (id) => document.getElementById(id);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// Numbers as people write them.
function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size === 0 || Number.isInteger(value)) return value.toLocaleString("en");
  if (size < 0.0001) return value.toExponential(1);
  return value.toLocaleString("en", { maximumFractionDigits: size < 0.001 ? 5 : size < 0.1 ? 4 : size < 1 ? 3 : size < 100 ? 2 : 0 });
}
const percent = (value) => (value === null || value === undefined ? "–" : `${number(Math.round(value * 10000) / 100)} %`);
function duration(seconds) {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
const visible = (character) => (character === " " ? "␣" : character === "" ? "∅" : /^\p{M}/u.test(character) ? `◌${character}` : character);

// Scales: value to pixel, with ticks at round values.
function linear(low, high, from, to, count) {
  if (high === low) { high += Math.abs(high) || 1; }
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(10)));
  return { at: (value) => from + ((value - low) / (high - low)) * (to - from), ticks };
}
function logarithmic(low, high, from, to) {
  const span = Math.log(high / low), ticks = [];
  const factors = span > Math.log(100) ? [1] : span > Math.log(15) ? [1, 3] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(6));
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return { at: (value) => from + (Math.log(value / low) / span) * (to - from), ticks };
}

// One tooltip for all.
const tip = {
  show(event, ...lines) {
    const box = $("tip");
    box.replaceChildren(...lines.map((line) => el("div", {}, line)));
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect(), room = document.documentElement.clientWidth;
    const left = event.clientX + 14 + width > room - 6 ? event.clientX - 14 - width : event.clientX + 14;
    box.style.left = `${Math.min(Math.max(6, left), Math.max(6, room - width - 6))}px`;
    box.style.top = `${event.clientY - height - 12 < 6 ? event.clientY + 18 : event.clientY - height - 12}px`;
  },
  hide() { $("tip").hidden = true; },
};
// Calls `over(event)` while a pointer or a finger is on `node`, `out` when it leaves.
function hover(node, over, out = () => {}) {
  const leave = () => { tip.hide(); out(); };
  node.addEventListener("pointermove", over);
  node.addEventListener("pointerdown", over);
  node.addEventListener("pointerleave", leave);
  node.addEventListener("pointercancel", leave);
}

// What is drawn to a width: once the whole page is laid out, and again when that width changes, or the colours do.
const drawings = [];
function drawn(draw) { drawings.push(draw); }
let widthBefore = document.documentElement.clientWidth;
window.addEventListener("resize", () => {
  if (document.documentElement.clientWidth === widthBefore) return;
  widthBefore = document.documentElement.clientWidth;
  drawings.forEach((draw) => draw());
});
const darkness = window.matchMedia("(prefers-color-scheme: dark)");
darkness.addEventListener("change", () => drawings.forEach((draw) => draw()));
