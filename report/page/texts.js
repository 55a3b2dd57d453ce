// Texts of a partition: what differs is marked; sorted by any column.
const BATCH = 25;
const TABLE_COLUMNS = [
  { key: "distance", label: "distance", unit: "edits", number: true, of: (row) => row[1] },
  { key: "length", label: "characters", unit: "characters", number: true, of: (row) => row[2] },
  { key: "rate", label: "CER", unit: "CER", number: true, of: (row) => row[1] / Math.max(1, row[2]), show: (value) => percent(value) },
  { key: "id", label: "utterance", of: (row) => row[0] },
];
const texts = { split: DATA.splits[0], sort: "distance", down: true, count: BATCH };

function marked(segments) {
  return segments.map((segment) => typeof segment === "string" ? segment : el("span", { class: "differs" },
    el("del", {}, segment[0].trim() || "∅"), el("ins", {}, segment[1].trim() || "∅")));
}
const plain = (segments, side) => segments.map((segment) => (typeof segment === "string" ? segment : segment[side])).join("");

function drawTable() {
  const column = TABLE_COLUMNS.find((one) => one.key === texts.sort);
  const wanted = $("search").value.trim().toUpperCase();
  const found = texts.split.rows.filter((row) => !wanted || [row[0], plain(row[3], 0), plain(row[3], 1)].some((text) => text.toUpperCase().includes(wanted)));
  const compare = (a, b) => { const [x, y] = [column.of(a), column.of(b)]; return x < y ? -1 : x > y ? 1 : 0; };
  found.sort((a, b) => (texts.down ? compare(b, a) : compare(a, b)));
  $("table").tHead.replaceChildren(el("tr", {}, ...TABLE_COLUMNS.map((one) => {
    const mine = one.key === texts.sort;
    const button = el("button", { type: "button", "data-key": one.key }, one.label + (mine ? (texts.down ? " ↓" : " ↑") : ""));
    button.addEventListener("click", () => {
      Object.assign(texts, { sort: one.key, down: mine ? !texts.down : Boolean(one.number) });
      drawTable();
      $("table").tHead.querySelector(`[data-key=${one.key}]`).focus();
    });
    return el("th", { class: one.number ? "number" : "", "aria-sort": mine ? (texts.down ? "descending" : "ascending") : null }, button);
  }), el("th", { class: "text" }, "text")));
  $("table").tBodies[0].replaceChildren(...found.slice(0, texts.count).map((row) => el("tr", {},
    ...TABLE_COLUMNS.map((one) => el("td", { class: one.number ? "number" : one.key, "data-unit": one.unit }, (one.show || String)(one.of(row)))),
    el("td", { class: "text" }, soundButton(row[4], row[0]), ...marked(row[3])))));
  const left = found.length - texts.count;
  $("more").hidden = left <= 0;
  $("more").textContent = `${Math.min(left, 4 * BATCH)} more`;
  const kept = texts.split.rows.length < texts.split.utterances ? `, the ${number(texts.split.rows.length)} with the largest distance` : "";
  $("listed").textContent = `${number(Math.min(texts.count, found.length))} of ${number(found.length)}${wanted ? " found" : ""}${kept}`;
}
function chooseSplit(index) {
  texts.split = DATA.splits[index];
  texts.count = BATCH;
  const { utterances, score, file, written, search } = texts.split;
  $("scores").replaceChildren(`${number(utterances)} utterances` + (score ? `, distance ${number(score.distance)}, CER ${percent(score.cer)}, WER ${percent(score.wer)} ` : " "),
    el("span", { class: "muted" }, `${file}, ${written}${search ? `, ${search}` : ""}`));
  drawTable();
}
if (DATA.splits.length) {
  if (DATA.sounds.length) $("texts").querySelector(".note").append(" ▶ plays what was said, where the distance is largest.");
  $("split").append(...DATA.splits.map((split, index) => el("option", { value: index }, split.name)));
  $("split").addEventListener("change", () => { chooseSplit($("split").selectedIndex); drawErrors(); });
  $("search").addEventListener("input", () => { texts.count = BATCH; drawTable(); });
  $("more").addEventListener("click", () => { texts.count += 4 * BATCH; drawTable(); });
  chooseSplit(0);
} else $("texts").hidden = true;
