// Talks through the gateway at its first argument with OpenAI's official client for JavaScript, where nobody speaks its
// dialects. The second one is JSON: a list with the `key` of each pool, the `model` to ask for and the `dialects` to ask in.
// Prints what came back as JSON.
import OpenAI, { APIError } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [, base, targets] = process.argv;
const parameters = { type: "object", properties: { a: { type: "integer" } } };
const wish = 'use the tool add {"a": 1}';
const Said = z.object({ said: z.string() });

// The client's own exception: its class, the status, our code and the sentence.
async function failure(ask) {
  try {
    await ask();
    return null;
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return [error.constructor.name, error.status, error.code, error.error.message];
  }
}

async function chat(client, model) {
  const completions = client.chat.completions;
  const create = (body) => completions.create({ model, ...body });
  const user = (content) => [{ role: "user", content }];
  const tools = [{ type: "function", function: { name: "add", parameters } }];
  const messages = [{ role: "system", content: "be brief" }, ...user("hi")];

  const whole = await create({ messages, temperature: 0 });
  const streamed = async (body) => {
    const stream = completions.stream({ model, stream_options: { include_usage: true }, ...body });
    let pieces = 0;
    for await (const chunk of stream) pieces += chunk.choices[0]?.delta?.content ? 1 : 0;
    return [pieces, await stream.finalChatCompletion()];
  };
  const [pieces, told] = await streamed({ messages });
  const asked = (await create({ messages: user(wish), tools })).choices[0];
  const [, inStream] = await streamed({ messages: user(wish), tools });
  const call = asked.message.tool_calls[0];
  const turns = [...user(wish), asked.message, { role: "tool", tool_call_id: call.id, content: "2" }];
  const after = await create({ messages: turns, tools });
  const parsed = await completions.parse({ model, messages: user("hi"), response_format: zodResponseFormat(Said, "said") });
  const file = { type: "file", file: { file_id: "file-1" } };
  const broken = await failure(async () => {
    for await (const _ of await create({ messages: user("please break off"), stream: true }));
  });
  return {
    text: whole.choices[0].message.content,
    finish: whole.choices[0].finish_reason,
    tokens: whole.usage.total_tokens,
    model: whole.model,
    streamed: told.choices[0].message.content,
    pieces,
    streamed_tokens: told.usage.total_tokens,
    call: [call.function.name, JSON.parse(call.function.arguments)],
    call_finish: asked.finish_reason,
    call_in_stream: JSON.parse(inStream.choices[0].message.tool_calls[0].function.arguments),
    after: after.choices[0].message.content,
    parsed: parsed.choices[0].message.parsed.said,
    refused: await failure(() => create({ messages: user([file]) })),
    wrong: await failure(() => create({ messages: user("please refuse this") })),
    broken: broken?.[0] ?? null,
  };
}

async function responses(client, model) {
  const create = (body) => client.responses.create({ model, ...body });
  const tools = [
    { type: "function", name: "add", parameters, strict: false },
    { type: "custom", name: "note", description: "Takes a note" },
  ];
  const whole = await create({ instructions: "be brief", input: "hi" });
  const streamed = async (body) => {
    const stream = client.responses.stream({ model, tools, ...body });
    let pieces = 0;
    for await (const event of stream) pieces += event.type === "response.output_text.delta" ? 1 : 0;
    return [pieces, await stream.finalResponse()];
  };
  const find = (response, type) => response.output.find((item) => item.type === type);
  const asks = [{ role: "user", content: wish }];
  const [pieces, told] = await streamed({ input: "hi" });
  const called = await create({ input: asks, tools });
  const call = find(called, "function_call");
  const [, asked] = await streamed({ input: asks });
  const inStream = find(asked, "function_call");
  const result = { type: "function_call_output", call_id: call.call_id, output: "2" };
  const after = await create({ input: [...asks, ...called.output, result], tools });
  const [, noted] = await streamed({ input: 'use the tool note {"input": "two\\nlines"}' });
  const note = find(noted, "custom_tool_call");
  const parsed = await client.responses.parse({ model, input: "hi", text: { format: zodTextFormat(Said, "said") } });
  let last;
  for await (const event of await create({ input: "please break off", stream: true })) last = event.type;
  return {
    text: whole.output_text,
    finish: whole.status,
    tokens: whole.usage.total_tokens,
    model: whole.model,
    streamed: told.output_text,
    pieces,
    streamed_tokens: told.usage.total_tokens,
    call: [call.name, JSON.parse(call.arguments)],
    call_finish: called.status,
    call_in_stream: JSON.parse(inStream.arguments),
    after: after.output_text,
    note: [note.name, note.input],
    parsed: parsed.output_parsed.said,
    refused: await failure(() => create({ input: "hi", previous_response_id: "resp_1" })),
    wrong: await failure(() => create({ input: "please refuse this" })),
    broken: last,
  };
}

const ask = { chat, responses };
const got = [];
for (const { pool, key, model, dialects } of JSON.parse(targets)) {
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: 0, timeout: 20_000 });
  for (const dialect of dialects) got.push({ at: pool, dialect, ...(await ask[dialect](client, model)) });
}
console.log(JSON.stringify(got));
