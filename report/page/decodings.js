// Every decoding with its settings and scores, the newest first.
const bestDecoding = (split) => DATA.decodings.find((one) => one.best && one.split === split && one.distance !== null);
const DECODING_COLUMNS = [
  ["partition", "", (one) => one.split],
  ["distance", "number", (one) => number(one.distance)],
  ["CER", "number", (one) => percent(one.cer)],
  ["WER", "number", (one) => percent(one.wer)],
  ["settings", "", (one) => one.search],
  ["command", "", (one) => `${one.command}, ${one.time.slice(0, 16)}`],
];
if (DATA.decodings.length) {
  $("decoded").tHead.append(el("tr", {}, ...DECODING_COLUMNS.map(([label, kind]) => el("th", { class: kind }, label))));
  $("decoded").tBodies[0].append(...DATA.decodings.map((one) =>
    el("tr", { class: one.best ? "chosen" : null }, ...DECODING_COLUMNS.map(([label, kind, show]) => el("td", { class: kind, "data-unit": label }, show(one))))));
} else $("decodings").hidden = true;
