// The AI SDK, by its provider for OpenAI-compatible servers and by OpenAI's own with another baseURL, which takes Responses.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, embedMany, generateText, isStepCount, Output, streamText, tool } from 'ai';
import { z } from 'zod';
import { MODEL, REAL, SCRIPTED } from './addresses.mjs';

const at = (address) => ({ apiKey: 'any', baseURL: `${address}/v1` });
const compatible = (address) => createOpenAICompatible({ ...at(address), name: 'manent', includeUsage: true, supportsStructuredOutputs: true });
const real = compatible(REAL);
const providers = { compatible: real, openai: { chatModel: createOpenAI(at(REAL)).chat }, responses: { chatModel: createOpenAI(at(REAL)) } };
const openai = createOpenAI(at(SCRIPTED));
const scripted = { compatible: compatible(SCRIPTED), openai: { chatModel: openai.chat }, responses: { chatModel: openai.responses } };
const City = z.object({ city: z.enum(['Paris', 'London']) });
const asked = { prompt: 'What is the weather in Paris?', temperature: 0, maxOutputTokens: 6, maxRetries: 0 };
const weather = () => tool({ description: 'The weather in a city', inputSchema: z.object({ location: z.string() }), execute: async () => '21 degrees' });

for (const [name, provider] of Object.entries(providers)) {
  test(`representative: a streamed text says what the whole one says (${name})`, async () => {
    const whole = await generateText({ ...asked, model: provider.chatModel(MODEL) });
    const streamed = streamText({ ...asked, model: provider.chatModel(MODEL) });
    let text = '';
    for await (const piece of streamed.textStream) text += piece;
    assert.equal(text, whole.text);
    assert.ok(text.length > 0);
    assert.equal(await streamed.finishReason, whole.finishReason);
    assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
    assert.ok(whole.usage.inputTokens > 0);
    assert.deepEqual(whole.warnings ?? [], []);
  });

  test(`representative: a forced call (${name})`, async () => {
    const tools = { get_weather: tool({ description: 'The weather in a city', inputSchema: City }) };
    const forced = { ...asked, maxOutputTokens: 60, tools, toolChoice: { type: 'tool', toolName: 'get_weather' } };
    const { toolCalls } = await generateText({ ...forced, model: provider.chatModel(MODEL) });
    const streamed = streamText({ ...forced, model: provider.chatModel(MODEL) });
    for (const calls of [toolCalls, await streamed.toolCalls]) {
      assert.equal(calls.length, 1);
      assert.ok(City.parse(calls[0].input));
    }
  });

  test(`an object (${name})`, async () => {
    const output = Output.object({ schema: City });
    const whole = await generateText({ ...asked, maxOutputTokens: 60, model: provider.chatModel(MODEL), output });
    assert.ok(City.parse(whole.output));
    const streamed = streamText({ ...asked, maxOutputTokens: 60, model: provider.chatModel(MODEL), output });
    assert.deepEqual(await streamed.output, whole.output);
  });

  test(`a loop with a tool (${name})`, async () => {
    const loop = { ...asked, maxOutputTokens: 100, model: scripted[name].chatModel('default'), stopWhen: isStepCount(4) };
    const whole = await generateText({ ...loop, tools: { get_weather: weather() } });
    assert.equal(whole.text, 'It is 21 degrees in Paris.');
    assert.equal(whole.steps.length, 2);
    const streamed = streamText({ ...loop, tools: { get_weather: weather() } });
    assert.equal(await streamed.text, whole.text);
  });

  test(`an error (${name})`, async () => {
    await assert.rejects(generateText({ ...asked, model: provider.chatModel('none') }), (error) => {
      assert.ok(APICallError.isInstance(error));
      assert.equal(error.statusCode, 404);
      assert.match(error.message, /no model 'none'/);
      return true;
    });
  });
}

test('a chain, a conversation, and one that is not stored (responses)', async () => {
  const model = openai.responses('default');
  const first = await generateText({ model, prompt: 'Hello.' });
  const previousResponseId = first.finalStep.providerMetadata.openai.responseId;
  const second = await generateText({ model, prompt: 'And now?', providerOptions: { openai: { previousResponseId } } });
  const seen = await (await fetch(`${SCRIPTED}/v1/responses/${second.finalStep.providerMetadata.openai.responseId}/input_items`)).json();
  assert.equal(seen.data.length, 3);
  const talk = await (await fetch(`${SCRIPTED}/v1/conversations`, { method: 'POST' })).json();
  const inTalk = { model, providerOptions: { openai: { conversation: talk.id } } };
  for (const prompt of ['one', 'two']) await generateText({ ...inTalk, prompt });
  const items = await (await fetch(`${SCRIPTED}/v1/conversations/${talk.id}/items`)).json();
  assert.equal(items.data.length, 4);
  const alone = await generateText({ model, prompt: 'Hello.', providerOptions: { openai: { store: false } } });
  assert.equal(alone.text, first.text);
});

test('reasoning goes back with the messages (responses)', async () => {
  const model = openai.responses('default');
  const first = await generateText({ model, prompt: 'Think.' });
  assert.equal(first.text, 'So it is.');
  const messages = [{ role: 'user', content: 'Think.' }, ...first.responseMessages, { role: 'user', content: 'And now?' }];
  assert.ok((await generateText({ model, messages })).text.length > 0);
});

for (const [name, provider] of Object.entries(scripted)) {
  test(`an error in the middle of a stream (${name})`, async () => {
    const errors = [];
    const { fullStream } = streamText({ model: provider.chatModel('default'), prompt: 'Fail.', maxRetries: 0, onError: ({ error }) => errors.push(error) });
    const parts = [];
    for await (const part of fullStream) parts.push(part.type);
    assert.ok(parts.includes('text-delta'));
    assert.ok(parts.includes('error'), parts.join());
    assert.equal(errors.length, 1);
    assert.match(JSON.stringify(errors[0]?.message ?? errors[0]), /not meant to be/);
  });
}

test('embeddings', async () => {
  const { embeddings } = await embedMany({ model: real.embeddingModel('all-minilm-l6-v2'), values: ['one', 'two'] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [384, 384]);
});
