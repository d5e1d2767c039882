// A terminal in the page of a build: xterm.js over the WebSocket of docs/http.md.
import { FitAddon } from "/static/xterm-addon-fit-0.11.0.min.js";
import { Terminal } from "/static/xterm-6.0.0.min.js";

const PROTOCOL = "vmrunner.terminal.v1";
const WHY = {
  1012: "This server stops.",
  4401: "Your login is over: log in again.",
  4408: "Nothing came or went for too long.",
  4410: "The VM is gone, or the connection to it.",
};

// xterm.js writes styles as elements and attributes, which the page's policy refuses. The same styles
// as objects it lets in.
function style() {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  const element = create("template");
  Object.defineProperty(element, "textContent", { set: (text) => sheet.replaceSync(text) });
  Object.defineProperty(element, "sheet", { value: sheet });
  return element;
}
const create = document.createElement.bind(document);
document.createElement = (name, options) => (name === "style" ? style() : create(name, options));
const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (name === "style") this.style.cssText = value;
  else setAttribute.call(this, name, value);
};

export class BuildTerminal {
  // `part`: its section of the page; `leave()`: where the focus goes.
  constructor(part, leave) {
    this.part = part;
    this.notice = part.querySelector(".terminal-notice");
    this.again = part.querySelector(".terminal-again");
    this.terminal = new Terminal({
      cursorBlink: true, fontSize: 13, scrollback: 5000, screenReaderMode: true,
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
      theme: { background: "#0d1117", foreground: "#e6edf3", cursor: "#63acff", selectionBackground: "#3a5a8a" },
    });
    this.fit = new FitAddon();
    this.terminal.loadAddon(this.fit);
    this.terminal.open(part.querySelector(".terminal-screen"));
    this.terminal.attachCustomKeyEventHandler((event) => {
      if (event.key !== "F6") return true;
      if (event.type === "keydown") leave();
      event.preventDefault();
      return false;
    });
    const bytes = new TextEncoder();
    this.terminal.onData((text) => this.send(bytes.encode(text)));
    this.terminal.onBinary((text) => this.send(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
    this.terminal.onResize(({ cols, rows }) => this.control({ type: "resize", columns: cols, rows }));
    new ResizeObserver(() => { if (part.offsetParent) this.fit.fit(); }).observe(part.querySelector(".terminal-screen"));
  }

  get live() { return this.socket?.readyState === WebSocket.OPEN; }
  send(data) { if (this.live) this.socket.send(data); }
  control(frame) { this.send(JSON.stringify(frame)); }

  connect(place) {
    this.close();
    this.terminal.reset();
    this.fit.fit();
    this.tell("Connecting…");
    const url = new URL(this.part.dataset.socket, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = this.socket = new WebSocket(url, PROTOCOL);
    socket.binaryType = "arraybuffer";
    let opened = false, last = "";
    socket.onopen = () => {
      opened = true;
      const { cols: columns, rows } = this.terminal;
      this.control({ type: "start", container: place === "container", columns, rows });
      this.terminal.focus();
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      if (typeof data !== "string") { this.terminal.write(new Uint8Array(data)); return; }
      const frame = JSON.parse(data);
      if (frame.type === "started") this.tell("");
      if (frame.type === "exit") last = `The shell has ended (${frame.code}).`;
      if (frame.type === "error") last = [frame.detail, frame.fix].filter(Boolean).join(": ");
    };
    socket.onclose = ({ code }) => {
      if (socket !== this.socket) return;
      const refused = "It could not be opened: its VM may be gone, your login over, or too many terminals open.";
      this.tell(last || WHY[code] || (opened ? "The connection was lost; what ran in it was hung up." : refused), true);
    };
  }

  tell(words, over = false) {
    this.notice.textContent = words;
    this.again.hidden = !over;
  }

  close() {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }
}
