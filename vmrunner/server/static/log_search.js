// Search over all of a log: the server finds the lines, part by part, and the page shows one after the
// other. What is found is marked without a change of the page's elements.
import { noted, unanswered } from "./connection.js";
import { number } from "./log_part.js";

const MOST = 100_000;   // lines that are noted
const PAUSE = 300;      // milliseconds without a key before it begins
const BUSY = 1000;      // milliseconds before it asks again where others search

export class LogSearch {
  // `reveal(line)`: show one; `rows()`: that are in the page; `total()`: lines of the log.
  constructor(url, { input, status, previous, next, reveal, rows, total, near }) {
    Object.assign(this, { url, input, status, reveal, rows, total, near, found: [], searched: 0, at: -1 });
    this.marks = window.Highlight ? new Highlight() : null;
    if (this.marks) CSS.highlights.set("found", this.marks);
    let timer = 0;
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => this.begin(), PAUSE); });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); clearTimeout(timer); this.go(event.shiftKey ? -1 : 1); }
      if (event.key === "Escape" && input.value) { input.value = ""; this.begin(); }
    });
    input.form.addEventListener("submit", (event) => event.preventDefault());
    previous.addEventListener("click", () => this.go(-1));
    next.addEventListener("click", () => this.go(1));
  }

  get text() { return this.input.value; }

  async begin() {
    if (this.text === this.former) return;
    this.former = this.text;
    this.asked?.abort();
    await this.looking;
    if (this.text !== this.former) return;
    Object.assign(this, { found: [], searched: 0, at: -1, full: false });
    this.pattern = this.text && new RegExp(this.text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
    this.repaint();
    if (!this.text) { this.tell(""); return; }
    if (await this.look() && this.found.length) {
      const near = this.near();
      const after = this.found.findIndex((line) => line >= near);
      this.at = after < 0 ? this.found.length - 1 : after;
      this.show();
    }
  }

  // Search what was not searched yet. False: it was broken off.
  look() {
    return this.looking ??= this.lookOn().finally(() => { this.looking = null; });
  }

  async lookOn() {
    const asked = this.asked = new AbortController();
    try {
      for (let done = false; !done && !this.full;) {
        const query = new URLSearchParams({ text: this.text, after: this.searched });
        const answer = await fetch(`${this.url}/search?${query}`, { signal: asked.signal });
        if (answer.status === 429 || answer.status === 503) {
          await new Promise((over) => setTimeout(over, BUSY));
          if (asked.signal.aborted) return false;
          continue;
        }
        if (!noted(answer.status)) { this.tell("The search was refused."); return false; }
        const [part] = (await answer.json()).items;
        for (const line of part.lines) this.found.push(line);
        ({ searched: this.searched, done } = part);
        this.full = this.found.length >= MOST;
        if (!done) this.tell(`${this.count()} in ${number(this.searched)} of ${number(this.total())} lines…`);
      }
    } catch (error) {
      if (error.name !== "AbortError") { unanswered(); this.tell("The search was broken off."); }
      return false;
    }
    this.tell(this.count());
    return true;
  }

  count() {
    const many = this.found.length;
    if (!many) return `not in ${number(this.searched)} lines`;
    return `${this.full ? "more than " : ""}${number(many)} ${many === 1 ? "line" : "lines"}`;
  }

  async go(step) {
    if (this.text !== this.former) { await this.begin(); return; }
    if (!this.text) return;
    if (this.looking) return;  // it shows one at its end
    if (this.searched < this.total() && !this.full && !await this.look()) return;
    if (!this.found.length) return;
    this.at = (this.at + step + this.found.length) % this.found.length;
    this.show();
  }

  show() {
    this.tell(`${number(this.at + 1)} of ${this.count()}`);
    this.reveal(this.found[this.at]);
  }

  tell(words) { this.status.textContent = words; }

  repaint() {
    this.marks?.clear();
    if (this.pattern) this.paint(this.rows());
  }

  // Mark what is found in rows that are in the page.
  paint(rows) {
    if (!this.marks || !this.pattern) return;
    for (const row of rows) {
      const walker = document.createTreeWalker(row.children[1], NodeFilter.SHOW_TEXT);
      for (let node; (node = walker.nextNode());) {
        for (const match of node.data.matchAll(this.pattern)) {
          const range = new Range();
          range.setStart(node, match.index);
          range.setEnd(node, match.index + match[0].length);
          this.marks.add(range);
        }
      }
    }
  }
}
