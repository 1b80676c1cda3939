// What can be told from the files themselves before a byte is sent. The server checks everything again and decides;
// this only spares people an upload that would be refused.
//
// A finding is {rule, file, words, value}: the server's name of the rule, the file it is about, and which sentence
// of the page says so, with a value to put in.

const CONFIG = "adapter_config.json";
const TENSORS = "adapter_model.safetensors";
const ALLOWED = new Set([CONFIG, TENSORS, "README.md"]);
const HEADER_LIMIT_BYTES = 8 * 1024 * 1024;
const CONFIG_LIMIT_BYTES = 1024 * 1024;

/** What is wrong with these files as an adapter of the base model called `base`. */
export async function check(files, base) {
  const byName = new Map(files.map((file) => [file.name, file]));
  const findings = [...names(byName)];
  if (byName.has(CONFIG)) findings.push(...(await config(byName.get(CONFIG), base)));
  if (byName.has(TENSORS)) findings.push(...(await tensors(byName.get(TENSORS))));
  return findings;
}

function finding(rule, file, { words = rule, value = "" } = {}) {
  return { rule, file, words, value: String(value) };
}

function* names(byName) {
  for (const name of byName.keys()) {
    if (!ALLOWED.has(name)) yield finding("file_name", name, { words: kindOf(name) });
  }
  for (const name of [CONFIG, TENSORS]) {
    if (!byName.has(name)) yield finding("file_missing", name);
  }
}

function kindOf(name) {
  if (/\.(bin|pt|pth|pkl|ckpt)$/.test(name)) return "file_name_pickle";
  if (/\.(zip|tar|gz|tgz|7z)$/.test(name)) return "file_name_archive";
  if (/^model.*\.safetensors/.test(name)) return "file_name_weights";
  return "file_name";
}

async function config(file, base) {
  const wrong = (rule, value) => [finding(rule, CONFIG, { value })];
  if (file.size > CONFIG_LIMIT_BYTES) return wrong("config_size");
  const settings = parsed(await file.text());
  if (settings === null || typeof settings !== "object" || Array.isArray(settings)) return wrong("json");
  if (settings.peft_type !== "LORA") return wrong("peft_type", settings.peft_type);
  const named = String(settings.base_model_name_or_path ?? "").split("/").pop().toLowerCase();
  if (named !== base) return wrong("base_model", named);
  if (!Number.isInteger(settings.r) || settings.r < 1) return wrong("rank", settings.r);
  if (!Array.isArray(settings.target_modules)) return wrong("target_modules");
  if (settings.modules_to_save?.length) return wrong("config_field", "modules_to_save");
  return [];
}

async function tensors(file) {
  const wrong = (rule) => [finding(rule, TENSORS)];
  if (file.size < 8) return wrong("header_length");
  const view = new DataView(await file.slice(0, 8).arrayBuffer());
  const length = Number(view.getBigUint64(0, true));
  if (length > HEADER_LIMIT_BYTES || length > file.size - 8) return wrong("header_length");
  const header = parsed(await file.slice(8, 8 + length).text());
  if (header === null || typeof header !== "object") return wrong("header_length");
  const ends = Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([, tensor]) => tensor?.data_offsets?.[1] ?? NaN);
  return 8 + length + Math.max(0, ...ends) === file.size ? [] : wrong("file_size");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
