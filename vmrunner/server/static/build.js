// What the page of a build does beside its log: a command to copy, and its terminal.
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

// What failed is told at the end of its output.
for (const output of document.querySelectorAll(".failed pre")) output.scrollTop = output.scrollHeight;

const part = document.getElementById("terminal-part");
const place = document.getElementById("terminal-place");
let terminal = null;   // xterm.js is large: it is loaded when somebody wants it

async function open() {
  part.hidden = false;
  if (!terminal) {
    const { BuildTerminal } = await import("./terminal.js");
    terminal ??= new BuildTerminal(part, () => document.getElementById("terminal-close").focus());
  }
  if (terminal.live) terminal.terminal.focus();
  else terminal.connect(place.value);
}

if (part) {
  document.addEventListener("click", (event) => {
    if (event.target.closest("#terminal, .terminal-again")) open();
    if (event.target.closest("#terminal-close")) {
      terminal?.close();
      part.hidden = true;
      document.getElementById("terminal")?.focus();
    }
  });
  place.addEventListener("change", () => terminal?.connect(place.value));
}
