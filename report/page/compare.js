// Several runs: a table of results, curves over each other, what differs in their settings.
const PANELS = [
  { title: "Dev distance", unit: "characters an utterance", key: "dev_distance" },
  { title: "Dev distance, CTC alone", unit: "characters an utterance", key: "dev_ctc_distance" },
  { title: "Train loss", unit: "nats a character", key: "train_loss" },
  { title: "Dev loss", unit: "nats a character", key: "dev_loss" },
  { title: "Dev CER", unit: "%", key: "dev_cer", scale: 100 },
  { title: "Monotonicity of attention", unit: "0 to 1", key: "dev_monotonicity", bounds: [0, 1], show: (value) => (value === null ? "–" : value.toFixed(2)) },
  { title: "Learning rate", unit: "", key: "learning_rate", bounds: [0, null] },
  { title: "Gradient norm", unit: "before clipping", key: "gradient_norm" },
  { title: "Time", unit: "seconds an epoch", key: "seconds", bounds: [0, null] },
];
const HUES = ["var(--one)", "var(--two)", "var(--three)", "var(--four)", "var(--five)", "var(--six)"];
const RUNS = DATA.runs.map((run, place) => {
  let spent = 0;
  const minutes = run.rows.map((row) => (spent += (valueOf(row, "seconds") || 0) / 60));
  return { ...run, minutes, hidden: false, colour: HUES[place % HUES.length], dash: place < HUES.length ? null : "5 3" };
});
const swatchOf = (run) => el("span", { class: "swatch", style: `background:${run.colour}` });

document.title = `${RUNS.length} runs · report`;
$("name").textContent = RUNS.length <= 4 ? RUNS.map((run) => run.name).join(", ") : `${RUNS.length} runs`;
$("lead").textContent = `${RUNS.length} runs; written ${DATA.written}`;

// A table of rows of cells, the first of which are headers.
function fillTable(id, head, rows) {
  $(id).tHead.replaceChildren(el("tr", {}, head.map((cell) => el("th", { scope: "col" }, cell))));
  $(id).tBodies[0].replaceChildren(...rows.map(([first, ...cells]) => el("tr", {}, el("th", { scope: "row" }, first), cells.map((cell) => el("td", {}, cell)))));
}

function drawResults() {
  const splits = [...new Set(RUNS.flatMap((run) => run.decoded.map((one) => one.split)))];
  const columns = [
    (run) => run.best,
    ...splits.map((split) => (run) => run.decoded.find((one) => one.split === split) || null),
  ].map((find) => RUNS.map((run) => {
    const found = find(run);
    if (!found) return null;
    return "split" in found ? { distance: found.distance, cer: found.cer, wer: found.wer, note: found.search && ` · ${found.search}` }
      : { distance: valueOf(found, "dev_distance"), cer: valueOf(found, "dev_cer"), wer: valueOf(found, "dev_wer"), note: ` · epoch ${found.epoch}` };
  }));
  const least = columns.map((cells) => Math.min(...cells.filter((cell) => cell && cell.distance !== null).map((cell) => cell.distance)));
  fillTable("runs", ["run", "dev, greedy", ...splits.map((split) => `${split}, best decoding`), "epochs", "training time"], RUNS.map((run, place) => [
    [swatchOf(run), run.report ? el("a", { href: run.report.split("/").map(encodeURIComponent).join("/") }, run.name) : run.name],
    ...columns.map((cells, which) => {
      const cell = cells[place];
      if (!cell || cell.distance === null) return "–";
      const rounded = number(Math.round(cell.distance * 1000) / 1000);
      return [el(cell.distance === least[which] ? "b" : "span", {}, rounded), el("small", {}, ` CER ${percent(cell.cer)}${cell.wer === null ? "" : `, WER ${percent(cell.wer)}`}${cell.note}`)];
    }),
    run.rows.length ? String(run.rows[run.rows.length - 1].epoch) : "–",
    run.rows.length ? duration(60 * run.minutes[run.minutes.length - 1]) : "–",
  ]));
}

function drawCurves() {
  charts.length = drawings.length = 0;
  $("curves").replaceChildren();
  const byTime = $("across").value === "time", trained = RUNS.filter((run) => run.rows.length && !run.hidden);
  for (const panel of PANELS) {
    const lines = trained.map((run) => ({
      label: run.name, colour: run.colour, dash: run.dash,
      xs: byTime ? run.minutes : run.rows.map((row) => row.epoch),
      values: run.rows.map((row) => valueOf(row, panel.key, panel.scale)),
    })).filter((line) => line.values.some((value) => value !== null));
    makeChart($("curves"), panel, lines, {
      label: byTime ? "minutes" : "epoch", exact: !byTime,
      write: (place) => (byTime ? `after ${number(Math.round(place * 10) / 10)} minutes` : `epoch ${place}`),
    });
  }
  drawings.forEach((draw) => draw());
}

function drawDifferences() {
  const head = () => ["key", ...RUNS.map((run) => [swatchOf(run), run.name])];
  const cells = (rows) => rows.map(([key, ...values]) => [key, ...values.map((value) => (value === null ? "–" : value))]);
  fillTable("settings", head(), cells(DATA.differ));
  fillTable("machines", head(), cells(DATA.machines));
  $("same").textContent = DATA.differ.length ? "All other settings are the same, but for names, places and wandb. –: that run has no such key." : "None, but for names, places and wandb.";
  if (!DATA.differ.length) $("settings").hidden = true;
  if (!DATA.machines.length) $("about").hidden = true;
}

$("chosen").append(...RUNS.filter((run) => run.rows.length).map((run) => {
  const box = el("input", { type: "checkbox", checked: "" });
  box.addEventListener("change", () => { run.hidden = !box.checked; drawCurves(); });
  return el("label", {}, box, " ", swatchOf(run), run.name);
}));
$("across").addEventListener("change", drawCurves);
drawResults();
drawDifferences();
if (RUNS.some((run) => run.rows.length)) drawCurves();
else $("learning").hidden = true;
$("footer").textContent = "python -m report RUN_FOLDER RUN_FOLDER … draws this page again from what is in the folders.";
