//! Sentinels: who is the master, and what is wrong when they do not say.

use super::pipeline::Pipeline;
use super::target::{Credentials, Host, OpenError, Opened, Place, Target};
use super::value::Value;
use super::{CallError, examine};

/// Where the master is of whom a name is given: what the first Sentinel says that knows. Where none does, the first that says
/// what is wrong with the URL is the one to be heard.
///
/// # Errors
/// Why nobody says it.
pub(super) async fn master(
    target: &Target,
    hosts: &[Host],
    name: &str,
    credentials: &Credentials,
) -> Result<Host, OpenError> {
    let mut fault = OpenError::Away("no Sentinel answers".to_owned());
    for host in hosts {
        let sentinel = Target {
            credentials: credentials.clone(),
            database: 0,
            ..target.at(Place::of(host.clone()))
        };
        match ask(&sentinel, host, name).await {
            Ok(master) => return Ok(master),
            Err(error) => {
                tracing::warn!(sentinel = %host, %error, "a Sentinel does not say where the master is");
                if examine::refusal(&fault).is_none() {
                    fault = error;
                }
            }
        }
    }
    Err(fault)
}

async fn ask(sentinel: &Target, host: &Host, name: &str) -> Result<Host, OpenError> {
    let Opened {
        client,
        mut connection,
        ..
    } = Box::pin(sentinel.open())
        .await
        .map_err(|error| match error {
            OpenError::Refused(why) if examine::is_for_good(&why) => OpenError::Unusable(format!(
                "the Sentinel at {host} (sentinelUsername, sentinelPassword) says {why}"
            )),
            other => other,
        })?;
    let question = Pipeline::of_words(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]);
    match connection.with(client.ask_one(question)).await? {
        Ok(Value::Null) => Err(OpenError::Unusable(format!(
            "the Sentinel at {host} knows no master of the name {name} (sentinelServiceName)"
        ))),
        Ok(told) => address(told)
            .ok_or_else(|| OpenError::Away(format!("the Sentinel at {host} says something else"))),
        Err(CallError::Refused(why)) if why.contains("unknown command") => Err(
            OpenError::Unusable(format!("the server at {host} is no Sentinel: say redis://")),
        ),
        Err(CallError::Refused(why)) if examine::is_for_good(&why) => Err(OpenError::Unusable(
            format!("the Sentinel at {host} says {why}"),
        )),
        Err(error) => Err(error.into()),
    }
}

fn address(told: Value) -> Option<Host> {
    let [name, port] = <[Value; 2]>::try_from(told.into_array()).ok()?;
    Some(Host {
        name: name.as_string()?,
        port: port.as_u64()?.try_into().ok()?,
    })
}
