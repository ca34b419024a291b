// Publishing by HTTP at a constant rate over many channels, without subscribers: the door for back ends alone.
import { number, publish } from './hub.js';

const RATE = number('RATE', 500);
const SECONDS = number('SECONDS', 30);
const CHANNELS = number('CHANNELS', 100);
const BYTES = number('BYTES', 128);

export const options = {
  scenarios: {
    publishers: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: `${SECONDS}s`,
      preAllocatedVUs: 50,
      maxVUs: 200,
    },
  },
  thresholds: {
    published: ['rate==1'],
    http_req_failed: ['rate==0'],
    http_req_duration: ['p(99)<50'],
    dropped_iterations: ['count==0'],
  },
};

let count = 0;

export default function () {
  count += 1;
  publish(`k6-publish-${(__VU * 31 + count) % CHANNELS}`, BYTES);
}
