// The upload wizard: choose, check here, send in parts with a bar per file, complete. Also goes on with an upload
// that was left: the same files again, and only what is missing is sent.

import { check } from "./adapter_check.js";
import { Refused, UploadApi } from "./upload_api.js";

const form = document.getElementById("upload");
const part = (id) => document.getElementById(id);
const words = form.dataset;
const sentences = JSON.parse(part("sentences").textContent);
const api = new UploadApi({ organization: words.organization, csrfToken: form.elements.csrfmiddlewaretoken.value });

// All of the state: the files chosen, the upload they belong to, and how to stop it.
let files = [];
let artifact = words.artifact;
let running = null;

part("files").addEventListener("change", (event) => choose([...event.target.files]));
form.elements.base?.addEventListener("change", () => files.length && choose(files));
part("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  part("drop").dataset.over = "";
});
part("drop").addEventListener("dragleave", () => delete part("drop").dataset.over);
part("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  delete part("drop").dataset.over;
  choose([...event.dataTransfer.files]);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) upload();
});
part("pause").addEventListener("click", () => running?.abort());

/** Show the chosen files and what is wrong with them, before anything is sent. */
async function choose(chosen) {
  files = chosen;
  part("failure").replaceChildren();
  const rows = files.map((file) => row(file.name, file.size));
  part("list").replaceChildren(...rows);
  const findings = await check(files, words.base || form.elements.base.value);
  for (const finding of findings) {
    const found = rowOf(finding.file) ?? part("list").appendChild(row(finding.file, null));
    mark(found, "bad", sentences[finding.words].replace("{value}", finding.value), finding.rule);
  }
  for (const each of rows) if (!each.dataset.state) mark(each, "good", words.wordsFits);
  part("send").disabled = findings.length > 0 || files.length === 0;
  suggestName();
}

async function upload() {
  running = new AbortController();
  part("send").disabled = true;
  part("pause").hidden = false;
  part("failure").replaceChildren();
  try {
    const declared = await described();
    const state = artifact ? await resumed(declared) : await created(declared);
    await sendMissing(state);
    await api.complete(artifact, running.signal);
    location.assign(words.one.replace(words.blank, artifact));
  } catch (error) {
    if (!running.signal.aborted) explain(error);
  } finally {
    running = null;
    part("send").disabled = false;
    part("pause").hidden = true;
    if (artifact) part("send-word").textContent = words.wordsResume;
  }
}

async function created(declared) {
  const state = await api.create(
    { name: form.elements.name.value.trim(), base: form.elements.base.value, project: form.elements.project.value, kind: "adapter", files: declared },
    running.signal,
  );
  artifact = state.id;
  // From here on a reload comes back to this upload instead of beginning another.
  history.replaceState(null, "", words.one.replace(words.blank, artifact));
  return state;
}

/** The upload as the server has it; refuses other files than those it was begun with. */
async function resumed(declared) {
  const state = await api.read(artifact, running.signal);
  for (const known of state.files) {
    const found = declared.find((file) => file.name === known.name);
    if (found?.sha256 !== known.sha256) throw new Refused(409, { message: `${known.name}: ${words.wordsOther}` });
  }
  return state;
}

async function sendMissing(state) {
  const started = performance.now();
  let sent = 0;
  for (const known of state.files) {
    const file = files.find((each) => each.name === known.name);
    const shown = rowOf(known.name);
    const received = new Set(known.parts_received);
    for (let number = 0; number < known.parts_expected; number++) {
      const from = number * state.part_size_bytes;
      const bytes = file.slice(from, from + state.part_size_bytes);
      if (!received.has(number)) {
        const progress = (loaded) => {
          const seconds = (performance.now() - started) / 1000;
          advance(shown, from + loaded, file.size, (sent + loaded) / seconds);
        };
        await api.part(artifact, known.name, number, bytes, { signal: running.signal, progress });
        sent += bytes.size;
      }
      advance(shown, from + bytes.size, file.size, null);
    }
    mark(shown, "good", words.wordsSent);
  }
}

/** Name, size and digest of every file. */
async function described() {
  const declared = [];
  for (const file of files) {
    declared.push({ name: file.name, size_bytes: file.size, sha256: await digest(file, rowOf(file.name)) });
  }
  return declared;
}

function digest(file, shown) {
  mark(shown, "busy", words.wordsHashing);
  return new Promise((resolve, reject) => {
    const worker = new Worker(words.hasher, { type: "module" });
    const stop = () => (worker.terminate(), reject(running.signal.reason));
    running.signal.addEventListener("abort", stop, { once: true });
    worker.onmessage = ({ data }) => {
      if (!data.sha256) return;
      worker.terminate();
      resolve(data.sha256);
    };
    worker.onerror = () => reject(new TypeError(words.wordsUnreadable));
    worker.postMessage(file);
  });
}

function row(name, size) {
  const made = part("file").content.firstElementChild.cloneNode(true);
  made.dataset.file = name;
  made.querySelector(".file-name").textContent = name;
  made.querySelector(".file-size").textContent = size === null ? "" : readable(size);
  made.querySelector("progress").setAttribute("aria-label", name);
  return made;
}

function rowOf(name) {
  return [...part("list").children].find((each) => each.dataset.file === name);
}

function mark(shown, state, text, rule = "") {
  shown.dataset.state = state;
  shown.querySelector(".file-note").textContent = text;
  const tag = shown.querySelector(".tag");
  tag.hidden = !rule;
  tag.textContent = rule;
}

function advance(shown, done, size, bytesPerSecond) {
  const bar = shown.querySelector("progress");
  bar.hidden = false;
  bar.max = Math.max(size, 1);
  bar.value = done;
  const percent = size ? Math.floor((100 * done) / size) : 100;
  const rest = bytesPerSecond ? Math.ceil((size - done) / bytesPerSecond) : 0;
  const speed = bytesPerSecond ? ` · ${readable(bytesPerSecond)}/s · ${rest} s` : "";
  mark(shown, "busy", `${percent} %${speed}`);
}

function explain(error) {
  const notice = part("refusal").content.cloneNode(true);
  notice.querySelector("span").textContent = error instanceof Refused ? error.message || words.wordsFailed : words.wordsUnreachable;
  const details = [error.rule, error.requestId && `${words.wordsRequest} ${error.requestId}`].filter(Boolean);
  notice.querySelector("code").textContent = details.join(" · ");
  if (!details.length) notice.querySelector("code").remove();
  part("failure").replaceChildren(notice);
}

function suggestName() {
  const name = form.elements.name;
  const folder = files[0]?.webkitRelativePath?.split("/")[0];
  if (name && !name.value && folder) name.value = folder;
}

function readable(bytes) {
  const units = ["B", "KB", "MB", "GB"];
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${size < 10 && unit ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}
