// Talks to the gateway at its first argument with Vercel's AI SDK; prints what came back as JSON.
// A request, a stream, a call of a tool with its second turn, in each dialect.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const [base, openaiKey, anthropicKey] = process.argv.slice(1);
const openai = createOpenAI({ baseURL: `${base}/v1`, apiKey: openaiKey });
const anthropic = createAnthropic({ baseURL: `${base}/v1`, apiKey: anthropicKey });
const models = {
  chat: openai.chat("gpt-5.6"),
  responses: openai("gpt-5.6"),
  messages: anthropic("claude-opus-5-5"),
};
const tools = {
  add: tool({
    description: "Adds one.",
    inputSchema: jsonSchema({ type: "object", properties: { a: { type: "number" } }, required: ["a"] }),
    execute: async ({ a }) => `it is ${a + 1}`,
  }),
};
const got = {};
for (const [name, model] of Object.entries(models)) {
  const one = await generateText({ model, prompt: "hi", maxRetries: 0 });
  const stream = streamText({ model, prompt: "hi", maxRetries: 0 });
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  const turns = await generateText({
    model, tools, maxRetries: 0, stopWhen: stepCountIs(3), prompt: 'use the tool add {"a": 41}',
  });
  got[name] = {
    text: one.text,
    tokens: one.usage.outputTokens,
    stream: text,
    end: await stream.finishReason,
    steps: turns.steps.length,
    result: turns.steps[0].toolResults[0]?.output,
    last: turns.text,
  };
}
console.log(JSON.stringify(got));
