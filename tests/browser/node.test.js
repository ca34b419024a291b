// fanfare.js in Node against the real hub: the whole way of a command, a cut, a token, a drain.
// Node before version 22 has its WebSocket behind --experimental-websocket.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Fanfare } from '../../src/admin/page/fanfare.js';
import { eventually, inSeconds, JWT_SECRET, startHub, startProxy, token } from './hub.js';

let server, guarded, proxy;
const opened = new Set();

before(async () => {
  server = await startHub();
  guarded = await startHub({ AUTH_REQUIRED: 'true', JWT_SECRET, HUB_API_KEY: 'the back end of the tests' });
  proxy = await startProxy(server.port);
});
after(async () => {
  opened.forEach((hub) => hub.close());
  proxy?.stop();
  await server?.stop();
  await guarded?.stop();
});

function client(url, options) {
  const hub = new Fanfare(url, { minDelay: 100, ...options });
  hub.states = [];
  hub.on('state', (change) => hub.states.push(change));
  opened.add(hub);
  return hub;
}
const connected = (hub) => eventually('connected', () => hub.state === 'connected');
const closed = (hub) => eventually('closed', () => hub.state === 'closed');
/** Subscribes, waits for the answer, and keeps what comes. */
async function listen(hub, channel, options) {
  const seen = [];
  seen.sub = hub.subscribe(channel, {
    onPublication: ({ data }) => seen.push(data),
    onGap: () => seen.push('gap'),
    onUnsubscribed: ({ code }) => seen.push(`unsubscribed ${code}`),
    ...options,
  });
  await eventually(`subscribed to ${channel}`, () => seen.sub.live || seen.length);
  return seen;
}
const has = (seen, expected) => eventually(`${expected.length} of ${seen}`, () => seen.length >= expected.length).then(() => assert.deepEqual([...seen], expected));

test('publishes, receives, reads history and presence', async () => {
  const [a, b] = [client(server.ws), client(server.ws)];
  const seen = await listen(a, 'node:all');
  await listen(b, 'node:all');
  const { offset, epoch } = await b.publish('node:all', { hello: 'world' });
  assert.equal(offset, 1);
  await server.publish('node:all', 2);
  await has(seen, [{ hello: 'world' }, 2]);
  assert.deepEqual(seen.sub.position, { epoch, offset: 2 });
  const history = await a.history('node:all', { since: { epoch, offset: 1 }, limit: 10 });
  assert.deepEqual(history.publications.map((p) => [p.offset, p.data]), [[2, 2]]);
  const presence = await a.presence('node:all');
  assert.equal(presence.count, 2);
  assert.deepEqual(Object.keys(presence.clients).sort(), [a.clientId, b.clientId].sort());
});

test('tells joins and leaves to who asked for them', async () => {
  const [a, b] = [client(server.ws), client(server.ws)];
  const members = [];
  await listen(a, 'node:members', { presence: true, onJoin: (m) => members.push(m), onLeave: (m) => members.push(m) });
  const { sub } = await listen(b, 'node:members');
  const came = (type) => eventually(`${type} of b`, () => members.some((m) => m.type === type && m.client === b.clientId));
  await came('join');
  sub.unsubscribe();
  await came('leave');
});

test('starts at a position that it was given', async () => {
  const { epoch } = await server.publish('node:from', 1);
  await server.publish('node:from', 2);
  const seen = await listen(client(server.ws), 'node:from', { recover: { epoch, offset: 1 } });
  await has(seen, [2]);
  await has(await listen(client(server.ws), 'node:from', { recover: { epoch: 'another', offset: 1 } }), ['gap']);
});

test('cut off while publications flow, it misses none and takes none twice', async () => {
  const hub = client(proxy.ws, { minDelay: 20 });
  const seen = await listen(hub, 'node:cut');
  for (let i = 1; i <= 60; i++) {
    await server.publish('node:cut', i);
    if (i % 20 === 0) {
      proxy.cut();
      proxy.mend();
    }
  }
  await has(seen, Array.from({ length: 60 }, (_, i) => i + 1));
  assert.ok(hub.states.some(({ code }) => code === 1006));
});

test('an error answer rejects the command and leaves the connection', async () => {
  const hub = client(server.ws);
  await connected(hub);
  await assert.rejects(hub.publish('not a channel!', 1), (e) => typeof e.code === 'string' && e.message.length > 0);
  await hub.publish('node:after', 1);
  assert.equal(hub.state, 'connected');
});

test('disconnected by the API, it stays away', async () => {
  const hub = client(server.ws);
  await connected(hub);
  await server.post('/hub/disconnect', { client: hub.clientId });
  await closed(hub);
  assert.equal(hub.states.at(-1).code, 4002);
});

test('a token opens, its channels are live, and a lasting one outlives its first end', async () => {
  let given = 0;
  const getToken = () => token({ sub: 'ann', exp: inSeconds(++given === 1 ? 3 : 60), channels: ['node:ann'] });
  const hub = client(guarded.ws, { getToken });
  const seen = [];
  hub.on('publication', ({ data }) => seen.push(data));
  await connected(hub);
  const { clientId } = hub;
  await guarded.publish('node:ann', 'one');
  await has(seen, ['one']);
  await eventually('refreshed', () => given === 2);
  // Past the first token's end, told by the clock that set it.
  const end = inSeconds(2);
  await eventually('the first token has ended', () => inSeconds(0) > end);
  await guarded.publish('node:ann', 'two');
  await has(seen, ['one', 'two']);
  assert.equal(hub.clientId, clientId);
});

test('a token that expires is closed with 4001, which is final without another one', async () => {
  const hub = client(guarded.ws, { token: token({ sub: 'bob', exp: inSeconds(2) }) });
  await connected(hub);
  await closed(hub);
  assert.equal(hub.states.at(-1).code, 4001);
});

test('a refused token is replaced by the next one', async () => {
  const tokens = [token({ sub: 'eve' }, 'another secret'), token({ sub: 'eve' })];
  const hub = client(guarded.ws, { getToken: () => tokens.length > 1 ? tokens.shift() : tokens[0] });
  await connected(hub);
  assert.ok(hub.states.some(({ code }) => code === 1006));
});

test('drained, it comes to the next hub, and is told what that one cannot recover', async () => {
  const [first, second] = [await startHub(), await startHub()];
  const front = await startProxy(first.port);
  try {
    const hub = client(front.ws);
    const seen = await listen(hub, 'node:drain');
    await first.publish('node:drain', 'from the first');
    await has(seen, ['from the first']);
    front.target = second.port;
    await first.stop();
    // Each hub keeps its own history here, so the position is of another epoch.
    await eventually('the second answers', () => seen.length === 2);
    await second.publish('node:drain', 'from the second');
    await has(seen, ['from the first', 'gap', 'from the second']);
    assert.equal(hub.states.find(({ code }) => code !== undefined).code, 1012);
  } finally {
    front.stop();
    await first.stop();
    await second.stop();
  }
});
