// What the page does beside reading: its buttons.
import { loggedOut, unanswered } from "./connection.js";

const told = document.getElementById("told");

// On a phone the links are one line that scrolls: begin where one is.
document.querySelector("header nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button || button.disabled) return;
  const wish = { ...button.dataset };   // a poll may make another button of it while it is asked
  told.textContent = "";
  if (wish.ask && !(await sure(wish.ask, wish.yes ?? button.textContent))) return;
  button.disabled = true;
  button.ariaBusy = "true";   // the end of a VM takes up to half a minute
  const answer = await fetch(wish.post, {
    method: "POST",
    headers: { "X-CSRF-Token": csrf(), "Content-Type": "application/json" },
    body: wish.body ?? "{}",
  }).catch(() => null);
  button.disabled = false;
  button.ariaBusy = null;
  if (document.activeElement === document.body) button.focus();   // what is disabled has no focus
  if (!answer) {
    unanswered();
    told.textContent = "The server does not answer: nothing was done, as far as this page can tell. Try again.";
    return;
  }
  const document_ = await answer.json().catch(() => ({}));
  if (answer.status === 401) {
    loggedOut();
    told.textContent = "Nothing was done: your login is over.";
  } else if (!answer.ok) {
    told.textContent = [document_.detail, document_.fix].filter(Boolean).join(": ") || "it failed";
  } else if (wish.then === "build") {
    location.assign(`/builds/${document_.items[0].id}`);
  } else if (wish.then === "stay") {
    document.body.dispatchEvent(new Event("changed"));
  } else {
    location.reload();
  }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") told.textContent = ""; });

// Of the login that the page was last shown with: another tab may have logged in anew.
function csrf() { return document.getElementById("paused").dataset.csrf; }

// Ask in plain words before something is ended. The button that does it is called what was pressed, or `data-yes`.
function sure(question, name) {
  const dialog = document.getElementById("sure");
  dialog.querySelector("p").textContent = question;
  dialog.querySelector("button[value=yes]").textContent = name;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}
