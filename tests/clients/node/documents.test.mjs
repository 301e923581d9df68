// What the documentation shows of the clients of Node runs as it stands.
import assert from 'node:assert/strict';
import { readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { REAL } from './addresses.mjs';

const file = fileURLToPath(import.meta.url); // beside the packages, by a link
const document = resolve(dirname(realpathSync(file)), '../../../docs/how-to/clients.md');
const blocks = [...readFileSync(document, 'utf8').matchAll(/^```js\n(.*?)^```/gms)].map((match) => match[1]);

test('representative: what the document shows runs', async () => {
  assert.equal(blocks.length, 2);
  for (const [number, code] of blocks.entries()) {
    const pasted = resolve(dirname(dirname(file)), `pasted-${number}.mjs`);
    writeFileSync(pasted, code.replace('http://127.0.0.1:9123', REAL));
    await import(pathToFileURL(pasted));
  }
});
