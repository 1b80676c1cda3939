// One streamed chat completion, as the gateway sends it: server-sent events in OpenAI's shape.

/** A refusal in the gateway's own words, empty where it had none. `requestId` leads to the log lines. */
export class Refused extends Error {
  constructor(message, { status, code = "", requestId = "" }) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
  }
}

/** The answer ended before the gateway said that it was whole. */
export class CutOff extends Error {}

/**
 * Yields `{text, usage, finishReason}` for every event; fields that an event lacks are empty.
 * Throws `Refused`, `CutOff`, or whatever fetch throws when nobody answers or `signal` fires.
 */
export async function* chat({ url, key, body, signal }) {
  const response = await fetch(url, {
    method: "POST",
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const requestId = response.headers.get("x-request-id") ?? "";
  if (!response.ok) throw refused(await response.json().catch(() => ({})), response.status, requestId);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw refused(chunk, response.status, requestId);
    const choice = chunk.choices?.[0];
    yield {
      text: choice?.delta?.content ?? "",
      usage: chunk.usage ?? null,
      finishReason: choice?.finish_reason ?? null,
    };
  }
  throw new CutOff();
}

function refused({ error }, status, requestId) {
  return new Refused(error?.message ?? "", { status, code: error?.code ?? "", requestId });
}

/** The `data:` of each event; comments keep the line open and say nothing. */
async function* events(body) {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + text).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
    }
  }
}
