//! The hub's fan-out: what one more subscriber costs, from the publication to its place in the queue, and out of it.
//! Encoding is not measured (see `codecs`), nor are writes.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use fanfare::hub::{ConnectionIndex, Contents, Frame, Hub, Ledger, Limits};
use fanfare::model::{ChannelKey, OverflowPolicy, Payload, Publication, WireFormat};
use fanfare::protocol::encoder::Encoder;

const LIMITS: Limits = Limits {
    pending_bytes_max: 2_000_000,
    pending_messages_max: 20_000,
    total_pending_bytes_max: 1 << 30,
};

fn publication() -> Arc<Publication> {
    Arc::new(Publication {
        offset: 0,
        data: Payload::from_plain_json("1".repeat(128)),
        origin: None,
        key: None,
    })
}

/// A hub with so many subscribers of one channel.
fn crowd(subscribers: u32, policy: OverflowPolicy) -> (Hub, u32) {
    let (mut hub, key) = (Hub::new(LIMITS), ChannelKey::new("news").expect("a name"));
    for _ in 0..subscribers {
        let connection = hub.connect(WireFormat::Json);
        hub.subscribe(connection, &key, policy, false);
        let channel = hub.find_channel(&key).expect("subscribed");
        hub.start(channel, None);
        hub.go_live(connection, channel);
    }
    let channel = hub.find_channel(&key).expect("subscribed");
    (hub, channel)
}

/// Takes everything out, as sockets do that take what they are given.
fn write_all(hub: &mut Hub, slice: &mut Vec<ConnectionIndex>) {
    while hub.has_pending() {
        hub.next_slice(slice);
        for connection in slice.drain(..) {
            if let Some(queue) = hub.queue(connection) {
                let pending = queue.pending_bytes();
                queue.advance(black_box(pending));
            }
        }
    }
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    let mut encoder = Encoder::default();
    for subscribers in [1_000, 10_000] {
        let (mut hub, channel) = crowd(subscribers, OverflowPolicy::Disconnect);
        let mut slice = Vec::new();
        for batch in [1, 64] {
            let publications = vec![publication(); batch];
            // A delivery is one frame in one queue: a batch is joined into one.
            group.throughput(Throughput::Elements(u64::from(subscribers)));
            group.bench_function(format!("deliver {batch} to {subscribers}"), |b| {
                b.iter_custom(|rounds| {
                    let mut spent = std::time::Duration::ZERO;
                    for _ in 0..rounds {
                        let began = std::time::Instant::now();
                        black_box(hub.deliver(channel, &publications, false, &mut encoder));
                        spent += began.elapsed();
                        write_all(&mut hub, &mut slice);
                    }
                    spent
                });
            });
            group.bench_function(format!("deliver {batch} to {subscribers} and write"), |b| {
                b.iter(|| {
                    hub.deliver(channel, &publications, false, &mut encoder);
                    write_all(&mut hub, &mut slice);
                });
            });
        }
    }
    group.finish();
}

/// Readers that take nothing: every publication makes room for itself.
fn stalled(c: &mut Criterion) {
    let mut group = c.benchmark_group("1000 stalled readers");
    group.throughput(Throughput::Elements(1_000));
    let mut encoder = Encoder::default();
    for policy in [OverflowPolicy::DropOldest, OverflowPolicy::Latest] {
        let (mut hub, channel) = crowd(1_000, policy);
        let publications = [publication()];
        for _ in 0..LIMITS.pending_messages_max {
            hub.deliver(channel, &publications, false, &mut encoder);
        }
        group.bench_function(format!("{policy:?}"), |b| {
            b.iter(|| hub.deliver(channel, &publications, false, &mut encoder));
        });
        assert!(hub.take_overflowed().is_empty());
    }
    group.finish();
}

fn subscriptions(c: &mut Criterion) {
    let mut group = c.benchmark_group("subscriptions");
    let (mut hub, channel) = crowd(10_000, OverflowPolicy::Disconnect);
    let key = ChannelKey::new("news").expect("a name");
    let mut at = 0;
    group.bench_function("unsubscribe and subscribe among 10000", |b| {
        b.iter(|| {
            at = (at + 7919) % 10_000;
            hub.unsubscribe(at, &key);
            hub.subscribe(at, &key, OverflowPolicy::Disconnect, false);
            hub.go_live(at, channel);
        });
    });
    let mut numbers = (0u32..).map(|number| ChannelKey::new(&number.to_string()).expect("a name"));
    group.bench_function("subscribe a channel of its own", |b| {
        b.iter_batched(
            || numbers.next().expect("more"),
            |key| {
                hub.subscribe(5, &key, OverflowPolicy::Disconnect, false);
                hub.unsubscribe(5, &key)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn send_queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("send queue");
    let mut hub = Hub::new(LIMITS);
    let connection = hub.connect(WireFormat::Json);
    let frame = Frame::new(&[b'x'; 128], Contents::default(), &Ledger::default());
    let mut slice = Vec::new();
    for count in [1, 2, 16] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("enqueue and advance {count}"), |b| {
            b.iter(|| {
                for _ in 0..count {
                    hub.send_frame(connection, frame.clone());
                }
                write_all(&mut hub, &mut slice);
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    fan_out(&mut criterion);
    stalled(&mut criterion);
    subscriptions(&mut criterion);
    send_queue(&mut criterion);
    criterion.final_summary();
}
