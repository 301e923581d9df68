// openai-node over Responses and Conversations: its helpers, iterators, retries and errors.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { ResponsesToolRunner, runnerFunction } from 'openai/helpers/responses-tool-runner';
import { zodResponsesFunction, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { MODEL, REAL, SCRIPTED, WEATHER } from './addresses.mjs';

const options = { apiKey: 'any', maxRetries: 0 };
const client = new OpenAI({ ...options, baseURL: `${REAL}/v1` });
const scripted = new OpenAI({ ...options, baseURL: `${SCRIPTED}/v1` });
const asked = { model: MODEL, input: 'What is the weather in Paris?', temperature: 0, max_output_tokens: 6 };
const ask = (input, more) => scripted.responses.create({ model: 'default', input, ...more });
const City = z.object({ city: z.string(), degrees: z.number() });
const location = z.object({ location: z.string() });
const all = async (pages) => {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
};

test('representative: a streamed response is what the whole one is', async () => {
  const whole = await client.responses.create(asked);
  const stream = client.responses.stream(asked);
  let text = '';
  stream.on('response.output_text.delta', ({ delta, snapshot }) => {
    text += delta;
    assert.equal(snapshot, text);
  });
  const final = await stream.finalResponse();
  assert.equal(text, whole.output_text);
  assert.equal(final.output_text, text);
  assert.equal(final.status, whole.status);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
  assert.match(whole._request_id, /^req_/);
  const told = await client.responses.retrieve(final.id);
  assert.deepEqual(told.output, JSON.parse(JSON.stringify(final.output, (key, value) => (key === 'parsed' ? undefined : value))));
});

test('a forced call, parsed by zod', async () => {
  const Arguments = z.object({ city: z.enum(['Paris', 'London']) });
  const tools = [zodResponsesFunction({ name: 'get_weather', parameters: Arguments })];
  const forced = { ...asked, tools, tool_choice: 'required', parallel_tool_calls: false, max_output_tokens: 60 };
  const whole = await client.responses.parse(forced);
  const [call] = whole.output.filter((item) => item.type === 'function_call');
  assert.ok(Arguments.parse(call.parsed_arguments));
  const streamed = await client.responses.stream(forced).finalResponse();
  const [again] = streamed.output.filter((item) => item.type === 'function_call');
  assert.deepEqual(again.parsed_arguments, call.parsed_arguments);
});

test('representative: a run with tools ends with the answer, whole and streamed', async () => {
  for (const stream of [false, true]) {
    const called = [];
    const look = ({ location }) => called.push(location) && '21 degrees';
    const tool = zodResponsesFunction({ name: WEATHER.name, parameters: location, function: look });
    const runner = new ResponsesToolRunner({ functions: [runnerFunction(tool)] });
    const events = [];
    const params = { model: 'default', input: 'What is the weather in Paris?' };
    const final = await runner.run(scripted, params, { stream, onEvent: (event) => events.push(event.type) });
    assert.equal(final.output_text, 'It is 21 degrees in Paris.');
    assert.deepEqual(called, ['Paris']);
    assert.equal(events.filter((type) => type === 'response.completed').length, stream ? 2 : 0);
  }
});

test('an object is parsed by zod', async () => {
  const text = { format: zodTextFormat(City, 'city') };
  const whole = await scripted.responses.parse({ model: 'default', input: 'How is Paris?', text });
  assert.deepEqual(whole.output_parsed, { city: 'Paris', degrees: 21 });
  const streamed = await scripted.responses.stream({ model: 'default', input: 'How is Paris?', text }).finalResponse();
  assert.deepEqual(streamed.output_parsed, whole.output_parsed);
  const Place = z.object({ city: z.enum(['Paris', 'London']), inhabited: z.boolean() });
  const real = { ...asked, max_output_tokens: 60, text: { format: zodTextFormat(Place, 'place') } };
  assert.ok(Place.parse((await client.responses.parse(real)).output_parsed));
});

test('a chain, a fork, and reasoning that comes in clear', async () => {
  const one = await ask('Think.');
  assert.deepEqual(one.output.map((item) => item.type), ['reasoning', 'message']);
  const two = await ask('And now?', { previous_response_id: one.id });
  const other = await ask('Or else?', { previous_response_id: one.id });
  assert.deepEqual([two.previous_response_id, other.previous_response_id], [one.id, one.id]);
  assert.notEqual(other.session_id, two.session_id);
  const seen = await all(scripted.responses.inputItems.list(two.id, { limit: 1, order: 'asc' }));
  assert.deepEqual(seen.map((item) => item.type), ['message', 'reasoning', 'message', 'message']);
  const counted = await scripted.responses.inputTokens.count({ model: 'default', input: 'And now?', previous_response_id: one.id });
  assert.equal(counted.input_tokens, two.usage.input_tokens);
  await scripted.responses.delete(two.id);
  await assert.rejects(scripted.responses.retrieve(two.id), OpenAI.NotFoundError);
});

test('a conversation, and its pages', async () => {
  const talk = await scripted.conversations.create({ metadata: { about: 'x' }, items: [{ role: 'user', content: 'first' }] });
  const told = await ask('second', { conversation: talk.id });
  assert.equal(told.conversation.id, talk.id);
  await scripted.conversations.items.create(talk.id, { items: [{ role: 'user', content: 'third' }] });
  const items = await all(scripted.conversations.items.list(talk.id, { order: 'asc', limit: 1 }));
  assert.deepEqual(items.map((item) => item.role), ['user', 'user', 'assistant', 'user']);
  const found = await scripted.conversations.items.retrieve(items[2].id, { conversation_id: talk.id });
  assert.deepEqual(found, items[2]);
  await scripted.conversations.items.delete(items[0].id, { conversation_id: talk.id });
  assert.equal((await all(scripted.conversations.items.list(talk.id, { limit: 2 }))).length, 3);
  assert.deepEqual((await scripted.conversations.update(talk.id, { metadata: { about: 'y' } })).metadata, { about: 'y' });
  assert.equal((await scripted.conversations.delete(talk.id)).deleted, true);
  await assert.rejects(scripted.conversations.retrieve(talk.id), OpenAI.NotFoundError);
});

test('a background response is followed from anywhere, and cancelled', async () => {
  const begun = await ask('Take your time.', { background: true });
  assert.equal(begun.status, 'queued');
  const types = [];
  const whole = scripted.responses.stream({ response_id: begun.id });
  whole.on('event', (event) => types.push(event.type));
  const [final, rest] = await Promise.all([
    whole.finalResponse(),
    scripted.responses.retrieve(begun.id, { stream: true, starting_after: 9 }).then(all),
  ]);
  assert.deepEqual(types.slice(0, 3), ['response.created', 'response.queued', 'response.in_progress']);
  assert.equal(final.output_text, 'a '.repeat(40));
  assert.deepEqual(rest.map((event) => event.sequence_number), rest.map((_, index) => 10 + index));
  assert.equal(rest.at(-1).type, 'response.completed');
  assert.equal(rest.length + 10, types.length);
  const again = await scripted.responses.stream({ response_id: begun.id, starting_after: 20 }).finalResponse();
  assert.equal(again.output_text, final.output_text);
  const second = await ask('Take your time.', { background: true });
  const cancelled = await scripted.responses.cancel(second.id);
  assert.equal(cancelled.status, 'cancelled');
  assert.equal((await scripted.responses.retrieve(second.id)).status, 'cancelled');
});

test('stored chats are listed in pages, and their messages', async () => {
  const metadata = { suite: 'node', run: String(Date.now()) };
  const said = [];
  for (let number = 0; number < 5; number += 1) {
    const messages = [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: `hello ${number}` }];
    said.push((await scripted.chat.completions.create({ model: 'default', messages, store: true, metadata })).id);
  }
  const found = await all(scripted.chat.completions.list({ limit: 2, metadata, order: 'asc' }));
  assert.deepEqual(found.map((one) => one.id), said);
  assert.deepEqual((await scripted.chat.completions.retrieve(said[0])).id, said[0]);
  const messages = await all(scripted.chat.completions.messages.list(said[3], { limit: 1 }));
  assert.deepEqual(messages.map((message) => message.content), ['Be brief.', 'hello 3']);
  const updated = await scripted.chat.completions.update(said[0], { metadata: { run: 'none' } });
  assert.deepEqual(updated.metadata, { run: 'none' });
  assert.equal((await all(scripted.chat.completions.list({ limit: 3, metadata }))).length, 4);
  assert.equal((await scripted.chat.completions.delete(said[1])).deleted, true);
  await assert.rejects(scripted.chat.completions.retrieve(said[1]), OpenAI.NotFoundError);
});

test('errors are of their classes, also in the middle of a stream', async () => {
  await assert.rejects(client.responses.create({ ...asked, model: 'none' }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.status, error.code, error.param], [404, 'model_not_found', 'model']);
    assert.match(error.requestID, /^req_/);
    return true;
  });
  await assert.rejects(ask('x', { previous_response_id: 'resp_0' }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.code, error.param], ['previous_response_not_found', 'previous_response_id']);
    return true;
  });
  await assert.rejects(ask('Fail.'), (error) => error instanceof OpenAI.InternalServerError && error.code === 'generation_failed');
  const events = await all(await ask('Fail.', { stream: true }));
  assert.equal(events.at(-1).type, 'response.failed');
  assert.equal(events.at(-1).response.error.message, 'generation_failed: it is not meant to be');
  const failed = await scripted.responses.stream({ model: 'default', input: 'Fail.' }).finalResponse();
  assert.equal(failed.status, 'failed');
});

test('a request that is cut off and tried again is one response', async () => {
  let attempts = 0;
  const cutting = async (address, init) => {
    const answer = await fetch(address, init);
    attempts += 1;
    if (attempts === 1) throw new TypeError('the connection was cut');
    return answer;
  };
  const impatient = new OpenAI({ ...options, maxRetries: 2, baseURL: `${SCRIPTED}/v1`, fetch: cutting });
  const input = `once ${Date.now()}`;
  const answer = await impatient.responses.create({ model: 'default', input, metadata: { cut: input } });
  assert.equal(attempts, 2);
  const events = await (await fetch(`${SCRIPTED}/v1/events?type=CompletionRequested&limit=1000`)).json();
  const same = events.data.filter((event) => event.payload?.metadata?.cut === input);
  assert.deepEqual(same.map((event) => event.payload.completion_id), [answer.id]);
});

test('an abort ends the response', async () => {
  const stream = await ask('Take your time.', { stream: true });
  let id;
  for await (const event of stream) {
    id ??= event.response?.id;
    if (event.type === 'response.output_text.delta') stream.controller.abort();
  }
  let ended = await scripted.responses.retrieve(id);
  for (let looks = 0; ended.status === 'in_progress' && looks < 100; looks += 1) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    ended = await scripted.responses.retrieve(id);
  }
  assert.equal(ended.status, 'cancelled');
});
