const player = document.getElementById("player");
const play = event => {
  const point = event.target.closest("circle");
  if (!point) return;
  document.querySelector(".playing")?.classList.remove("playing");
  point.classList.add("playing");
  document.getElementById("name").textContent = point.querySelector("title").textContent;
  player.src = point.dataset.source;
  player.play().catch(() => {});
};
const map = document.querySelector("svg");
for (const kind of ["pointerover", "click", "focusin"]) map.addEventListener(kind, play);
map.addEventListener("keydown", event => {
  if (event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  play(event);
});
