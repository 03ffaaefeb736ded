// The selection is the rectangle from `anchor` to `head`, each [row, column]; it outlasts new pictures.
let anchor = [0, 0], head = [0, 0], dragging = false, pressed = "";
const positionOf = cell => cell.dataset.cell.split(",").map(Number);
const cellAt = position => element.querySelector(`[data-cell="${position}"]`);
const between = (x, a, b) => Math.min(a, b) <= x && x <= Math.max(a, b);
const select = (position, extend) => {
  if (!cellAt(position)) return;
  head = position;
  if (!extend || !cellAt(anchor)) anchor = position;
  for (const cell of element.querySelectorAll("[data-cell]")) {
    const [row, column] = positionOf(cell);
    cell.ariaSelected = between(row, anchor[0], head[0]) && between(column, anchor[1], head[1]);
    cell.tabIndex = -1;
  }
  cellAt(head).tabIndex = 0;
  const codes = cellAt(head).dataset.codes.split(" ");
  element.querySelectorAll("input").forEach((input, i) => { input.value = codes[i]; });
};
const selected = () => [...element.querySelectorAll('[aria-selected="true"]')].map(positionOf);
element.addEventListener("pointerdown", event => {
  const cell = event.target.closest("[data-cell]");
  if (!cell) return;
  dragging = true;
  select(positionOf(cell), event.shiftKey);
});
element.addEventListener("pointermove", event => {
  const under = dragging && document.elementFromPoint(event.clientX, event.clientY);
  const cell = under && under.closest("[data-cell]");
  if (cell && positionOf(cell).join() !== head.join()) select(positionOf(cell), true);
});
window.addEventListener("pointerup", () => { dragging = false; });
const steps = {ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1]};
element.addEventListener("keydown", event => {
  const step = steps[event.key];
  if (!step || !event.target.dataset.cell) return;
  event.preventDefault();
  select([head[0] + step[0], head[1] + step[1]], event.shiftKey);
  cellAt(head).focus();
});
element.addEventListener("click", event => {
  const button = event.target.closest("[data-move]");
  if (!button) return;
  pressed = button.dataset.move;
  const codes = [...element.querySelectorAll("input")].map(input => Number(input.value));
  if (pressed === "repaint") trigger("repaint", {cells: selected()});
  if (pressed === "write") trigger("write", {cells: selected(), codes});
  if (pressed === "undo") trigger("undo", {});
});
watch("value", () => {
  const last = head;
  select(anchor);
  select(last, true);
  const again = pressed && element.querySelector(`[data-move="${pressed}"]`);
  if (again && document.activeElement === document.body) again.focus();
  pressed = "";
});
document.addEventListener("play", event => {
  const others = [...document.querySelectorAll("audio")].filter(sound => sound !== event.target);
  for (const sound of others) sound.pause();
  const field = element.querySelector(".field");
  if (!field || !element.contains(event.target)) return;
  const seconds = Number(field.dataset.seconds);
  const follow = () => {
    const sound = event.target;
    field.style.setProperty("--at", sound.ended ? "-2px" : 100 * sound.currentTime / seconds + "%");
    if (!sound.paused) requestAnimationFrame(follow);
  };
  follow();
}, true);
