element.addEventListener("click", event => {
  const button = event.target.closest("[data-index]");
  if (button) trigger("take", {index: Number(button.dataset.index)});
});
