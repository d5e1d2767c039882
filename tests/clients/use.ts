import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Build = components["schemas"]["BuildDocument"];

const [url, token] = process.argv.slice(2) as [string, string];
const api = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });

function of<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data === undefined) throw new Error(`${answer.response.status}: ${JSON.stringify(answer.error)}`);
  return answer.data;
}

async function submit(steps: string[]): Promise<Build> {
  const made = of(await api.POST("/api/v1/builds", { body: { steps, labels: { from: "typescript" } } }));
  if (made.kind !== "build") throw new Error("a dry run");
  return made.items[0]!;
}

async function log(build: string): Promise<string> {
  const params = { path: { build } };
  return of(await api.GET("/api/v1/builds/{build}/logs", { params, parseAs: "text" }));
}

/** The lines of a log as they come, and the build at the end. */
async function follow(build: string): Promise<[string[], Build]> {
  const answer = await api.GET("/api/v1/builds/{build}/logs", {
    params: { path: { build } }, headers: { Accept: "text/event-stream" }, parseAs: "stream",
  });
  const lines: string[] = [];
  let text = "";
  for await (const part of answer.response.body!.pipeThrough(new TextDecoderStream())) {
    text += part;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const fields = Object.fromEntries(text.slice(0, end).split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2)));
      if (fields["event"] === "end") return [lines, JSON.parse(fields["data"]) as Build];
      if (fields["data"]) lines.push(JSON.parse(fields["data"]).text);
    }
  }
  throw new Error("the stream ended before the build");
}

const first = await submit(["hex 6f6e650a", "exit 3"]);
const [lines, ended] = await follow(first.id);
console.log(JSON.stringify({ lines, state: ended.state, exit_code: ended.exit_code }));
console.log(JSON.stringify({ log: await log(first.id) }));
const page = of(await api.GET("/api/v1/builds", { params: { query: { result: ["failure"], label: ["from=typescript"] } } }));
console.log(JSON.stringify({ listed: page.items.map((build) => [build.id === first.id, build.waiting ?? null]) }));
const shown = of(await api.GET("/api/v1/builds/{build}", { params: { path: { build: first.id } } })).items[0]!;
console.log(JSON.stringify({ failed_step: shown.failed_step, vms: shown.instances?.length, events: (shown.events ?? []).length > 0 }));
const second = await submit(["wait"]);
const cancelled = of(await api.POST("/api/v1/builds/{build}/cancel", { params: { path: { build: second.id } }, body: { reason: "user" } }));
console.log(JSON.stringify({ cancel: cancelled.items[0]!.cancel, end: (await follow(second.id))[1].result }));
const wrong = await api.GET("/api/v1/builds/{build}", { params: { path: { build: "b-nope" } } });
console.log(JSON.stringify({ status: wrong.response.status, fix: wrong.error?.fix, named: Boolean(wrong.error?.request_id) }));
