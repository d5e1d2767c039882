// The log of a build: as it comes, with colours, search and links to lines. No markup is ever made of
// what a build wrote: text goes into text nodes alone.
// Colours, other sequences, strings for a terminal (titles, links), single control characters.
const CONTROL = /(\x1b\[[0-9;:]*m|\x1b\[[0-9;:?<=>]*[@-~]|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[^[]?|[\x00-\x08\x0b-\x1f\x7f-\x9f])/;
const LINES = 20000;   // of a log, in the page at once
const WIDTH = 20000;   // characters of one line
const PIECES = 100;    // of one colour each, of one line

const log = document.getElementById("log");
if (log) follow(log);

function follow(log) {
  const search = document.getElementById("search");
  const count = document.getElementById("lines");
  let total = 0, atEnd = true;
  log.addEventListener("scroll", () => {
    atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 30;
  });
  search.addEventListener("input", () => { for (const row of log.children) show(row); });
  const stream = new EventSource(log.dataset.stream);
  let waiting = [];
  stream.addEventListener("line", (event) => {
    waiting.push(JSON.parse(event.data));
    if (waiting.length === 1) requestAnimationFrame(write);
  });
  stream.addEventListener("end", () => {
    stream.close();
    write();
    log.dataset.ended = "yes";
    if (log.dataset.open === "yes") location.reload();
  });

  function show(row) {
    const wanted = search.value.toLowerCase();
    row.hidden = wanted !== "" && !row.lastChild.textContent.toLowerCase().includes(wanted);
  }

  function write() {
    const rows = document.createDocumentFragment();
    for (const line of waiting) {
      const row = document.createElement("div");
      row.id = `L${line.seq}`;
      const link = document.createElement("a");
      link.href = `#L${line.seq}`;
      link.textContent = line.seq;
      link.title = line.time;
      row.append(link, coloured(line.text));
      show(row);
      rows.append(row);
    }
    total += waiting.length;
    waiting = [];
    log.append(rows);
    while (log.childElementCount > LINES) log.firstElementChild.remove();
    count.textContent = `${total} lines` + (total > LINES ? `, the last ${LINES} shown` : "");
    const here = location.hash && document.getElementById(location.hash.slice(1));
    if (here) {
      for (const other of log.querySelectorAll(".here")) other.classList.remove("here");
      here.classList.add("here");
      if (!log.dataset.found) { log.dataset.found = "yes"; here.scrollIntoView({ block: "center" }); atEnd = false; }
    }
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
}

// Colours of a line, as classes; all other control sequences are left out.
function coloured(text) {
  const out = document.createElement("span");
  out.className = "text";
  const cut = text.length > WIDTH;
  if (cut) text = text.slice(0, WIDTH);
  let style = new Set(), last = null, pieces = 0;
  for (const part of text.split(CONTROL)) {
    const sgr = /^\x1b\[([0-9;:]*)m$/.exec(part);
    if (sgr) style = styled(style, sgr[1]);
    else if (part && !/^[\x00-\x08\x0b-\x1f\x7f-\x9f]/.test(part)) {
      const name = pieces < PIECES ? [...style].sort().join(" ") : "";
      if (last && last.className === name) { last.append(part); continue; }
      last = document.createElement("span");
      last.className = name;
      last.textContent = part;
      out.append(last);
      pieces += 1;
    }
  }
  if (cut) {
    const note = document.createElement("span");
    note.className = "cut";
    note.textContent = " … the rest of the line is in the raw log";
    out.append(note);
  }
  return out;
}

function styled(before, codes) {
  const now = new Set(before);
  const plain = () => { for (const one of now) if (/^c\d$/.test(one)) now.delete(one); };
  for (const code of (codes || "0").split(/[;:]/).map(Number)) {
    if (code === 0) now.clear();
    else if (code === 1) now.add("b");
    else if (code === 3) now.add("i");
    else if (code === 4) now.add("u");
    else if (code === 39) plain();
    else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) {
      plain();
      now.add(`c${code % 10}`);
    }
  }
  return now;
}
