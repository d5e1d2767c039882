// What the page does beside reading: its buttons.
import { unanswered } from "./connection.js";

const csrf = document.querySelector("meta[name=csrf]")?.content ?? "";
const told = document.getElementById("told");

// On a phone the links are one line that scrolls: begin where one is.
document.querySelector("header nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button) return;
  if (button.dataset.ask && !(await sure(button.dataset.ask, button.textContent))) return;
  button.disabled = true;
  const answer = await fetch(button.dataset.post, {
    method: "POST",
    headers: { "X-CSRF-Token": csrf, "Content-Type": "application/json" },
    body: button.dataset.body ?? "{}",
  }).catch(() => null);
  button.disabled = false;
  if (!answer) {
    unanswered();
    told.textContent = "The server does not answer: nothing was done, as far as this page can tell. Try again.";
    return;
  }
  const document_ = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    told.textContent = [document_.detail, document_.fix].filter(Boolean).join(": ") || "it failed";
  } else if (button.dataset.then === "build") {
    location.assign(`/builds/${document_.items[0].id}`);
  } else if (button.dataset.then === "stay") {
    told.textContent = "";
    document.body.dispatchEvent(new Event("changed"));
  } else {
    told.textContent = "";
    location.reload();
  }
});

// Ask in plain words before something is ended. The button that does it is called what was pressed.
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
