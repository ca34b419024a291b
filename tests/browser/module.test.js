// The module as a file: its size, its making and its types.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build, PAGE } from './build.js';

const file = (name) => readFile(new URL(name, PAGE), 'utf8');

test('fanfare.js is under 5 KB as served', async () => {
  assert.ok(Buffer.byteLength(await file('fanfare.js')) < 5000);
});

test('fanfare.js is what `npm run build` makes of its source', async () => {
  assert.equal(await file('fanfare.js'), await build());
});

test('fanfare.js has no dependency', async () => {
  assert.doesNotMatch(await file('fanfare.src.js'), /\bimport\b|\brequire\(/);
});

test('every export and every member has a type', async () => {
  const types = await file('fanfare.d.ts');
  const module = await import(new URL('fanfare.js', PAGE));
  for (const name of Object.keys(module)) assert.match(types, new RegExp(`export (class|function|const) ${name}\\b`));
  class NeverOpens {
    close() {}
  }
  const hub = new module.Fanfare('ws://hub.test/', { WebSocket: NeverOpens });
  for (const name of Object.keys(hub)) assert.match(types, new RegExp(`^  (readonly )?${name}\\??[:(<]`, 'm'), name);
  hub.close();
});

test('the types accept the use that the manual shows, and refuse a wrong one', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'fanfare-types-'));
  try {
    const use = join(folder, 'use.ts');
    await writeFile(use, `
      import { Fanfare, type Position } from ${JSON.stringify(fileURLToPath(new URL('fanfare.js', PAGE)))};
      const hub = new Fanfare('/ws/connect', { getToken: async () => 'token' });
      const sub = hub.subscribe<{ text: string }>('news', {
        onPublication: ({ data, offset }) => { const text: string = data.text; const at: number | undefined = offset; },
        onGap: ({ dropped, epoch }) => { const count: number | null = dropped; const at: string | undefined = epoch; },
        onSubscribed: ({ offset }) => { const at: number | undefined = offset; },
        onJoin: ({ client }) => {}, onLeave: ({ user }) => {}, presence: true, recover: { epoch: 'e', offset: 1 },
      });
      const stop: () => void = hub.on('state', ({ state, code, delay }) => state === 'closed');
      const published: Promise<{ offset?: number }> = hub.publish('news', { text: 'a' }, { key: 'k' });
      hub.history('news', { limit: 1, since: sub.position as Position }).then((h) => h.publications[0].offset + 1);
      hub.history('news').then((h) => { const user: string | undefined = h.publications[0].from?.user; });
      hub.presence('news').then(({ clients }) => clients['c'].user);
      sub.unsubscribe(); stop(); hub.close(); hub.connect();
      // Channels without history have no position.
      // @ts-expect-error
      hub.on('gap', ({ epoch }) => epoch.length);
      // @ts-expect-error
      hub.subscribe('cursor', { onSubscribed: ({ offset }) => offset + 1 });
      // @ts-expect-error
      hub.subscribe(1);
      // @ts-expect-error
      hub.state = 'closed';
    `);
    const tsc = fileURLToPath(new URL('node_modules/typescript/bin/tsc', import.meta.url));
    await promisify(execFile)(process.execPath, [
      tsc, '--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', use,
    ]).catch((e) => assert.fail(e.stdout));
  } finally {
    await rm(folder, { recursive: true });
  }
});
