//! A Cluster: a master dies, a slot moves.

use crate::harness::{Fleet, Loss, Setup};

async fn cluster(name: &'static str) -> Fleet {
    let setup = Setup {
        has_cluster: true,
        ..Setup::default()
    };
    Fleet::with(name, setup).await
}

/// A key of this channel.
fn key_of(channel: &str) -> String {
    format!("fanfare:{{|{channel}}}:position")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_is_replaced() {
    let mut fleet = cluster("12: a master of a Cluster is killed, and its replica promoted").await;
    let key = key_of(&fleet.publishers[0].channel);
    let cluster = fleet.cluster.as_mut().expect("a Cluster");
    let master = cluster.owner_of(&key);
    cluster.kill(master);
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.refused) > 10
        })
        .await;
    fleet
        .until("the replica is promoted", |fleet| {
            let cluster = fleet.cluster.as_ref().expect("a Cluster");
            let mut members = cluster.members();
            members.any(|server| !server.ask(&["GET", &key]).contains("MOVED"))
        })
        .await;
    fleet.back_to_normal().await;
    // What was a master is the replica of the one that took its place.
    fleet
        .cluster
        .as_mut()
        .expect("a Cluster")
        .start_again(master);
    fleet.advance(5).await;
    fleet.compare(Loss::Any).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_loses_nothing() {
    let mut fleet = cluster("12: slots of a Cluster are moved while publishing").await;
    let cluster = fleet.cluster.as_ref().expect("a Cluster");
    for publisher in &fleet.publishers {
        let key = key_of(&publisher.channel);
        let to = tokio::task::block_in_place(|| cluster.move_slot_of(&key));
        assert_eq!(cluster.owner_of(&key), to);
    }
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}
