// Talks to the gateway at its first argument with the official npm clients of OpenAI and Anthropic; prints what came back as JSON.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [base, openaiKey, anthropicKey] = process.argv.slice(1);
const options = { maxRetries: 0, timeout: 20_000 };
const openai = new OpenAI({ baseURL: `${base}/v1`, apiKey: openaiKey, ...options });
const anthropic = new Anthropic({ baseURL: base, apiKey: anthropicKey, ...options });
const messages = [{ role: "user", content: "hi" }];
const ask = { model: "claude-opus-5-5", max_tokens: 64, messages };

const chat = await openai.chat.completions.create({ model: "gpt-5.6", messages });
let chatStream = "";
for await (const chunk of await openai.chat.completions.create({ model: "gpt-5.6", messages, stream: true }))
  chatStream += chunk.choices[0]?.delta?.content ?? "";
const response = await openai.responses.create({ model: "gpt-5.6", input: "hi" });
let last;
for await (const event of await openai.responses.create({ model: "gpt-5.6", input: "hi", stream: true }))
  last = event.type;
const again = await openai.responses.create({ model: "gpt-5.6", input: "go on", previous_response_id: response.id });
const file = await openai.files.create({ file: new File(["{}"], "in.jsonl"), purpose: "batch" });
const content = await (await openai.files.content(file.id)).text();
const wish = { role: "user", content: 'use the tool add {"a": 41}' };
const parameters = { type: "object", properties: { a: { type: "number" } } };
const tool = { type: "function", function: { name: "add", parameters } };
const called = await openai.chat.completions.create({ model: "gpt-5.6", messages: [wish], tools: [tool] });

const message = await anthropic.messages.create(ask);
const stream = anthropic.messages.stream(ask);
const final = await stream.finalMessage();
const use = await anthropic.messages.create({ ...ask, messages: [wish], tools: [{ name: "add", input_schema: parameters }] });

console.log(JSON.stringify({
  chat: chat.choices[0].message.content,
  chat_stream: chatStream,
  response: response.output_text,
  last_event: last,
  again: again.output_text,
  file: content,
  tool: called.choices[0].message.tool_calls[0].function,
  models: (await openai.models.list()).data.map((model) => model.id),
  message: message.content[0].text,
  stream: final.content[0].text,
  stop_reason: final.stop_reason,
  use: use.content[0],
}));
