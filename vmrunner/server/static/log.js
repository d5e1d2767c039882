// The log of a build: its steps, each with the lines that are looked at, from the end on; new ones as
// they come; a link to every line.
import { noted, unanswered } from "./connection.js";
import { LogPart, firstSeen, number, numberOf, still } from "./log_part.js";
import { LogSearch } from "./log_search.js";
import { follow } from "./log_stream.js";
import { rowOf } from "./log_text.js";

const WHOLE = 1 << 20;   // bytes of a line that is asked for as a whole
const NEAR = 600;        // pixels from what is seen, in which more lines are loaded
const RUN_OUT = 1000;    // milliseconds in which a scroll that was animated may still go on
const NONE = { step: null, attempt: null, title: "Log", first: 1, last: 0, started_at: null, ended_at: null, exit_code: null };

const box = document.getElementById("log");
if (box) new LogView(box).start();

function LogView(log) {
  const url = log.dataset.url;
  const lines = document.getElementById("lines");
  const status = document.getElementById("log-status");
  const toEnd = document.getElementById("log-end");
  let parts = [], total = 0, over = false, follows = true, waiting = [], latest = 0, top = 0;
  let aim = null, aimed = 0;   // where its reader asked to be, until the box may have come to rest
  let awaited = 0;   // the line that the address names, while it is still to come

  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !entry.target.hidden) more(entry.target);
  }, { root: log, rootMargin: `${NEAR}px` });

  async function more(button) {
    observer.unobserve(button);
    await button.loadMore();
    if (!button.hidden) requestAnimationFrame(() => observer.observe(button));  // it may still be near
    else observer.observe(button);
  }

  const search = new LogSearch(url, {
    input: document.getElementById("search"),
    status: document.getElementById("found"),
    previous: document.getElementById("found-previous"),
    next: document.getElementById("found-next"),
    reveal: (line) => reveal(line),
    rows: () => log.querySelectorAll(".block > div"),
    total: () => total,
    near: () => {
      const row = follows ? null : firstSeen(log);
      return row ? numberOf(row) : Infinity;
    },
  });

  // --- its steps ---

  async function outline() {
    const answer = await fetch(`${url}/outline`).catch(() => null);
    if (!answer) { unanswered(); return false; }
    if (!noted(answer.status)) return false;
    const document_ = await answer.json();
    const sections = document_.items.length ? document_.items : [NONE];
    if (document_.ended) for (const section of sections) section.over = true;
    total = Math.max(total, sections.at(-1).last);
    if (!document_.ended) sections.at(-1).last = Math.max(sections.at(-1).last, total);
    still(log, () => arrange(sections));
    tell();
    return true;
  }

  // Show these sections. Rows that are there stay, in whichever part they are by now.
  function arrange(sections) {
    const former = new Map(parts.map((part) => [`${part.section.attempt} ${part.section.step}`, part]));
    const rows = [];
    parts = sections.map((section) => {
      const key = `${section.attempt} ${section.step}`;
      const part = former.get(key);
      former.delete(key);
      if (part) {
        part.update(section);
        part.heading.hidden = section === NONE;
        rows.push(...part.release());
        return part;
      }
      const fresh = new LogPart(log, url, section, (found) => search.paint(found));
      fresh.heading.hidden = section === NONE;
      observer.observe(fresh.earlier);
      observer.observe(fresh.later);
      return fresh;
    });
    for (const part of former.values()) {
      rows.push(...part.lines.querySelectorAll(".block > div"));
      part.element.remove();
    }
    parts.forEach((part, n) => { if (log.children[n] !== part.element) log.insertBefore(part.element, log.children[n] ?? null); });
    rows.sort((one, other) => numberOf(one) - numberOf(other));
    for (const part of parts) part.adopt(rows.filter((row) => part.has(numberOf(row))));
  }

  // The part that is looked at first: the one that failed, or the last that said something.
  function foremost() {
    const shown = parts.filter((part) => part.many);
    return shown.findLast((part) => part.section.exit_code) ?? shown.at(-1) ?? parts.at(-1);
  }

  function tell() {
    lines.textContent = !total ? (over ? "0 lines: nothing was written" : "nothing yet")
      : `${number(total)} ${total === 1 ? "line" : "lines"}` + (over ? "" : follows ? ", followed" : ", more may come");
    toEnd.disabled = !total;
  }

  // --- places in it ---

  const selected = () => {
    const selection = getSelection();
    return !selection.isCollapsed && log.contains(selection.anchorNode);
  };

  function scrollToEnd() {
    log.scrollTop = log.scrollHeight;
    top = log.scrollTop;
    follows = true;
    tell();
  }

  // Go there, and again where a scroll that the browser animates (of the key Home, say) goes on and
  // carries the box away: it outlives each scrollTop that is set. Whoever scrolls anew is let go.
  function hold(place) {
    aim = place;
    clearTimeout(aimed);
    aimed = setTimeout(() => { aim = null; }, RUN_OUT);
    aim();
  }
  for (const hand of ["wheel", "touchstart", "pointerdown", "keydown"])
    log.addEventListener(hand, () => { aim = null; }, { passive: true, capture: true });

  async function reveal(line, scroll = true) {
    const part = parts.find((each) => each.has(line));
    const row = await part?.showLine(line);
    for (const other of log.querySelectorAll(".here")) other.classList.remove("here");
    status.textContent = part ? "" : `There is no line ${number(line)}: the log has ${number(total)}.`;
    if (!row) return;   // or its reader went elsewhere meanwhile
    row.classList.add("here");
    if (!scroll) return;
    follows = false;
    const center = () => { if (row.isConnected) row.scrollIntoView({ block: "center" }); };
    hold(center);
    requestAnimationFrame(() => { if (aim === center) center(); });  // what is above it is laid out now
    tell();
  }

  // Go where the address leads; false: it leads nowhere in the log.
  async function visit() {
    const line = /^#L(\d{1,15})$/.exec(location.hash);
    awaited = line && !over && Number(line[1]) > total ? Number(line[1]) : 0;
    if (awaited) status.textContent = `Line ${number(awaited)} is still to come.`;
    else if (line) await reveal(Number(line[1]));
    if (line) return !awaited;
    const step = /^#step-(\d{1,6})$/.exec(location.hash);
    const part = step && parts.findLast((each) => each.section.step === Number(step[1]));
    if (!part) return false;
    if (!part.open) await part.showEnd();
    follows = false;
    part.element.scrollIntoView({ block: "start" });
    part.toggle.focus({ preventScroll: true });
    return true;
  }

  log.addEventListener("scroll", () => {
    aim?.();
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 30;
    const before = follows;
    if (atEnd) follows = parts.at(-1)?.whole ?? true;
    else if (log.scrollTop < top - 2) follows = false;
    top = log.scrollTop;
    if (before !== follows) tell();
  }, { passive: true });
  toEnd.addEventListener("click", async () => {
    const last = parts.filter((part) => part.many).at(-1);
    if (last && !(last.open && last.whole)) await last.showEnd();
    hold(scrollToEnd);
  });
  addEventListener("hashchange", visit);
  log.addEventListener("click", async (event) => {
    const link = event.target.closest("a[href^='#L']");
    if (link) {
      event.preventDefault();
      history.replaceState(null, "", link.hash);
      reveal(Number(link.hash.slice(2)), false);
    }
    const cut = event.target.closest("button[data-line]");
    if (!cut) return;
    const answer = await fetch(`${url}/lines?first=${cut.dataset.line}&count=1&width=${WHOLE}`).catch(() => null);
    if (!answer) unanswered();
    else if (noted(answer.status)) cut.parentElement.replaceWith(rowOf((await answer.json()).items[0], true));
  });

  // --- what comes ---

  function write() {
    const [found, last] = [waiting, latest];
    waiting = [];
    total = Math.max(total, last);
    const stays = follows && !selected();
    parts.at(-1).arrive(found, last, stays);
    if (stays) scrollToEnd();
    else tell();
    if (awaited && awaited <= total) { reveal(awaited); awaited = 0; }
  }

  let outlining = Promise.resolve();
  function refresh() {
    outlining = outlining.then(async () => {
      const before = parts, last = parts.at(-1);
      if (!await outline()) return;
      const now = parts.at(-1);
      if (now === last || !follows || selected()) return;
      for (const part of parts)   // its reader follows: what was open of itself is closed
        if (part !== now && !part.touched && (part === last || !before.includes(part))) part.close();
      if (!(now.open && now.whole)) await now.showEnd();
      if (follows && !selected()) scrollToEnd();
    });
    return outlining;
  }

  this.start = async () => {
    while (!await outline()) await new Promise((done) => setTimeout(done, 2000));
    over = log.dataset.open !== "yes";
    if (!await visit()) {
      await foremost().showEnd();
      scrollToEnd();
    }
    log.dataset.ready = "yes";
    if (!over) {
      follow(url, Math.max(0, total - 1), {
        onLines: (found, last) => {
          if (!waiting.length) requestAnimationFrame(write);
          waiting = waiting.length + found.length > 4000 ? found : waiting.concat(found);
          latest = last;
        },
        onEnd: async () => {
          over = true;
          await refresh();
          tell();
          status.textContent = "The log has ended.";
          log.dataset.ended = "yes";
        },
        onWait: (words) => { status.textContent = words; },
      });
      // The page around it follows the build; the log hears of its steps from there.
      let former = document.getElementById("build").dataset.steps;
      document.addEventListener("htmx:after:swap", () => {
        const steps = document.getElementById("build").dataset.steps;
        if (steps !== former) { former = steps; refresh(); }
      });
    }
    tell();
  };
}
