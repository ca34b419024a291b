//! Nodes, and orders to them.

use fanfare::broker::{Control, NodeInfo, Target};
use fanfare::model::{ClientId, Fingerprints, NodeId, SessionId, SettingsGroup, UserId};

use super::{Case, Harness, channel};

pub(crate) async fn says_what_it_stands_on_and_is_ready<H: Harness>(harness: &H) {
    let case = Case::start(harness).await;
    assert_eq!(case.broker.kind(), H::KIND);
    assert!(case.broker.is_ready());
}

pub(crate) async fn an_order_reaches_this_node(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let orders = [
        Control::Disconnect(Target::Client(ClientId::from_bits(1))),
        Control::LogOut(UserId::from("ann")),
        Control::EndSessions(
            UserId::from("ann"),
            [SessionId::from_bits(1), SessionId::from_bits(u128::MAX)].into(),
        ),
        Control::Subscribe(Target::User(UserId::from("ann")), channel("default")),
    ];
    for order in &orders {
        case.broker.control(order.clone()).await.expect("sent");
    }
    let all_came = |sink: &crate::recording::Recording| sink.controls() == orders;
    case.sink.eventually("the orders", all_came).await;
}

pub(crate) async fn an_announced_node_is_among_the_nodes_once(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let id = NodeId::new(&ClientId::random().to_string());
    let mut settings = Fingerprints::default();
    settings.set(SettingsGroup::Channels, 0);
    settings.set(SettingsGroup::Tokens, u16::MAX);
    for connections in [1, 2] {
        let node = NodeInfo {
            id: id.clone(),
            connections,
            channels: 3,
            version: "1.2.3".to_owned(),
            uptime_seconds: 4,
            settings,
        };
        case.broker
            .announce(node.clone(), Vec::new())
            .await
            .expect("announced");
        let nodes = case.broker.nodes().await.expect("an answer");
        let own: Vec<_> = nodes.into_iter().filter(|it| it.id == id).collect();
        assert_eq!(own, [node]);
    }
}
