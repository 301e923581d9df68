// openai-node, unmodified but for its baseURL.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { MODEL, REAL, SCRIPTED, WEATHER } from './addresses.mjs';

const options = { apiKey: 'any', maxRetries: 0 };
const client = new OpenAI({ ...options, baseURL: `${REAL}/v1` });
const scripted = new OpenAI({ ...options, baseURL: `${SCRIPTED}/v1` });
const messages = [{ role: 'user', content: 'What is the weather in Paris?' }];
const asked = { model: MODEL, messages, temperature: 0, max_tokens: 6 };

test('representative: a streamed chat says what the whole one says', async () => {
  const whole = await client.chat.completions.create(asked);
  const stream = client.chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
  let text = '';
  stream.on('content', (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(final.choices[0].message.content, text);
  assert.equal(final.choices[0].finish_reason, whole.choices[0].finish_reason);
  assert.deepEqual(final.usage.completion_tokens, whole.usage.completion_tokens);
  assert.match(whole._request_id, /^req_/);
});

test('representative: a forced call, streamed and parsed by zod', async () => {
  const Arguments = z.object({ city: z.enum(['Paris', 'London']) });
  const tools = [zodFunction({ name: 'get_weather', parameters: Arguments })];
  const forced = { ...asked, tools, tool_choice: 'required', parallel_tool_calls: false, max_tokens: 60 };
  const calls = (completion) => completion.choices[0].message.tool_calls.map((call) => call.function);
  const [whole] = calls(await client.chat.completions.parse(forced));
  assert.equal(whole.name, 'get_weather');
  assert.ok(Arguments.parse(whole.parsed_arguments));
  const stream = client.chat.completions.stream(forced);
  const done = [];
  stream.on('tool_calls.function.arguments.done', (event) => done.push(event.parsed_arguments));
  const [streamed] = calls(await stream.finalChatCompletion());
  assert.deepEqual(streamed.parsed_arguments, whole.parsed_arguments);
  assert.deepEqual(done, [whole.parsed_arguments]);
});

test('an answer is parsed by zod', async () => {
  const City = z.object({ city: z.enum(['Paris', 'London']), inhabited: z.boolean() });
  const request = { ...asked, max_tokens: 60, response_format: zodResponseFormat(City, 'city') };
  const { message } = (await client.chat.completions.parse(request)).choices[0];
  assert.ok(City.parse(message.parsed));
  const streamed = await client.chat.completions.stream(request).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, message.parsed);
});

test('a model that calls by itself is run with its tools', async () => {
  for (const stream of [false, true]) {
    const tools = [{ type: 'function', function: { ...WEATHER, function: () => '21 degrees', parse: JSON.parse } }];
    const runner = scripted.chat.completions.runTools({ model: 'default', messages, tools, stream });
    assert.equal(await runner.finalContent(), 'It is 21 degrees in Paris.');
    const roles = runner.messages.map((message) => message.role);
    assert.deepEqual(roles, ['user', 'assistant', 'tool', 'assistant']);
  }
});

test('a real model calls by itself, and sees the result', async () => {
  const tools = [{ type: 'function', function: WEATHER }];
  const first = await client.chat.completions.create({ model: 'caller', messages, tools });
  const [call] = first.choices[0].message.tool_calls;
  assert.deepEqual(JSON.parse(call.function.arguments), { location: 'Paris' });
  const result = { role: 'tool', tool_call_id: call.id, content: '21 degrees' };
  const more = [...messages, first.choices[0].message, result];
  const second = await client.chat.completions.create({ ...asked, tools, tool_choice: 'none', messages: more });
  assert.equal(typeof second.choices[0].message.content, 'string');
});

test('models and embeddings', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes(MODEL) && ids.includes('caller'));
  assert.equal((await client.models.retrieve('default')).id, MODEL);
  const { data } = await client.embeddings.create({ model: 'all-minilm-l6-v2', input: ['one', 'two'] });
  assert.deepEqual(data.map((row) => row.embedding.length), [384, 384]);
});

test('errors are of their classes', async () => {
  const refused = (more) => client.chat.completions.create({ ...asked, ...more });
  await assert.rejects(refused({ model: 'none' }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.status, error.code, error.param], [404, 'model_not_found', 'model']);
    assert.match(error.requestID, /^req_/);
    return true;
  });
  await assert.rejects(refused({ messages: [] }), OpenAI.BadRequestError);
  await assert.rejects(refused({ temperature: 3, stream: true }), OpenAI.BadRequestError);
});

test('a session keeps what was said; an abort ends it', async () => {
  const session = { ...asked, session_id: 'node' };
  const first = await client.chat.completions.create(session);
  assert.equal(first.session_id, 'node');
  const { response } = await client.chat.completions.create(session).withResponse();
  assert.equal(response.headers.get('x-session-id'), 'node');
  const stream = await client.chat.completions.create({ ...asked, max_tokens: 500, stream: true });
  for await (const chunk of stream) {
    assert.equal(chunk.object, 'chat.completion.chunk');
    stream.controller.abort();
  }
});

test('what was parsed is sent back', async () => {
  const asking = (more) => scripted.chat.completions.parse({ model: 'default', messages, ...more });
  const City = z.object({ city: z.string(), degrees: z.number() });
  const first = await asking({ response_format: zodResponseFormat(City, 'city') });
  assert.deepEqual(first.choices[0].message.parsed, { city: 'Paris', degrees: 21 });
  await asking({ messages: [...messages, first.choices[0].message, ...messages] });
  const tools = [zodFunction({ name: 'get_weather', parameters: z.object({ location: z.string() }) })];
  const { message } = (await asking({ tools })).choices[0];
  const result = { role: 'tool', tool_call_id: message.tool_calls[0].id, content: '21 degrees' };
  const answer = await asking({ tools, messages: [...messages, message, result] });
  assert.equal(answer.choices[0].message.content, 'It is 21 degrees in Paris.');
});
