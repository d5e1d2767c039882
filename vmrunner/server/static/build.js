// What the page of a build does beside its log: a command to copy.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const name = button.textContent;
  const copied = await copy(button.dataset.copy);
  button.textContent = copied ? "Copied" : "It could not be copied";
  setTimeout(() => { button.textContent = name; }, 2000);
});

// Without TLS a browser has no clipboard for pages.
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}
