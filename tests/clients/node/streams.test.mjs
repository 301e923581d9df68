// openai-node on streams that are slow, and on streams that are cut: what it can do with its own means.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import OpenAI from 'openai';
import { REAL, SLOW, SLOWLY } from './addresses.mjs';

const messages = [{ role: 'user', content: 'Hi.' }];
const asked = { model: 'default', messages, stream: true };
const options = { apiKey: 'any', maxRetries: 0 };
const text = (chunks) => chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join('');

// A proxy whose next answers are cut after so many bytes each; what comes after them is whole.
async function lossyProxy(...cuts) {
  const { hostname, port } = new URL(SLOW);
  const requests = [];
  const server = net.createServer((client) => {
    const upstream = net.connect(Number(port), hostname);
    const number = requests.push('') - 1;
    let left = cuts[number] ?? Infinity;
    client.on('data', (data) => ((requests[number] += data), upstream.write(data)));
    upstream.on('data', (data) => {
      client.write(data.subarray(0, left));
      left -= data.length;
      if (left <= 0) setTimeout(() => client.destroy(), 20);
    });
    const end = () => (client.destroy(), upstream.destroy());
    for (const side of [client, upstream]) side.on('error', end).on('close', end);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return { baseURL: `http://127.0.0.1:${server.address().port}/v1`, requests, close: () => server.close() };
}

test('representative: keep-alives of a long prefill are no chunks', async () => {
  const client = new OpenAI({ ...options, baseURL: `${SLOW}/v1` });
  const chunks = [];
  for await (const chunk of await client.chat.completions.create(asked)) chunks.push(chunk);
  assert.equal(text(chunks), SLOWLY);
  const final = await client.chat.completions.stream({ ...asked, stream: undefined }).finalChatCompletion();
  assert.equal(final.choices[0].message.content, SLOWLY);
});

test('representative: a cut stream is gone on with behind its last event', async () => {
  const proxy = await lossyProxy(1700);
  const client = new OpenAI({ ...options, baseURL: proxy.baseURL });
  const response = await client.chat.completions.create({ ...asked, background: true }).asResponse();
  let read = '';
  await assert.rejects(async () => {
    for await (const bytes of response.body) read += Buffer.from(bytes).toString();
  });
  const events = read.split('\n\n').slice(0, -1);
  const ids = events.map((event) => event.match(/^id: (.*)$/m)[1]);
  const seen = events.map((event) => JSON.parse(event.match(/^data: (.*)$/m)[1]));
  assert.ok(seen.length > 1);
  const rest = [];
  const more = await client.get(`/chat/completions/${seen[0].id}/stream`, {
    stream: true,
    headers: { 'Last-Event-ID': ids.at(-1) },
  });
  for await (const chunk of more) rest.push(chunk);
  assert.equal(text(seen) + text(rest), SLOWLY);
  assert.notEqual(text(rest), '');
  assert.equal(rest.at(-1).choices[0].finish_reason, 'stop');
  proxy.close();
});

test('representative: its own retry finds what the first attempt generates', async () => {
  const proxy = await lossyProxy(0);
  const client = new OpenAI({ ...options, maxRetries: 1, baseURL: proxy.baseURL });
  const whole = await client.chat.completions.create({ ...asked, stream: false });
  assert.equal(whole.choices[0].message.content, SLOWLY);
  assert.deepEqual(
    proxy.requests.map((request) => request.match(/x-stainless-retry-count: (.)/i)[1]),
    ['0', '1'],
  );
  const direct = new OpenAI({ ...options, baseURL: `${SLOW}/v1` });
  const first = await direct.chat.completions.create({ ...asked, stream: false });
  assert.notEqual(first.id, whole.id);
  proxy.close();
});

test('a real prompt of 1,500 tokens is read', async () => {
  const client = new OpenAI({ ...options, baseURL: `${REAL}/v1` });
  const content = 'river '.repeat(1500);
  const stream = await client.chat.completions.create({ ...asked, messages: [{ role: 'user', content }], max_tokens: 4 });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  assert.ok(['stop', 'length'].includes(chunks.at(-1).choices[0].finish_reason));
});
