// Generates through the gateway at argv[1] with Google's own client for JavaScript, whoever serves the model argv[3]; prints
// what came back as JSON.
import { GoogleGenAI } from "@google/genai";

const [, baseUrl, apiKey, model] = process.argv;
const client = new GoogleGenAI({ apiKey, httpOptions: { baseUrl, timeout: 20_000 } });

const config = { systemInstruction: "be brief" };
const whole = await client.models.generateContent({ model, contents: "hi", config });
let streamed = "";
let last;
for await (const chunk of await client.models.generateContentStream({ model, contents: "hi", config })) {
  streamed += chunk.text ?? "";
  last = chunk;
}

const parametersJsonSchema = { type: "object", properties: { a: { type: "integer" } } };
const tools = [{ functionDeclarations: [{ name: "add", description: "adds", parametersJsonSchema }] }];

// A turn with a call of a tool, and the turn after it.
async function conversation(streams) {
  const chat = client.chats.create({ model, config: { tools } });
  const send = async (message) => {
    if (!streams) return await chat.sendMessage({ message });
    const chunks = [];
    for await (const chunk of await chat.sendMessageStream({ message })) chunks.push(chunk);
    return chunks.find((chunk) => chunk.functionCalls || chunk.text);
  };
  const call = (await send('use the tool add {"a": 1}')).functionCalls[0];
  const functionResponse = { id: call.id, name: call.name, response: { output: "2" } };
  const after = await send([{ functionResponse }]);
  return { call: [call.name, call.args], after: after.text, turns: chat.getHistory(true).length };
}

let refused = null;
try {
  const fileData = { fileUri: "https://generativelanguage.googleapis.com/v1beta/files/1", mimeType: "image/png" };
  await client.models.generateContent({ model, contents: [{ role: "user", parts: [{ fileData }] }] });
} catch (error) {
  const said = JSON.parse(error.message).error;
  refused = [error.status, said.status, said.message];
}

console.log(JSON.stringify({
  whole: whole.text,
  finish: whole.candidates[0].finishReason,
  usage: whole.usageMetadata.totalTokenCount,
  model: whole.modelVersion,
  streamed,
  streamed_finish: last.candidates[0].finishReason,
  streamed_usage: last.usageMetadata.totalTokenCount,
  asked: await conversation(false),
  asked_in_stream: await conversation(true),
  refused,
}));
