// The lines of a log as they come. Unlike an EventSource it hears why it is refused, and a reader who
// is slower than the build gets the newest lines alone.
import { noted, unanswered } from "./connection.js";

const KEPT = 4000;        // newest lines of what came at once
const SILENCE = 45_000;   // milliseconds: a stream says something every 15 s
const PAUSE = 2000;       // milliseconds before it is asked for again

// Calls `onLines(lines, last)` with new lines after number `after`, `last` the number of the last of
// all that came; `onEnd()` once no line will follow; `onWait(words)` while it has to wait.
export async function follow(url, after, { onLines, onEnd, onWait }) {
  for (;;) {
    const quiet = new AbortController();
    let watchdog = 0;
    const alive = () => { clearTimeout(watchdog); watchdog = setTimeout(() => quiet.abort(), SILENCE); };
    try {
      alive();
      const answer = await fetch(url, {
        headers: { Accept: "text/event-stream", "Last-Event-ID": String(after) },
        signal: quiet.signal,
      });
      if (answer.status === 404) return onWait("The log is gone.");
      if (noted(answer.status)) {
        onWait("");
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let rest = "", piece; !(piece = await reader.read()).done;) {
          alive();
          const frames = (rest + piece.value).split("\n\n");
          rest = frames.pop();
          const { lines, last, ended } = linesOf(frames);
          if (last) { after = last; onLines(lines, last); }
          if (ended) { reader.cancel(); return onEnd(); }
        }
      } else if (answer.status === 429 || answer.status === 503) onWait("Others follow logs too: it waits for a place.");
    } catch {
      unanswered();
    } finally {
      clearTimeout(watchdog);
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

function linesOf(frames) {
  const found = { lines: [], last: 0, ended: false };
  for (let n = frames.length - 1; n >= 0; n -= 1) {
    const frame = frames[n];
    if (frame.startsWith("event: end\n")) found.ended = true;
    else if (frame.startsWith("event: line\n")) {
      const at = frame.indexOf("data: ") + 6;
      const line = JSON.parse(frame.slice(at, frame.indexOf("\n", at)));
      found.last ||= line.seq;
      found.lines.push(line);
      if (found.lines.length >= KEPT) break;
    }
  }
  found.lines.reverse();
  return found;
}
