// The playground: a conversation with one model, straight to the gateway with a key that lives an hour.

import { chat, CutOff, Refused } from "./stream.js";
import { snippets } from "./snippets.js";

const KEY_MARGIN_SECONDS = 60;

const form = document.getElementById("playground");
const field = (id) => document.getElementById(id);
const words = form.dataset;
const base = `${words.gateway}/v1`;

// All of the state: what was said, the key in use and for which model, and how to stop the present answer.
const conversation = [];
let key = null;
let running = null;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) send(field("prompt").value.trim());
});
field("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
field("stop").addEventListener("click", () => running?.abort());
field("clear").addEventListener("click", startOver);
field("view-code").addEventListener("click", showCode);

async function send(text) {
  conversation.push({ role: "user", content: text });
  turn("user", words.wordsYou).text.textContent = text;
  field("prompt").value = "";
  const answer = turn("assistant", field("model").value);
  begin();
  try {
    const said = await stream(answer);
    conversation.push({ role: "assistant", content: said });
  } catch (error) {
    const kept = answer.text.textContent;
    if (kept) conversation.push({ role: "assistant", content: kept });
    else conversation.pop();
    explain(answer, error, text);
  } finally {
    end();
  }
}

/** Ask, show every piece as it comes, and return the whole answer. A key that was refused is replaced once. */
async function stream(answer) {
  const body = request();
  try {
    return await attempt(answer, body);
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) throw error;
    key = null;
    return await attempt(answer, body);
  }
}

async function attempt(answer, body) {
  const secret = await currentKey(body.model);
  const started = performance.now();
  let first = null;
  let usage = null;
  let finish = null;
  for await (const piece of chat({ url: `${base}/chat/completions`, key: secret, body, signal: running.signal })) {
    if (piece.text) {
      first ??= performance.now();
      answer.text.append(piece.text);
      keepInView();
    }
    usage = piece.usage ?? usage;
    finish = piece.finishReason ?? finish;
  }
  answer.facts.textContent = facts({ started, first, ended: performance.now(), usage, finish });
  return answer.text.textContent;
}

function facts({ started, first, ended, usage, finish }) {
  const parts = [];
  if (first !== null) parts.push(`TTFT ${((first - started) / 1000).toFixed(2)} s`);
  if (usage && first !== null && ended > first) {
    parts.push(`${(usage.completion_tokens / Math.max((ended - first) / 1000, 0.001)).toFixed(1)} tok/s`);
  }
  if (usage) parts.push(`${usage.prompt_tokens} ${words.wordsIn}`, `${usage.completion_tokens} ${words.wordsOut}`);
  if (finish && finish !== "stop") parts.push(finish);
  return parts.join(" · ");
}

async function currentKey(model) {
  if (key?.model === model && key.expiresAt - KEY_MARGIN_SECONDS > Date.now() / 1000) return key.secret;
  const response = await fetch(words.keyUrl, {
    method: "POST",
    headers: { "X-CSRFToken": form.elements.csrfmiddlewaretoken.value },
    body: new URLSearchParams({ model }),
    signal: running.signal,
  });
  const json = response.headers.get("content-type")?.startsWith("application/json");
  if (!response.ok || !json) {
    const requestId = response.headers.get("x-request-id") ?? "";
    throw new Refused(words.wordsRefused, { status: response.status === 401 ? 403 : response.status, requestId });
  }
  const made = await response.json();
  key = { model, secret: made.key, expiresAt: made.expires_at };
  return key.secret;
}

/** The body of the next request, as the form and the conversation stand. */
function request() {
  const system = field("system").value.trim();
  const body = {
    model: field("model").value,
    messages: system ? [{ role: "system", content: system }, ...conversation] : [...conversation],
    temperature: Number(field("temperature").value),
    top_p: Number(field("top_p").value),
    max_tokens: Number(field("max_tokens").value),
  };
  if (field("seed").value) body.seed = Number(field("seed").value);
  return body;
}

function explain(answer, error, text) {
  if (error.name === "AbortError") {
    answer.facts.textContent = words.wordsStopped;
    return;
  }
  const notice = field("refusal").content.cloneNode(true);
  const message = reasonOf(error);
  notice.querySelector("span").textContent = message;
  const code = notice.querySelector("code");
  if (error.requestId) code.textContent = `${words.wordsRequest} ${error.requestId}`;
  else code.remove();
  answer.article.append(notice);
  if (!answer.text.textContent) field("prompt").value = text;
  keepInView();
}

function reasonOf(error) {
  if (error instanceof Refused) return error.message || words.wordsFailed;
  return error instanceof CutOff ? words.wordsCut : words.wordsUnreachable;
}

function turn(role, name) {
  field("blank")?.remove();
  const article = field("turn").content.firstElementChild.cloneNode(true);
  article.dataset.role = role;
  article.querySelector("h3").textContent = name;
  field("turns").append(article);
  keepInView();
  return {
    article,
    text: article.querySelector(".turn-text"),
    facts: article.querySelector(".turn-facts"),
  };
}

function begin() {
  running = new AbortController();
  field("turns").setAttribute("aria-busy", "true");
  field("send").hidden = true;
  field("stop").hidden = false;
  field("clear").disabled = true;
}

function end() {
  running = null;
  field("turns").removeAttribute("aria-busy");
  field("send").hidden = false;
  field("stop").hidden = true;
  field("clear").disabled = false;
  field("prompt").focus();
}

function startOver() {
  conversation.length = 0;
  field("turns").replaceChildren();
  field("prompt").focus();
}

function showCode() {
  const body = request();
  if (!body.messages.some((message) => message.role === "user")) {
    const prompt = field("prompt");
    body.messages.push({ role: "user", content: prompt.value.trim() || prompt.placeholder });
  }
  for (const [language, text] of Object.entries(snippets(base, body))) {
    field(`code-${language}`).textContent = text;
  }
}

function keepInView() {
  const turns = field("turns");
  turns.scrollTop = turns.scrollHeight;
}
