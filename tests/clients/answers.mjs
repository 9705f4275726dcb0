// The checks of the client test in Node: what OpenAI's client and the Vercel AI SDK make of the gateway's answers.
//
//   answers.mjs openai | ai
//
// run.sh starts everything and tells where it is through the environment, as answers.py says, which has the same checks; and
// in MODULES, the folder whose node_modules has the clients. What is expected is what shapes.py answers.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { appendFileSync, createReadStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(process.env.MODULES + "/");
const { z } = require("zod");
const baseURL = process.env.ANSWERS + "/v1";
const KEY = "sk-rich-5d41402abc4b2a76"; // of whoever has a budget
const messages = [{ role: "user", content: "hello" }];
const prompt = "hello";

const WORDS = ["Grüße", ", ", "wor", "ld", " 🌍", "."];
const SAID = WORDS.join("");
const SOUND = Buffer.from(Array.from({ length: 256 * 40 }, (_, n) => n % 256));
const PICTURE = Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), Buffer.from(Array.from({ length: 64 }, (_, n) => n))]);
const Facts = z.object({ city: z.string(), degrees: z.number() });
const FACTS = { city: "Oslo", degrees: 7 };
const CALLS = [
  ["call_a", "weather", '{"city":"Oslo"}'],
  ["call_b", "weather", '{"city":"Bern"}'],
];
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const VECTORS = [
  [1, -2, 0],
  [1, -2, 1],
];

// What is uploaded: no text, with line ends and what looks like a boundary in it.
const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, n) => (n * n * 31 + (n >> 7)) % 256));
const UPLOAD = Buffer.concat([bytes, Buffer.from("\r\n--boundary--\r\n"), bytes.reverse(), Buffer.from("\r\n")]);
const sha256 = (data) => createHash("sha256").update(data).digest("hex");
const HEARD = "Heard " + sha256(UPLOAD);

// Of what was asked: input, of that cached, output, of that reasoning.
const USED = { words: [20, 8, 9, 3], facts: [33, 0, 11, 0], calls: [60, 32, 18, 0], after: [71, 64, 6, 0] };

const collected = async (stream) => {
  const all = [];
  for await (const one of stream) {
    all.push(one);
  }
  return all;
};

// --- openai

const openai = () => {
  const OpenAI = require("openai").OpenAI;
  const { zodResponseFormat, zodTextFormat } = require("openai/helpers/zod");
  const client = (apiKey) => new OpenAI({ baseURL, apiKey, timeout: 20_000, maxRetries: 0 });
  const own = client(KEY);
  const { chat, responses, embeddings, audio, images, moderations, models } = own;
  const { toFile, AuthenticationError, NotFoundError, BadRequestError } = OpenAI;

  const usageOf = (usage) => [
    usage.prompt_tokens,
    usage.prompt_tokens_details.cached_tokens,
    usage.completion_tokens,
    usage.completion_tokens_details.reasoning_tokens,
  ];
  const responseUsage = (usage) => [
    usage.input_tokens,
    usage.input_tokens_details.cached_tokens,
    usage.output_tokens,
    usage.output_tokens_details.reasoning_tokens,
  ];
  const callsOf = (calls) => calls.map(({ id, function: { name, arguments: given } }) => [id, name, given]);
  const responseCalls = (response) => response.output.map((item) => [item.call_id, item.name, item.arguments]);
  const tools = [{ type: "function", function: { name: "weather", parameters } }];
  const include = { stream_options: { include_usage: true } };

  const fails = async (kind, expected, asking) => {
    const error = await asking.then(
      () => assert.fail(`expected ${kind.name}, got an answer`),
      (error) => error,
    );
    assert.ok(error instanceof kind, `expected ${kind.name}, got ${error}`);
    const actual = Object.fromEntries(Object.keys(expected).map((name) => [name, error[name]]));
    assert.deepEqual(actual, expected);
  };

  return {
    "a chat": async () => {
      const answer = await chat.completions.create({ model: "talk", messages });
      assert.deepEqual([answer.choices[0].message.content, answer.choices[0].finish_reason], [SAID, "stop"]);
      assert.deepEqual(usageOf(answer.usage), USED.words);
    },

    "a stream of a chat": async () => {
      const chunks = await collected(await chat.completions.create({ model: "talk", messages, stream: true }));
      assert.deepEqual(chunks.slice(1, -1).map((chunk) => chunk.choices[0].delta.content), WORDS);
      assert.ok(chunks.every((chunk) => chunk.usage === null), "usage that nobody asked for");
      const asked = await collected(await chat.completions.create({ model: "talk", messages, stream: true, ...include }));
      assert.deepEqual(usageOf(asked.at(-1).usage), USED.words);
    },

    "the stream helper": async () => {
      const pieces = [];
      const stream = chat.completions.stream({ model: "talk", messages, ...include });
      stream.on("content", (piece) => pieces.push(piece));
      assert.equal(await stream.finalContent(), SAID);
      assert.equal(pieces.join(""), SAID);
      assert.deepEqual(usageOf((await stream.finalChatCompletion()).usage), USED.words);
    },

    "a chat that is parsed": async () => {
      const asked = { model: "talk", messages, response_format: zodResponseFormat(Facts, "facts") };
      const answer = await chat.completions.parse(asked);
      assert.deepEqual(answer.choices[0].message.parsed, FACTS);
      assert.deepEqual(usageOf(answer.usage), USED.facts);
      const streamed = await chat.completions.stream(asked).finalChatCompletion();
      assert.deepEqual(streamed.choices[0].message.parsed, FACTS);
    },

    tools: async () => {
      const answer = await chat.completions.create({ model: "talk", messages, tools });
      const { message, finish_reason } = answer.choices[0];
      assert.deepEqual([callsOf(message.tool_calls), finish_reason, message.content], [CALLS, "tool_calls", null]);
      assert.deepEqual(usageOf(answer.usage), USED.calls);
      const streamed = await chat.completions.stream({ model: "talk", messages, tools, ...include }).finalChatCompletion();
      assert.deepEqual(callsOf(streamed.choices[0].message.tool_calls), CALLS);
      assert.deepEqual(usageOf(streamed.usage), USED.calls);
    },

    "tools that the client runs": async () => {
      const asked = [];
      const run = ({ city }) => asked.push(city) && "7";
      const runner = chat.completions.runTools({
        model: "talk",
        messages,
        tools: [{ type: "function", function: { name: "weather", parameters, parse: JSON.parse, function: run } }],
      });
      assert.equal(await runner.finalContent(), "It is 7 degrees.");
      assert.deepEqual(asked, ["Oslo", "Bern"]);
      const total = await runner.totalUsage();
      assert.deepEqual([total.prompt_tokens, total.completion_tokens], [131, 24]);
    },

    "a response": async () => {
      const response = await responses.create({ model: "talk", input: prompt });
      assert.deepEqual([response.output_text, response.status], [SAID, "completed"]);
      assert.deepEqual(responseUsage(response.usage), USED.words);
    },

    "a stream of a response": async () => {
      const events = await collected(await responses.create({ model: "talk", input: prompt, stream: true }));
      const deltas = events.filter((event) => event.type === "response.output_text.delta");
      assert.deepEqual(deltas.map((event) => event.delta), WORDS);
      assert.deepEqual(responseUsage(events.at(-1).response.usage), USED.words);
      const response = await responses.stream({ model: "talk", input: prompt }).finalResponse();
      assert.deepEqual([response.output_text, responseUsage(response.usage)], [SAID, USED.words]);
    },

    "a response that is kept": async () => {
      const first = await responses.create({ model: "talk", input: prompt });
      const second = await responses.create({ model: "talk", input: prompt, previous_response_id: first.id });
      assert.deepEqual([second.output_text, second.previous_response_id], [SAID, first.id]);
      assert.equal((await responses.retrieve(first.id)).output_text, SAID);
      await responses.delete(first.id);
      await assert.rejects(responses.retrieve(first.id), NotFoundError);
    },

    "a response that is parsed": async () => {
      const asked = { model: "talk", input: prompt, text: { format: zodTextFormat(Facts, "facts") } };
      const response = await responses.parse(asked);
      assert.deepEqual([response.output_parsed, responseUsage(response.usage)], [FACTS, USED.facts]);
      assert.deepEqual((await responses.stream(asked).finalResponse()).output_parsed, FACTS);
    },

    "tools of a response": async () => {
      const asked = { model: "talk", input: prompt, tools: [{ type: "function", name: "weather", parameters, strict: true }] };
      const response = await responses.create(asked);
      assert.deepEqual([responseCalls(response), responseUsage(response.usage)], [CALLS, USED.calls]);
      assert.deepEqual(responseCalls(await responses.stream(asked).finalResponse()), CALLS);
    },

    vectors: async () => {
      // Unless it is told, this client asks for base64, and decodes it.
      for (const form of [{}, { encoding_format: "float" }]) {
        const answer = await embeddings.create({ model: "vector", input: ["a", "b"], ...form });
        assert.deepEqual(answer.data.map((item) => item.embedding), VECTORS);
        assert.deepEqual(answer.usage, { prompt_tokens: 8, total_tokens: 8 });
      }
      const answer = await embeddings.create({ model: "vector", input: "a", encoding_format: "base64" });
      assert.equal(answer.data[0].embedding, "AACAPwAAAMAAAAAA");
    },

    speech: async () => {
      const asked = { model: "speak", voice: "coral", input: "Grüße 🌍." };
      const answer = await audio.speech.create(asked);
      assert.equal(answer.headers.get("content-type"), "audio/mpeg");
      assert.ok(SOUND.equals(Buffer.from(await answer.arrayBuffer())), "other sound");
      const streamed = await audio.speech.create({ ...asked, response_format: "wav" });
      assert.ok(SOUND.equals(Buffer.concat(await collected(streamed.body))), "other sound as it comes");
      const events = await audio.speech.create({ ...asked, model: "speak-by-token", stream_format: "sse" });
      const last = (await events.text()).trim().split("\n\n").at(-1);
      assert.deepEqual(JSON.parse(last.slice(6)).usage, { input_tokens: 3, output_tokens: 24, total_tokens: 27 });
    },

    transcripts: async () => {
      const folder = mkdtempSync(join(tmpdir(), "tollgate-upload."));
      try {
        writeFileSync(join(folder, "a b.wav"), UPLOAD);
        const file = createReadStream(join(folder, "a b.wav"));
        const answer = await audio.transcriptions.create({ model: "hear", file });
        assert.deepEqual(answer, { text: HEARD, usage: { type: "duration", seconds: 9 } });
      } finally {
        rmSync(folder, { recursive: true });
      }
      const file = await toFile(UPLOAD, "Aufnahme.mp3", { type: "audio/mpeg" });
      assert.equal(await audio.transcriptions.create({ model: "hear", file, response_format: "text" }), HEARD + "\n");
      const verbose = await audio.transcriptions.create({
        model: "hear",
        file,
        response_format: "verbose_json",
        timestamp_granularities: ["word", "segment"],
      });
      assert.deepEqual([verbose.text, verbose.words[0].word, verbose.segments[0].end], [HEARD, "Heard", 3.3]);
      const events = await collected(await audio.transcriptions.create({ model: "hear-by-token", file, stream: true }));
      assert.equal(events.slice(0, -1).map((event) => event.delta).join(""), HEARD);
      assert.deepEqual([events.at(-1).text, events.at(-1).usage.total_tokens], [HEARD, 45]);
    },

    translations: async () => {
      const file = await toFile(UPLOAD, "a.wav");
      assert.equal((await audio.translations.create({ model: "hear", file })).text, HEARD);
    },

    pictures: async () => {
      const answer = await images.generate({ model: "draw-by-token", prompt: "a toll house", n: 2 });
      assert.deepEqual(answer.data.map((image) => Buffer.from(image.b64_json, "base64").equals(PICTURE)), [true, true]);
      assert.deepEqual([answer.usage.input_tokens, answer.usage.output_tokens], [10, 544]);
      const [first, second] = [PICTURE, Buffer.concat([PICTURE, UPLOAD])];
      const edited = await images.edit({
        model: "draw",
        prompt: "add a barrier",
        image: [await toFile(first, "a.png", { type: "image/png" }), await toFile(second, "b.png", { type: "image/png" })],
      });
      assert.equal(edited.data[0].revised_prompt, `add a barrier ${sha256(first)} ${sha256(second)}`);
      const stream = await images.generate({ model: "draw-by-token", prompt: "a toll house", stream: true, partial_images: 1 });
      const events = await collected(stream);
      assert.deepEqual([events.length, events[1].type, events[1].usage.output_tokens], [2, "image_generation.completed", 272]);
    },

    moderations: async () => {
      const answer = await moderations.create({ model: "judge", input: ["hello", "a threat"] });
      assert.deepEqual(answer.results.map((result) => result.flagged), [false, true]);
    },

    rankings: async () => {
      const body = { model: "sort", query: "toll", documents: ["a", "abc", "ab"], top_n: 2 };
      const answer = await own.post("/rerank", { body });
      assert.deepEqual(answer.results.map((result) => result.index), [1, 2]);
    },

    models: async () => {
      const listed = await collected(models.list());
      const kinds = Object.fromEntries(listed.map((model) => [model.id, model.kind]));
      assert.deepEqual([kinds.talk, kinds.hear, kinds["shapes/draw"]], ["chat", "transcription", "image"]);
      assert.equal((await models.retrieve("shapes/talk")).id, "shapes/talk");
    },

    errors: async () => {
      const file = await toFile(UPLOAD, "a.wav");
      const stranger = client("sk-nobody");
      const asked = { model: "talk", messages };
      await fails(AuthenticationError, { status: 401, code: "invalid_api_key" }, stranger.chat.completions.create(asked));
      const unknown = { status: 404, code: "model_not_found", param: "model", type: "invalid_request_error" };
      await fails(NotFoundError, unknown, chat.completions.create({ ...asked, model: "unheard-of" }));
      await fails(NotFoundError, unknown, audio.transcriptions.create({ model: "unheard-of", file }));
      const bad = { status: 400, code: "decimal_above_max_value", param: "temperature", type: "invalid_request_error" };
      await fails(BadRequestError, bad, chat.completions.create({ ...asked, temperature: 3 }));
      await fails(BadRequestError, bad, chat.completions.create({ ...asked, temperature: 3, stream: true }));
      const wrong = { status: 400, code: "invalid_request", param: "model", type: "invalid_request_error" };
      await fails(BadRequestError, wrong, chat.completions.create({ ...asked, model: "vector" }));
      await fails(BadRequestError, wrong, audio.transcriptions.create({ model: "talk", file }));
      await fails(BadRequestError, wrong, images.edit({ model: "hear", image: file, prompt: "add a barrier" }));
    },
  };
};

// --- the Vercel AI SDK

const ai = () => {
  const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
  const { createOpenAI } = require("@ai-sdk/openai");
  const sdk = require("ai");
  const about = { name: "tollgate", baseURL, includeUsage: true, supportsStructuredOutputs: true };
  const gateway = createOpenAICompatible({ ...about, apiKey: KEY });
  // What speaks and hears, and responses, are in the package for OpenAI's own alone.
  const responses = createOpenAI({ baseURL, apiKey: KEY });
  const common = { model: gateway("talk"), prompt, maxRetries: 0 };
  const weather = () => {
    const inputSchema = z.object({ city: z.string() });
    return { weather: sdk.tool({ description: "The weather.", inputSchema, execute: async ({ city }) => `in ${city}: 7` }) };
  };
  const usageOf = (usage) => [
    usage.inputTokens,
    usage.inputTokenDetails.cacheReadTokens,
    usage.outputTokens,
    usage.outputTokenDetails.reasoningTokens,
  ];
  const callsOf = (calls) => calls.map((call) => [call.toolCallId, call.toolName, JSON.stringify(call.input)]);

  const fails = async (status, code, param, asking) => {
    const error = await asking.then(
      () => assert.fail("expected an error, got an answer"),
      (error) => error,
    );
    assert.ok(sdk.APICallError.isInstance(error), `${error}`);
    const said = error.data.error;
    assert.deepEqual([error.statusCode, error.isRetryable, said.code, said.param], [status, false, code, param]);
    assert.equal(error.message, said.message);
  };

  return {
    generateText: async () => {
      const answer = await sdk.generateText(common);
      assert.deepEqual([answer.text, answer.finishReason, usageOf(answer.usage)], [SAID, "stop", USED.words]);
    },

    streamText: async () => {
      const answer = sdk.streamText(common);
      assert.deepEqual(await collected(answer.textStream), WORDS);
      assert.deepEqual(usageOf(await answer.usage), USED.words);
    },

    tools: async () => {
      const asked = { ...common, tools: weather(), stopWhen: sdk.stepCountIs(2) };
      const answer = await sdk.generateText(asked);
      assert.deepEqual(callsOf(answer.steps[0].toolCalls), CALLS);
      assert.deepEqual([answer.text, answer.steps.map((step) => usageOf(step.usage))], ["It is 7 degrees.", [USED.calls, USED.after]]);
      const streamed = sdk.streamText(asked);
      assert.equal(await streamed.text, "It is 7 degrees.");
      assert.deepEqual(callsOf((await streamed.steps)[0].toolCalls), CALLS);
      const total = await streamed.totalUsage;
      assert.deepEqual([total.inputTokens, total.outputTokens], [131, 24]);
    },

    "an object by its schema": async () => {
      const answer = await sdk.generateText({ ...common, output: sdk.Output.object({ schema: Facts }) });
      assert.deepEqual([answer.output, usageOf(answer.usage)], [FACTS, USED.facts]);
    },

    responses: async () => {
      const answer = await sdk.generateText({ ...common, model: responses("talk") });
      assert.deepEqual([answer.text, usageOf(answer.usage)], [SAID, USED.words]);
      const streamed = sdk.streamText({ ...common, model: responses("talk"), tools: weather() });
      assert.deepEqual(callsOf(await streamed.toolCalls), CALLS);
      assert.deepEqual(usageOf(await streamed.usage), USED.calls);
    },

    embed: async () => {
      const model = gateway.embeddingModel("vector");
      const one = await sdk.embed({ model, value: "a", maxRetries: 0 });
      assert.deepEqual([one.embedding, one.usage.tokens], [VECTORS[0], 4]);
      const both = await sdk.embedMany({ model, values: ["a", "b"], maxRetries: 0 });
      assert.deepEqual([both.embeddings, both.usage.tokens], [VECTORS, 8]);
    },

    generateImage: async () => {
      const model = gateway.imageModel("draw");
      const answer = await sdk.generateImage({ model, prompt: "a toll house", n: 2, maxRetries: 0 });
      assert.deepEqual(answer.images.map((image) => PICTURE.equals(image.uint8Array)), [true, true]);
      const given = { text: "add a barrier", images: [PICTURE] };
      const edited = await sdk.generateImage({ model, prompt: given, maxRetries: 0 });
      assert.ok(PICTURE.equals(edited.images[0].uint8Array), "another picture");
    },

    generateSpeech: async () => {
      const answer = await sdk.experimental_generateSpeech({ model: responses.speech("speak"), text: prompt, voice: "coral" });
      assert.ok(SOUND.equals(answer.audio.uint8Array), "other sound");
    },

    transcribe: async () => {
      const answer = await sdk.experimental_transcribe({ model: responses.transcription("hear"), audio: UPLOAD });
      assert.equal(answer.text, HEARD);
    },

    errors: async () => {
      const stranger = createOpenAICompatible({ ...about, apiKey: "sk-nobody" });
      await fails(401, "invalid_api_key", null, sdk.generateText({ ...common, model: stranger("talk") }));
      await fails(404, "model_not_found", "model", sdk.generateText({ ...common, model: gateway("unheard-of") }));
      await fails(400, "decimal_above_max_value", "temperature", sdk.generateText({ ...common, temperature: 3 }));
      await fails(400, "invalid_request", "model", sdk.generateText({ ...common, model: gateway("vector") }));
      const transcript = { model: responses.transcription("talk"), audio: UPLOAD, maxRetries: 0 };
      await fails(400, "invalid_request", "model", sdk.experimental_transcribe(transcript));
    },
  };
};

// Whatever hangs ends.
setTimeout(() => {
  console.error("the checks take too long");
  process.exit(1);
}, 60_000).unref();

globalThis.AI_SDK_LOG_WARNINGS = false; // of what is experimental
const client = process.argv[2];
let [passed, failed] = [0, 0];
for (const [name, check] of Object.entries({ openai, ai }[client]())) {
  try {
    await check();
    passed += 1;
    console.log(`ok    ${client} (node): ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${client} (node): ${name}\n${error.stack}`);
  }
}
appendFileSync(process.env.SUMMARY, `${passed} ${failed}\n`);
process.exit(failed > 0 ? 1 : 0);
