// The common codes of the row of the last marked cell: what they look and sound like, to be written by a click.
import * as player from "./player.js";
import * as stage from "./stage.js";

const box = document.getElementById("codes"), swatches = box.querySelector(".swatches");
const input = document.getElementById("code");
const rows = new Map();
let row = -1, write = () => {};

export const onWrite = handler => { write = handler; };
const codesOfRow = async row => {
  if (!rows.has(row)) rows.set(row, fetch(`codes/${row}`).then(answer => answer.json()));
  const found = await rows.get(row).catch(() => []);
  if (Array.isArray(found) && found.length) return found;
  rows.delete(row);  // a failed answer: asked for again with the next cell
  return [];
};
const hear = code => player.play(`code ${row} ${code}`, {url: `codes/${row}/${code}.wav`, once: true});

export const show = async () => {
  const cell = stage.headCell();
  box.hidden = !cell;
  if (!cell) return;
  const codes = stage.open().codes[cell[0]][cell[1]];
  if (document.activeElement !== input) input.value = codes[0];
  mark(codes[0]);
  if (cell[0] === row) return;
  row = cell[0];
  const shown = row;
  box.querySelector("b").textContent = stage.open().bands[row];
  const found = await codesOfRow(row);
  if (shown !== row) return;
  if (!found.length) row = -1;
  swatches.replaceChildren(...found.map(({code, picture}) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.code = code;
    button.ariaLabel = `code ${code}: write it`;
    button.append(Object.assign(new Image(), {src: picture, alt: ""}), String(code));
    return button;
  }));
  mark(codes[0]);
};
const mark = code => {
  for (const button of swatches.children)
    button.ariaPressed = button.dataset.code === String(code);
};
const codeOf = event => event.target.closest("[data-code]")?.dataset.code;
swatches.addEventListener("pointerover", event => {
  const code = codeOf(event);
  if (code && event.pointerType === "mouse") hear(code);
});
swatches.addEventListener("focusin", event => {
  if (event.target.matches(":focus-visible")) hear(codeOf(event));
});
swatches.addEventListener("click", event => {
  const code = codeOf(event);
  if (code) write(Number(code));
});
// Not in an empty field, whose number would be 0, nor where the server would refuse it.
for (const [id, use] of [["hear", hear], ["write", code => write(code)]])
  document.getElementById(id).addEventListener("click", () => { if (input.reportValidity()) use(Number(input.value)); });
