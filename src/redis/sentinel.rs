//! Why Sentinels lead to no master: the client library says only that none did.

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::config::{Config as Target, Server, ServerConfig};
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::time::timeout;

use super::examine::refusal;
use super::{COMMAND_TIMEOUT, session};

/// What is wrong with the URL, when Sentinels were reached and say so. As the library does, the first that lets this node in
/// is asked.
pub(super) async fn fault(target: &Target) -> Option<String> {
    let ServerConfig::Sentinel {
        hosts,
        service_name,
        username,
        password,
    } = &target.server
    else {
        return None;
    };
    let mut refused = None;
    for host in hosts {
        let sentinel = Target {
            server: ServerConfig::Centralized {
                server: host.clone(),
            },
            username: username.clone(),
            password: password.clone(),
            database: None,
            ..target.clone()
        };
        match session::open(&sentinel, 32).await {
            Ok((client, _ended)) => {
                let why = ask(&client, host, service_name).await;
                let _ = timeout(COMMAND_TIMEOUT, client.quit()).await;
                return why;
            }
            Err(Some(error)) if refused.is_none() => {
                let why = refusal(&error);
                refused = why.map(|why| {
                    format!(
                        "the Sentinel at {host} (sentinelUsername, sentinelPassword) says {why}"
                    )
                });
            }
            Err(_) => {}
        }
    }
    refused
}

async fn ask(client: &Client, host: &Server, name: &str) -> Option<String> {
    let command = CustomCommand::new_static("SENTINEL", ClusterHash::Random, false);
    let words = vec!["GET-MASTER-ADDR-BY-NAME", name];
    match client.custom::<Value, _>(command, words).await {
        Ok(Value::Null) => Some(format!(
            "the Sentinel at {host} knows no master of the name {name} (sentinelServiceName)"
        )),
        Ok(_) => None,
        Err(error) if error.details().contains("unknown command") => {
            Some(format!("the server at {host} is no Sentinel: say redis://"))
        }
        Err(error) => refusal(&error).map(|why| format!("the Sentinel at {host} says {why}")),
    }
}
