// Times go on in the page by themselves, so that a page in which only time went on stays as it is.

// As the server writes them (`server/html_times.py`).
function span(seconds) {
  const s = Math.max(0, Math.floor(seconds)), two = (n) => String(n).padStart(2, "0");
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${two(Math.floor((s % 3600) / 60))}m`;
  return `${Math.floor(s / 86400)}d${two(Math.floor((s % 86400) / 3600))}h`;
}

function ago(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 10) return "just now";
  if (s < 60) return `${s}s ago`;
  if (s < 3600) return `${Math.floor(s / 60)}m ago`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ago`;
  return `${Math.floor(s / 86400)}d ago`;
}

const SHOWN = {
  ago: (past) => ago(past),
  lasting: (past) => span(past),
  until: (past) => (past < 0 ? `in ${span(-past)}` : "now"),
};
// The server's clock beside ours, in seconds: they may differ by hours.
const ahead = Number(document.body.dataset.now) - Date.now() / 1000 || 0;

function tick() {
  const now = Date.now() / 1000 + ahead;
  for (const time of document.querySelectorAll("time[data-as]")) {
    const text = SHOWN[time.dataset.as](now - Date.parse(time.dateTime) / 1000);
    if (time.firstChild?.data !== text) time.textContent = text;
  }
}
if (!document.hidden) tick();
setInterval(() => document.hidden || tick(), 1000);
document.addEventListener("htmx:after:swap", tick);

// Titles of times in the reader's own zone, made when one looks.
document.addEventListener("pointerover", (event) => {
  const time = event.target.closest?.("time[datetime]");
  if (!time || time.dataset.local) return;
  time.dataset.local = "yes";
  time.title = `${new Date(time.dateTime).toLocaleString()}\n${time.title}`;
});
