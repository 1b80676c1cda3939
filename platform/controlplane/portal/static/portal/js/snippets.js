// What the playground just asked, as code to paste. The key stays a variable: it is not ours to print.

export function snippets(base, body) {
  const json = JSON.stringify(body, null, 2);
  return {
    curl: [
      `curl ${base}/chat/completions \\`,
      `  -H "Authorization: Bearer $TESSERA_KEY" \\`,
      `  -H "Content-Type: application/json" \\`,
      `  -d '${json.replaceAll("'", "'\\''")}'`,
    ].join("\n"),
    python: [
      "import os",
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url="${base}", api_key=os.environ["TESSERA_KEY"])`,
      "stream = client.chat.completions.create(",
      ...fields(body, "=", "    "),
      "    stream=True,",
      ")",
      "for chunk in stream:",
      '    print(chunk.choices[0].delta.content or "", end="", flush=True)',
    ].join("\n"),
    javascript: [
      'import OpenAI from "openai";',
      "",
      `const client = new OpenAI({ baseURL: "${base}", apiKey: process.env.TESSERA_KEY });`,
      "const stream = await client.chat.completions.create({",
      ...fields(body, ": ", "  "),
      "  stream: true,",
      "});",
      "for await (const chunk of stream) {",
      '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");',
      "}",
    ].join("\n"),
  };
}

/** One line or more per field. JSON is Python and JavaScript alike: no null, true or false is among them. */
function fields(body, equals, indent) {
  return Object.entries(body).map(([name, value]) => {
    const text = JSON.stringify(value, null, 2).replaceAll("\n", `\n${indent}`);
    return `${indent}${name}${equals}${text},`;
  });
}
