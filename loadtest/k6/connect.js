// A ramp of connections: each joins a channel, stays a moment, leaves. How long joining takes while others join.
import { Trend } from 'k6/metrics';
import { number } from './hub.js';
import { subscribe } from './subscriber.js';

// New connections a second at the top of the ramp.
const RATE = number('RATE', 200);
const STAY = number('STAY', 2);

const joining = new Trend('joining', true);

export const options = {
  scenarios: {
    ramp: {
      executor: 'ramping-arrival-rate',
      startRate: Math.max(1, Math.floor(RATE / 10)),
      timeUnit: '1s',
      stages: [
        { duration: '15s', target: RATE },
        { duration: '15s', target: RATE },
      ],
      preAllocatedVUs: Math.ceil(RATE * (STAY + 0.5)),
      maxVUs: RATE * (STAY + 2),
      gracefulStop: `${STAY + 5}s`,
    },
  },
  thresholds: {
    joined: ['rate>0.999'],
    joining: ['p(95)<250'],
    dropped_iterations: ['count==0'],
  },
};

export default function () {
  subscribe(`k6-connect-${__VU % 50}`, STAY, (milliseconds) => joining.add(milliseconds));
}
