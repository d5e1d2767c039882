// Lines of a log as elements. No markup is ever made of what a build wrote: text goes into text nodes
// alone.

// Colours, other sequences, strings for a terminal (titles, links), single control characters.
const CONTROL = /(\x1b\[[0-9;:]*m|\x1b\[[0-9;:?<=>]*[@-~]|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[^[]?|[\x00-\x08\x0b-\x1f\x7f-\x9f])/;
const PLAIN = /^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$/;
const PIECES = 100;          // of one colour each, of one line
export const WIDTH = 4096;   // characters of a line, until its reader wants the whole

// A line's text, with its colours as classes; all other control sequences are left out.
export function coloured(text) {
  const out = document.createElement("span");
  out.className = "text";
  if (PLAIN.test(text)) { out.textContent = text; return out; }
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
  return out;
}

// The row of a line: its number, which links to it, and its text. `whole`: asked for by the reader.
export function rowOf(line, whole = false) {
  const row = document.createElement("div");
  row.id = `L${line.seq}`;
  const link = document.createElement("a");
  link.href = `#L${line.seq}`;
  link.tabIndex = -1;
  link.textContent = line.seq;
  link.title = line.time;
  const cut = line.cut || (!whole && line.text.length > WIDTH);
  row.append(link, coloured(whole ? line.text : line.text.slice(0, WIDTH)));
  if (cut && whole) row.append(note("span", " … the rest is in the raw log"));
  else if (cut) {
    const button = note("button", "show whole line");
    button.type = "button";
    button.dataset.line = line.seq;
    row.append(button);
  }
  return row;
}

function note(name, text) {
  const element = document.createElement(name);
  element.className = "cut";
  element.textContent = text;
  return element;
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
