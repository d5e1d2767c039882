// One part of a log in the page: the output of a step, of which a window of lines is there. It grows at
// both ends as its reader scrolls, and what is far away goes.
import { noted, unanswered } from "./connection.js";
import { rowOf } from "./log_text.js";

export const COUNT = 500;   // lines that are asked for at once
const MOST = 4000;          // … that are in the page, of one part
const BLOCK = 100;          // … in one element, which is laid out when it is near
const LINE = 19;            // pixels of a line, about

export const number = (n) => n.toLocaleString("en");
export const numberOf = (row) => Number(row.id.slice(1));

// The first row of the log that its reader sees some of.
export function firstSeen(log) {
  const { top } = log.getBoundingClientRect();
  const below = (element) => element.getBoundingClientRect().bottom > top;
  return [...([...log.querySelectorAll(".block")].find(below)?.children ?? [])].find(below);
}

// Change what is in the log; what its reader sees stays where it is, and what is selected selected.
export function still(log, change) {
  const row = firstSeen(log), before = row?.getBoundingClientRect().top;
  const chosen = getSelection();
  const ends = [chosen.anchorNode, chosen.anchorOffset, chosen.focusNode, chosen.focusOffset];
  log.style.overflowAnchor = "none";
  change();
  if (row?.isConnected) log.scrollTop += row.getBoundingClientRect().top - before;
  if (log.contains(ends[0]) && ends[2].isConnected && (chosen.anchorNode !== ends[0] || chosen.focusNode !== ends[2]))
    chosen.setBaseAndExtent(...ends);
  requestAnimationFrame(() => { log.style.overflowAnchor = ""; });
}

// Fetch lines, from `first` to `last`: none when the server does not answer, or has them no more.
async function fetched(url, first, last) {
  const found = [];
  while (first <= last) {
    const answer = await fetch(`${url}/lines?first=${first}&count=${Math.min(COUNT, last - first + 1)}`)
      .catch(() => null);
    if (!answer) { unanswered(); return []; }
    if (!noted(answer.status)) return [];
    const { items } = await answer.json();
    if (!items.length) break;
    for (const line of items) found.push(line);
    first = found.at(-1).seq + 1;
  }
  return found;
}

export class LogPart {
  // `log`: the box that scrolls; `url`: of the log; `onRows`: hears of rows that came.
  constructor(log, url, section, onRows) {
    Object.assign(this, { log, url, onRows, lo: 1, hi: 0, touched: false });
    this.element = document.createElement("section");
    this.heading = document.createElement("h3");
    this.toggle = document.createElement("button");
    this.toggle.type = "button";
    this.heading.append(this.toggle);
    this.body = document.createElement("div");
    this.earlier = this.gap("earlier", () => this.grow(-1));
    this.later = this.gap("later", () => this.grow(1));
    this.lines = document.createElement("div");
    this.body.append(this.earlier, this.lines, this.later);
    this.element.append(this.heading, this.body);
    this.toggle.addEventListener("click", () => { this.touched = true; this.open ? this.close() : this.showEnd(); });
    this.update(section);
    this.close();
  }

  gap(name, load) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `gap ${name}`;
    button.hidden = true;
    button.addEventListener("click", load);
    button.loadMore = load;
    return button;
  }

  // Take over what the outline says of it.
  update(section) {
    this.section = section;
    this.first = section.first;
    this.last = section.last;
    this.element.id = `part-${section.attempt ?? 0}-${section.step ?? "none"}`;
    const { exit_code: code, started_at: began, ended_at: ended } = section;
    const goes = section.over ? "cut short" : "running";  // a step that began and has no end
    const state = code ? "failure" : code === 0 ? "success" : !began || ended ? "" : section.over ? "cancelled" : "running";
    const seconds = began && ended ? (Date.parse(ended) - Date.parse(began)) / 1000 : null;
    const words = [
      ["name", section.attempt > 1 ? `${section.title} (attempt ${section.attempt})` : section.title],
      ["took", seconds === null ? (began ? goes : "") : span(seconds)],
      ["code", code ? `exit ${code}` : ""],
      ["many", ""],
    ];
    const mark = document.createElement("span");
    mark.className = `mark ${state}`;
    this.toggle.replaceChildren(mark, ...words.map(([name, text]) => {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      if (name === "name") part.title = text;  // it is cut where there is no room
      return part;
    }));
    this.note();
  }

  // Let go of the rows that are another part's by now.
  release() {
    if (this.lo >= this.first && this.hi <= this.last) return [];
    const rows = [...this.lines.querySelectorAll(".block > div")].filter((row) => !this.has(numberOf(row)));
    for (const row of rows) {
      const block = row.parentElement;
      row.remove();
      if (!block.childElementCount) block.remove();
    }
    [this.lo, this.hi] = this.lines.childElementCount
      ? [Math.max(this.lo, this.first), Math.min(this.hi, this.last)]
      : [this.first, this.first - 1];
    this.note();
    return rows;
  }

  // Take over rows that another part let go of, in order, unless its reader has closed it.
  adopt(rows) {
    if (!rows.length || (this.touched && !this.open)) return;
    if (this.hi < this.lo) [this.lo, this.hi] = [numberOf(rows[0]), numberOf(rows[0]) - 1];
    this.body.hidden = false;
    this.attach(rows.filter((row, n) => numberOf(row) === this.hi + 1 + n));
    this.note();
  }

  get open() { return !this.body.hidden; }
  get many() { return Math.max(0, this.last - this.first + 1); }
  // Whether its newest line is in the page.
  get whole() { return this.hi >= this.last; }
  has(line) { return line >= this.first && line <= this.last; }
  row(line) { return line >= this.lo && line <= this.hi ? document.getElementById(`L${line}`) : null; }

  note() {
    const text = (button, count, word) => {
      button.hidden = count <= 0;
      button.textContent = `${number(count)} ${word} ${count === 1 ? "line" : "lines"}`;
    };
    const some = this.hi >= this.lo;
    text(this.earlier, some ? this.lo - this.first : 0, "earlier");
    text(this.later, some ? this.last - this.hi : this.open ? this.many : 0, "later");
    this.toggle.querySelector(".many").textContent = `${number(this.many)} ${this.many === 1 ? "line" : "lines"}`;
    this.toggle.setAttribute("aria-expanded", String(this.open));
    this.element.hidden = this.many === 0 && !this.section.started_at;
  }

  close() {
    this.wanted = null;
    this.body.hidden = true;
    this.lines.replaceChildren();
    [this.lo, this.hi] = [this.first, this.first - 1];
    this.note();
  }

  // Show the newest lines, those too that come meanwhile.
  async showEnd() {
    await this.showFrom(this.last - COUNT + 1);
    if (!this.whole) await this.grow(1);
  }

  // Show the lines around one.
  async showLine(line) {
    if (!this.open || !this.row(line)) await this.showFrom(line - COUNT / 2);
    return this.row(line);
  }

  async showFrom(first) {
    this.body.hidden = false;
    this.note();
    first = Math.max(this.first, first);
    const wanted = this.wanted = {};   // by whoever asks last
    const found = await fetched(this.url, first, Math.min(this.last, first + COUNT - 1));
    if (this.wanted !== wanted) return;
    this.wanted = null;
    this.lines.replaceChildren();
    [this.lo, this.hi] = [first, first - 1];
    this.add(found);
    this.note();
  }

  // Load more lines at one end, and let go of what is far at the other.
  async grow(towards) {
    if (this.loading || this.wanted) return;
    this.loading = true;
    try {
      const [first, last] = towards < 0
        ? [Math.max(this.first, this.lo - COUNT), this.lo - 1]
        : [this.hi + 1, Math.min(this.last, this.hi + COUNT)];
      const found = await fetched(this.url, first, last);
      const usable = towards < 0 ? found.at(-1)?.seq === this.lo - 1 : found[0]?.seq === this.hi + 1;
      if (usable) still(this.log, () => (towards < 0 ? this.prepend(found) : this.append(found)));
    } finally {
      this.loading = false;
    }
  }

  prepend(found) {
    const rows = found.map((line) => rowOf(line)), blocks = [];
    for (let n = 0; n < rows.length; n += BLOCK) blocks.push(this.block(rows.slice(n, n + BLOCK)));
    this.lines.prepend(...blocks);
    this.lo = found[0].seq;
    while (this.hi - this.lo >= MOST) this.drop(this.lines.lastElementChild);
    this.note();
  }

  append(found) {
    this.add(found);
    while (this.hi - this.lo >= MOST) this.drop(this.lines.firstElementChild);
    this.note();
  }

  // Lines came, up to number `last`; those between what is there and them came too fast. Without
  // `follows` its reader is elsewhere in it, and nothing moves.
  arrive(found, last, follows) {
    const whole = this.whole, joins = found[0].seq <= this.hi + 1;
    this.last = Math.max(this.last, last);
    if (this.open && (whole || joins) && (follows || this.hi - this.lo < MOST)) {
      if (!joins && follows) {
        this.lines.replaceChildren();
        [this.lo, this.hi] = [found[0].seq, found[0].seq - 1];
      }
      if (found[0].seq <= this.hi + 1) follows ? this.append(found) : this.add(found);
    }
    this.note();
  }

  // Add lines after the last that is there; one that is there already, and was longer since, is replaced.
  add(found) {
    for (const line of found) {
      const old = this.row(line.seq), fresh = old && rowOf(line);
      if (old && old.children[1].textContent !== fresh.children[1].textContent) old.replaceWith(fresh);
    }
    this.attach(found.filter((line) => line.seq > this.hi).map((line) => rowOf(line)));
  }

  // Put rows after the last.
  attach(rows) {
    let at = 0;
    const tail = this.lines.lastElementChild;
    if (tail && tail.childElementCount < BLOCK) {
      at = Math.min(rows.length, BLOCK - tail.childElementCount);
      this.fill(tail, rows.slice(0, at));
    }
    for (; at < rows.length; at += BLOCK) this.lines.append(this.block(rows.slice(at, at + BLOCK)));
    if (rows.length) this.hi = numberOf(rows.at(-1));
  }

  block(rows) {
    const block = document.createElement("div");
    block.className = "block";
    this.fill(block, rows);
    return block;
  }

  fill(block, rows) {
    block.append(...rows);
    block.style.containIntrinsicBlockSize = `auto ${block.childElementCount * LINE}px`;
    this.onRows(rows);
  }

  drop(block) {
    const lines = block.childElementCount;
    if (block === this.lines.firstElementChild) this.lo += lines;
    else this.hi -= lines;
    block.remove();
  }
}

function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  if (seconds < 60) return `${Math.floor(seconds)}s`;
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`;
  return `${Math.floor(seconds / 3600)}h${two((seconds % 3600) / 60)}m`;
}
