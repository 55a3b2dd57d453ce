// The sound of utterances: a button for each that has one, and one player for all of them.
let heard = null; // place in DATA.sounds of what is playing

function listen(place) {
  heard = place;
  if (place === null) $("player").pause();
  else {
    $("player").src = `data:audio/mpeg;base64,${DATA.sounds[place]}`;
    $("player").play().catch(() => { if (heard === place) listen(null); });
  }
  document.querySelectorAll(".listen").forEach(showHeard);
}
function showHeard(button) {
  const playing = heard === Number(button.dataset.place);
  button.textContent = playing ? "■" : "▶";
  button.setAttribute("aria-label", `${playing ? "Stop" : "Play"} ${button.dataset.name}`);
}
function soundButton(place, name) {
  if (!Number.isInteger(place)) return null;
  const button = el("button", { type: "button", class: "listen", "data-place": place, "data-name": name });
  button.addEventListener("click", () => listen(heard === place ? null : place));
  showHeard(button);
  return button;
}
$("player").addEventListener("ended", () => listen(null));
