// An ordinary day at once: subscribers that stay, others that come and go, clients that publish over their WebSocket,
// a back end that publishes by HTTP, and somebody who asks for health.
import http from 'k6/http';
import { check } from 'k6';
import { BASE_URL, number, publish } from './hub.js';
import { subscribe } from './subscriber.js';

const SECONDS = number('SECONDS', 30);
const SUBSCRIBERS = number('SUBSCRIBERS', 300);
const CHANNELS = number('CHANNELS', 20);
const RATE = number('RATE', 20);

const channel = (index) => `k6-mixed-${index % CHANNELS}`;
const steady = { duration: `${SECONDS}s`, timeUnit: '1s' };

export const options = {
  scenarios: {
    staying: {
      executor: 'per-vu-iterations',
      exec: 'staying',
      vus: SUBSCRIBERS,
      iterations: 1,
      maxDuration: `${SECONDS + 20}s`,
    },
    passing: {
      executor: 'constant-arrival-rate',
      exec: 'passing',
      rate: 20,
      preAllocatedVUs: 80,
      maxVUs: 150,
      ...steady,
    },
    talking: { executor: 'constant-vus', exec: 'talking', vus: 5, duration: `${SECONDS}s` },
    backend: {
      executor: 'constant-arrival-rate',
      exec: 'backend',
      rate: RATE,
      preAllocatedVUs: 10,
      maxVUs: 50,
      ...steady,
    },
    health: { executor: 'constant-arrival-rate', exec: 'health', rate: 2, preAllocatedVUs: 2, ...steady },
  },
  thresholds: {
    joined: ['rate>0.999'],
    published: ['rate==1'],
    gaps: ['count==0'],
    checks: ['rate==1'],
    delivery_latency: ['p(99)<250'],
    'http_req_duration{name:/healthz}': ['p(99)<100'],
  },
};

export function staying() {
  subscribe(channel(__VU), SECONDS + 2);
}

export function passing() {
  subscribe(channel(__ITER), 2);
}

/** Subscribes, and says something stamped twice a second. Works where clients may publish, as in development. */
export function talking() {
  const mine = channel(__VU);
  let talk;
  const socket = subscribe(mine, 8, () => {
    talk = setInterval(() => {
      socket.send(JSON.stringify({ type: 'publish', channel: mine, data: { t: Date.now(), p: 'hello' } }));
    }, 500);
  });
  socket.addEventListener('close', () => clearInterval(talk));
}

export function backend() {
  publish(channel(__ITER), 128);
}

export function health() {
  const answer = http.get(`${BASE_URL}/healthz`, { tags: { name: '/healthz' } });
  check(answer, { 'healthz is 200': (it) => it.status === 200 });
}
