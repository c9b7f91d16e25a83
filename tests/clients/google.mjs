// Generates through the gateway at its first argument with Google's own client for JavaScript. The second one is JSON: a list
// with the `key` of each pool and the `model` to ask for, whoever serves it. Prints what came back as JSON.
import { ApiError, GoogleGenAI } from "@google/genai";

const [, baseUrl, targets] = process.argv;
const parametersJsonSchema = { type: "object", properties: { a: { type: "integer" } } };
const tools = [{ functionDeclarations: [{ name: "add", description: "adds", parametersJsonSchema }] }];
const said = { type: "object", properties: { said: { type: "string" } }, required: ["said"] };
const fileUri = "https://generativelanguage.googleapis.com/v1beta/files/1";

// The client's own exception: its class, the status, its word for that and the sentence.
async function failure(ask) {
  try {
    await ask();
    return null;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const told = JSON.parse(error.message.replace(/^got status: [^{]*/, "")).error;
    return [error.constructor.name, error.status, told.status, told.message];
  }
}

// A turn with a call of a tool, and the turn after it.
async function conversation(client, model, streams) {
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

async function generate(client, model) {
  const create = (contents, config) => client.models.generateContent({ model, contents, config });
  const stream = async (contents, config) => {
    const chunks = [];
    for await (const chunk of await client.models.generateContentStream({ model, contents, config })) chunks.push(chunk);
    return chunks;
  };
  const config = { systemInstruction: "be brief" };
  const whole = await create("hi", config);
  const pieces = await stream("hi", config);
  const asked = await conversation(client, model, false);
  const inStream = await conversation(client, model, true);
  const parsed = await create("hi", { responseMimeType: "application/json", responseJsonSchema: said });
  const fileData = { fileUri, mimeType: "image/png" };
  const broken = await failure(() => stream("please break off"));
  return {
    text: whole.text,
    finish: whole.candidates[0].finishReason,
    tokens: whole.usageMetadata.totalTokenCount,
    model: whole.modelVersion,
    streamed: pieces.map((piece) => piece.text ?? "").join(""),
    pieces: pieces.length,
    streamed_tokens: pieces.at(-1).usageMetadata.totalTokenCount,
    call: asked.call,
    call_in_stream: inStream.call[1],
    after: asked.after,
    after_stream: inStream.after,
    turns: [asked.turns, inStream.turns],
    parsed: JSON.parse(parsed.text).said,
    refused: await failure(() => create([{ role: "user", parts: [{ fileData }] }])),
    wrong: await failure(() => create("please refuse this")),
    broken: broken?.[0] ?? null,
  };
}

const got = [];
for (const { pool, key, model } of JSON.parse(targets)) {
  const client = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl, timeout: 20_000 } });
  got.push({ at: pool, dialect: "gemini", ...(await generate(client, model)) });
}
console.log(JSON.stringify(got));
