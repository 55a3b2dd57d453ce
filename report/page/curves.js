// Curves of the run by epoch.
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
for (const panel of DATA.rows.length ? PANELS : []) {
  const xs = DATA.rows.map((row) => row.epoch);
  const lines = panel.series
    .map(([key, label], place) => ({ label, colour: COLOURS[place], xs, values: DATA.rows.map((row) => valueOf(row, key, panel.scale)) }))
    .filter((line) => line.values.some((value) => value !== null));
  makeChart($("curves"), panel, lines, {
    label: "epoch", mark: DATA.best, exact: true,
    write: (epoch) => `epoch ${epoch}${epoch === DATA.best ? ", best" : ""}`,
    click: (epoch) => { showMaps(epoch); $("maps-by-epoch").scrollIntoView({ block: "start" }); },
  });
}
$("losses").textContent = DATA.losses;
if (!DATA.rows.length) $("learning").hidden = true;
