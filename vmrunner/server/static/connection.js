// What a page says while its server does not answer, or its login is over; it goes away by itself.
// Whoever asks the server tells it here: htmx's polls, buttons, the log.
const notice = document.getElementById("connection");
const tags = new Map();   // ETag of the last answer, by what asked
let since = null;

export function answered() {
  since = null;
  if (notice.textContent) notice.replaceChildren();
}

// `problem`: what the server said of itself, where it did.
export function unanswered(problem = "") {
  since ??= new Date();
  const time = since.toLocaleTimeString([], { hour12: false });
  const words = problem
    ? `The server cannot answer since ${time} (${problem}). Trying again.`
    : `No answer from the server since ${time}. Trying again.`;
  if (notice.textContent !== words) notice.replaceChildren(words);
}

export function loggedOut() {
  const link = document.createElement("a");
  link.href = `/login?next=${encodeURIComponent(location.pathname + location.search + location.hash)}`;
  link.textContent = "Log in";
  if (notice.querySelector("a")?.href !== link.href) notice.replaceChildren("Your login is over. ", link);
}

// Take note of an answer's status; true: it is what was asked for.
export function noted(status) {
  if (status === 401) loggedOut();
  else if (status >= 500) unanswered(String(status));
  else answered();
  return status < 400;
}

document.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
  const tag = tags.get(ctx.sourceElement.id);
  if (tag) ctx.request.headers["If-None-Match"] = tag;
});
document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
  const tag = ctx.response.headers.get("ETag");
  if (noted(ctx.response.status) && tag) tags.set(ctx.sourceElement.id, tag);
});
document.addEventListener("htmx:error", ({ detail: { ctx } }) => { if (!ctx?.response) unanswered(); });
// What the reader opened or closed stays so.
htmx.registerExtension("kept-open", {
  htmx_before_morph_attr: (element, { attrName }) => element.tagName !== "DETAILS" || attrName !== "open",
});
