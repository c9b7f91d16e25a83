// Meets the refusals of the gateway with the npm clients: the cases are JSON in the first argument, each with a
// `name`, a `base`, a `key` and the `mebibytes` of its prompt. Prints what a person would read, in how many tries.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { generateText } from "ai";
import OpenAI from "openai";

const clients = {
  "openai npm": ({ base, key, fetch, maxRetries }, content) =>
    new OpenAI({ baseURL: `${base}/v1`, apiKey: key, fetch, maxRetries }).chat.completions.create({
      model: "gpt-5.6", messages: [{ role: "user", content }],
    }),
  "anthropic npm": ({ base, key, fetch, maxRetries }, content) =>
    new Anthropic({ baseURL: base, apiKey: key, fetch, maxRetries }).messages.create({
      model: "claude-opus-5-5", max_tokens: 64, messages: [{ role: "user", content }],
    }),
  "vercel openai": ({ base, key, fetch, maxRetries }, prompt) =>
    generateText({ model: createOpenAI({ baseURL: `${base}/v1`, apiKey: key, fetch })("gpt-5.6"), prompt, maxRetries }),
  "vercel anthropic": ({ base, key, fetch, maxRetries }, prompt) =>
    generateText({
      model: createAnthropic({ baseURL: `${base}/v1`, apiKey: key, fetch })("claude-opus-5-5"), prompt, maxRetries,
    }),
};
const got = {};
const meet = async (client, ask) => {
  got[client] = {};
  for (const { name, base, key, mebibytes, retries } of JSON.parse(process.argv[1])) {
    let tries = 0;
    const counting = (...asked) => (tries++, fetch(...asked));
    const began = Date.now();
    try {
      await ask({ base, key, fetch: counting, maxRetries: retries }, "x".repeat(mebibytes << 20 || 1));
      got[client][name] = { text: "no refusal", tries };
    } catch (error) {
      got[client][name] = { text: error.message, kind: error.constructor.name, tries, ms: Date.now() - began };
    }
  }
};
await Promise.all(Object.entries(clients).map(([client, ask]) => meet(client, ask)));
console.log(JSON.stringify(got));
