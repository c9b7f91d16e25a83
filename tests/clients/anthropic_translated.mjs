// Talks through the gateway at its first argument with Anthropic's official client for JavaScript, where nobody speaks
// messages. The second one is JSON: a list with the `key` of each pool and the `model` to ask for. Prints what came back as JSON.
import Anthropic, { APIError } from "@anthropic-ai/sdk";
import { jsonSchemaOutputFormat } from "@anthropic-ai/sdk/helpers/json-schema";

const [, base, targets] = process.argv;
const schema = { type: "object", properties: { a: { type: "integer" } } };
const said = {
  type: "object", properties: { said: { type: "string" } }, required: ["said"], additionalProperties: false,
};

// The client's own exception: its class, the status, our code and the sentence.
async function failure(ask) {
  try {
    await ask();
    return null;
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const told = error.error?.error ?? {};
    return [error.constructor.name, error.status, told.code ?? null, told.message];
  }
}

async function talk(client, model) {
  const create = (body) => client.messages.create(body);
  const user = (content) => [{ role: "user", content }];
  const ask = { model, max_tokens: 2000, messages: user("hi") };
  const wish = user('use the tool add {"a": 1}');
  const calling = { ...ask, messages: wish, tools: [{ name: "add", input_schema: schema }] };
  const text = (message) => message.content.find((block) => block.type === "text").text;
  const use = (message) => message.content.find((block) => block.type === "tool_use");
  const tokens = (message) => message.usage.input_tokens + message.usage.output_tokens;

  const thought = await create({ ...ask, thinking: { type: "enabled", budget_tokens: 1024 }, system: "be brief" });
  const stream = client.messages.stream(ask);
  let pieces = 0;
  stream.on("text", () => (pieces += 1));
  const told = await stream.finalMessage();
  const whole = await create(ask);
  const asked = await create(calling);
  const inStream = await client.messages.stream(calling).finalMessage();
  const call = use(asked);
  const result = { type: "tool_result", tool_use_id: call.id, content: "2" };
  const turns = [...wish, { role: "assistant", content: asked.content }, ...user([result])];
  const after = await create({ ...calling, messages: turns });
  const parsed = await client.messages.parse({ ...ask, output_config: { format: jsonSchemaOutputFormat(said) } });
  const image = { type: "image", source: { type: "file", file_id: "file_1" } };
  const broken = await failure(() => client.messages.stream({ ...ask, messages: user("please break off") }).finalMessage());
  return {
    text: text(thought),
    finish: whole.stop_reason,
    tokens: tokens(whole),
    model: whole.model,
    streamed: text(told),
    pieces,
    streamed_tokens: tokens(told),
    call: [call.name, call.input],
    call_finish: asked.stop_reason,
    call_in_stream: use(inStream).input,
    after: text(after),
    parsed: parsed.parsed_output.said,
    refused: await failure(() => create({ ...ask, messages: user([image]) })),
    wrong: await failure(() => create({ ...ask, messages: user("please refuse this") })),
    broken: broken?.[0] ?? null,
  };
}

const got = [];
for (const { pool, key, model } of JSON.parse(targets)) {
  const client = new Anthropic({ baseURL: base, apiKey: key, maxRetries: 0, timeout: 20_000 });
  got.push({ at: pool, dialect: "messages", ...(await talk(client, model)) });
}
console.log(JSON.stringify(got));
