// Many subscribers of one channel over WebSocket, and one publisher by HTTP: how long a publication takes to arrive.
// k6 spends some ten times the hub's own CPU on each delivery, so with more than a few thousand deliveries a second
// on one machine its own queue is measured; loadtest/swarm is for those.
import { number, publish } from './hub.js';
import { subscribe } from './subscriber.js';

const SUBSCRIBERS = number('SUBSCRIBERS', 1000);
const SECONDS = number('SECONDS', 30);
const RATE = number('RATE', 2);
const BYTES = number('BYTES', 128);
// Joining is spread over these seconds; publishing begins after them.
const JOINING = number('JOINING', 10);
const CHANNEL = __ENV.CHANNEL || 'k6-subscribe';

export const options = {
  scenarios: {
    subscribers: {
      executor: 'per-vu-iterations',
      exec: 'subscriber',
      vus: SUBSCRIBERS,
      iterations: 1,
      maxDuration: `${JOINING + SECONDS + 20}s`,
    },
    publisher: {
      executor: 'constant-arrival-rate',
      exec: 'publisher',
      rate: RATE,
      timeUnit: '1s',
      duration: `${SECONDS}s`,
      startTime: `${JOINING}s`,
      preAllocatedVUs: 4,
      maxVUs: 20,
    },
  },
  thresholds: {
    joined: ['rate==1'],
    published: ['rate==1'],
    gaps: ['count==0'],
    delivery_latency: ['p(99)<250'],
    // Publications begun by the arrival rate, less one for the edge, times the subscribers.
    deliveries: [`count>=${Math.floor((RATE * SECONDS - 1) * SUBSCRIBERS * 0.999)}`],
  },
};

/** Joins after its share of the joining time, so that a thousand handshakes do not fall into one moment. */
export function subscriber() {
  const share = JOINING * 0.8;
  const wait = (share * (__VU % SUBSCRIBERS)) / SUBSCRIBERS;
  setTimeout(() => subscribe(CHANNEL, JOINING - wait + SECONDS + 3), wait * 1000);
}

export function publisher() {
  publish(CHANNEL, BYTES);
}
