// What can be told from the files themselves before a byte is sent. The server checks everything again and decides;
// this only spares people an upload that would be refused. Each finding: {rule, file, text, hint}.

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

function* names(byName) {
  for (const name of byName.keys()) {
    if (!ALLOWED.has(name)) yield { rule: "file_name", file: name, text: "not part of an adapter", hint: wayOut(name) };
  }
  for (const name of [CONFIG, TENSORS]) {
    if (!byName.has(name)) {
      yield { rule: "file_missing", file: name, text: "missing", hint: "PEFT's save_pretrained() writes it; choose it too." };
    }
  }
}

function wayOut(name) {
  if (/\.(bin|pt|pth|pkl|ckpt)$/.test(name)) {
    return "Pickled weights can run code. Save again with safe_serialization=True and choose the .safetensors file.";
  }
  if (/\.(zip|tar|gz|tgz|7z)$/.test(name)) return "Unpack the archive and choose the files in it.";
  if (/^model.*\.safetensors/.test(name)) return "These are full weights. Choose the adapter's own file, adapter_model.safetensors.";
  return "Leave it out: an adapter is adapter_config.json and adapter_model.safetensors.";
}

async function config(file, base) {
  const wrong = (rule, text, hint) => [{ rule, file: file.name, text, hint }];
  if (file.size > CONFIG_LIMIT_BYTES) {
    return wrong("config_size", "larger than 1 MB", "Choose the small JSON file that PEFT wrote beside the weights.");
  }
  const settings = parsed(await file.text());
  if (settings === null || typeof settings !== "object" || Array.isArray(settings)) {
    return wrong("json", "not a JSON object", "Choose the adapter_config.json that PEFT wrote.");
  }
  if (settings.peft_type !== "LORA") {
    return wrong("peft_type", `peft_type is ${JSON.stringify(settings.peft_type)}`, "Only LoRA adapters are served; train with LoraConfig.");
  }
  const named = String(settings.base_model_name_or_path ?? "").split("/").pop().toLowerCase();
  if (base && named !== base) {
    return wrong("base_model", `it was trained on ${named || "no named base"}, not on ${base}`, "Choose the base model that the adapter was trained on.");
  }
  if (!Number.isInteger(settings.r) || settings.r < 1) {
    return wrong("rank", "r is not a whole number above 0", "Set r in LoraConfig, for example r=16.");
  }
  if (!Array.isArray(settings.target_modules)) {
    return wrong("target_modules", "target_modules is not a list", "Name the modules in a list, as in [\"q_proj\", \"v_proj\"].");
  }
  if (settings.modules_to_save?.length) {
    return wrong("config_field", "modules_to_save is not empty", "Whole modules cannot be served beside other adapters; train without modules_to_save.");
  }
  return [];
}

async function tensors(file) {
  const wrong = (rule, text, hint) => [{ rule, file: file.name, text, hint }];
  const damaged = "The file is damaged or no safetensors file. Save the adapter again.";
  if (file.size < 8) return wrong("header_length", "too short", damaged);
  const view = new DataView(await file.slice(0, 8).arrayBuffer());
  const length = Number(view.getBigUint64(0, true));
  if (length > HEADER_LIMIT_BYTES || length > file.size - 8) return wrong("header_length", "no readable header", damaged);
  const header = parsed(await file.slice(8, 8 + length).text());
  if (header === null || typeof header !== "object") return wrong("header_length", "the header is no JSON", damaged);
  const ends = Object.entries(header).map(([name, tensor]) => (name === "__metadata__" ? 0 : (tensor?.data_offsets?.[1] ?? NaN)));
  if (8 + length + Math.max(0, ...ends) !== file.size) {
    return wrong("file_size", "the size does not match the header", "The file was cut short or has bytes too many. Copy or save it again.");
  }
  return [];
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
