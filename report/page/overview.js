// The top of the page and its end: where the run stands, its settings, its machine.
const best = DATA.rows.find((row) => row.epoch === DATA.best), last = DATA.rows[DATA.rows.length - 1];
const training = DATA.settings.training || {};
document.title = `${DATA.name} · run report`;
$("name").textContent = DATA.name;

function stat(value, ...lines) { $("stats").append(el("div", { class: "stat" }, el("b", {}, value), ...lines.map((line) => el("span", {}, line)))); }
if (last) {
  const seconds = DATA.rows.reduce((sum, row) => sum + (row.seconds || 0), 0);
  const planned = training.epochs && training.epochs > last.epoch ? ` of ${training.epochs}` : "";
  const data = DATA.settings.data || {};
  $("lead").textContent = `${last.epoch}${planned} ${last.epoch === 1 ? "epoch" : "epochs"}` +
    (data.train ? ` on ${[].concat(data.train).join(", ")}, measured on ${data.dev}` : "") + `; written ${DATA.written}`;
  const searched = bestDecoding(data.dev), hundredths = (value) => number(Math.round(value * 100) / 100);
  if (searched && searched.distance <= best.dev_distance) {
    stat(hundredths(searched.distance), "dev distance", searched.search, `greedy: ${hundredths(best.dev_distance)}, epoch ${best.epoch}`);
    stat(percent(searched.cer), "dev CER", searched.wer === null ? "" : `WER ${percent(searched.wer)}`, `greedy: ${percent(best.dev_cer)}`);
  } else {
    stat(hundredths(best.dev_distance), "dev distance, greedy", `best: epoch ${best.epoch}`);
    stat(percent(best.dev_cer), "dev CER", `WER ${percent(best.dev_wer)}`);
  }
  for (const other of [...new Set(DATA.decodings.map((one) => one.split))].filter((split) => split !== data.dev).map(bestDecoding).filter(Boolean)) {
    stat(hundredths(other.distance), `${other.split} distance`, other.search, `CER ${percent(other.cer)}, WER ${percent(other.wer)}`);
  }
  stat(number(Math.round(best.dev_monotonicity * 100) / 100), "monotonicity", best.dev_monotonicity >= DATA.aligned ? "aligned" : "not aligned");
  if ("dev_coverage" in best) stat(number(Math.round(best.dev_coverage * 100) / 100), "coverage", `sharpness ${number(Math.round(best.dev_sharpness * 100) / 100)}`);
  stat(duration(seconds), "training time", `${duration(seconds / DATA.rows.length)} an epoch`);
} else {
  $("lead").textContent = `decoded, not trained here; written ${DATA.written}`;
  const scored = DATA.splits.filter((split) => split.score).map((split) => [bestDecoding(split.name) || { ...split.score, search: "" }, split.name]);
  scored.forEach(([{ distance, search }, name]) => stat(number(distance), "distance", name, search));
}
for (const warning of DATA.warnings) {
  const [seen, ...advice] = warning.split("\n");
  $("warnings").append(el("div", { class: "warning" }, el("b", {}, seen), advice.join(" ")));
}

function flat(tree, prefix = "") {
  return Object.entries(tree).flatMap(([key, value]) => value !== null && typeof value === "object" && !Array.isArray(value)
    ? flat(value, `${prefix}${key}.`) : [[prefix + key, Array.isArray(value) && value.every((one) => typeof one !== "object") ? value.join(", ") : JSON.stringify(value)]]);
}
function group(title, pairs) {
  return el("div", {}, el("h3", {}, title), el("table", {}, el("tbody", {}, ...pairs.map(([key, value]) =>
    el("tr", {}, el("td", {}, key), el("td", {}, String(value).replace(/^"(.*)"$/, "$1")))))));
}
const groups = Object.entries(DATA.settings).map(([section, values]) => group(section, values !== null && typeof values === "object" ? flat(values) : [[section, values]]));
if (Object.keys(DATA.environment).length) groups.unshift(group("machine and data", Object.entries(DATA.environment)));
if (groups.length) $("settings").append(el("div", { class: "groups" }, ...groups));
else $("about").hidden = true;
$("footer").textContent = `python -m report RUN_FOLDER draws this page again from what is in the folder.`;

drawings.forEach((draw) => draw());
