//! The configuration: environment, `.env` and a file become the rooms' own configurations, and nothing else happens
//! here.
//!
//! Strings (`reader`, `dotenv`) become values (`value`, by the one table in `variable`), values become rooms
//! (`rooms`, `namespaces`, `services`), and `rules` checks what must hold between them. Every fault is reported at once, with the
//! name, the value (secrets masked) and the rule that it breaks. The process's environment, the file system and the
//! machine are arguments ([`Inputs`]), so that a test needs none of them.

mod alike;
mod document;
mod dotenv;
mod fault;
mod file;
mod machine;
mod namespaces;
mod place;
mod policies;
mod reader;
mod rooms;
mod rules;
mod services;
mod tls;
mod upstreams;
mod value;
mod variable;
mod written;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::{Fingerprints, Namespace, Namespaces};
use crate::{
    admin, api, auth, broker, client, events, proxy, redis, server, session, telemetry, transport,
};

pub use document::{env_example, help, markdown};
pub use fault::{ConfigError, Fault};
pub use machine::Machine;
pub use reader::{Resolved, Source};
pub use value::duration;
pub use written::written;

use reader::Reader;
use services::Services;

/// What a node is for (`NODE_ENV`, `APP_ENV`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Somebody tries it out: open by default, the page at `/` is served, `.env` is read.
    Development,
    /// Tests run: open by default, and nobody needs to be warned of it.
    Test,
    /// Real clients: credentials required by default, weak secrets refused.
    Production,
}

/// Where the configuration comes from.
pub struct Inputs<'a> {
    /// The environment's variables.
    pub environment: BTreeMap<String, String>,
    /// What the machine gives.
    pub machine: Machine,
    /// Reads `.env` and `CONFIG_FILE`.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// The whole configuration, checked: each room's own, and what `fanfare check` shows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the node is for.
    pub stage: Stage,
    /// The server room's; it knows host and port.
    pub server: server::Config,
    /// The transport room's; it knows the node's id.
    pub transport: transport::Config,
    /// The client room's.
    pub client: client::Config,
    /// The auth room's.
    pub auth: auth::Config,
    /// The events room's.
    pub events: events::Config,
    /// The session room's.
    pub session: session::Config,
    /// The telemetry room's.
    pub telemetry: telemetry::Config,
    /// The api room's.
    pub api: api::Config,
    /// The admin room's.
    pub admin: admin::Config,
    /// The broker room's.
    pub broker: broker::Config,
    /// The redis room's; `None` for a node that is alone.
    pub redis: Option<redis::Config>,
    /// The proxy room's.
    pub proxy: proxy::Config,
    /// The file that is read again while the node runs (`CONFIG_FILE`).
    pub file: Option<PathBuf>,
    /// What the channels are like.
    pub namespaces: Namespaces,
    /// Of the settings that must be alike on all nodes of a fleet.
    pub fingerprints: Fingerprints,
    /// How long tokens last that are minted here (`ACCESS_TOKEN_EXPIRE_MINUTES`).
    pub token_ttl: Duration,
    /// What the operator should know; `serve` logs it.
    pub warnings: Vec<String>,
    /// Every variable with its value (secrets masked) and source.
    pub resolved: Vec<Resolved>,
}

impl Settings {
    /// The configuration of this process.
    ///
    /// # Errors
    /// With every fault there is.
    pub fn from_process() -> Result<Self, ConfigError> {
        // What is not UTF-8 keeps a replacement character, which the reader refuses for variables of ours.
        let environment = std::env::vars_os()
            .map(|(name, value)| {
                let name = name.to_string_lossy().into_owned();
                (name, value.to_string_lossy().into_owned())
            })
            .collect();
        Self::load(&Inputs {
            environment,
            machine: Machine::probe(),
            read_file: &|path| std::fs::read_to_string(path),
        })
    }

    /// The configuration from what is given.
    ///
    /// # Errors
    /// With every fault there is.
    pub fn load(inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        let (dotenv, unreadable) = dotenv_text(inputs);
        let mut reader = Reader::new(&inputs.environment, &dotenv);
        reader.faults.extend(unreadable);
        let stage = match reader.text("NODE_ENV") {
            Some("production") => Stage::Production,
            Some("test") => Stage::Test,
            _ => Stage::Development,
        };
        rooms::compute_defaults(&mut reader, &inputs.machine, stage);
        let mut services = Services::new(&mut reader);
        let namespaces = read_file(&mut reader, inputs, &mut services)
            .with_shared_history(rooms::shared_history(&reader));
        rooms::default_connections(&mut reader, &inputs.machine, !services.is_empty());
        rules::check(&mut reader, stage, &namespaces);
        let acceptor = tls::acceptor(&mut reader);
        let services = services.into_vec();
        let connector = tls::connector(&mut reader, &services);
        if !reader.faults.is_empty() {
            let faults = reader.faults;
            return Err(ConfigError { faults });
        }
        Ok(Self {
            stage,
            server: server::Config {
                tls: acceptor,
                ..rooms::server(&reader)
            },
            transport: rooms::transport(&reader),
            client: rooms::client(&reader),
            auth: rooms::auth(&reader),
            events: rooms::events(&reader),
            session: rooms::session(&reader),
            telemetry: rooms::telemetry(&reader),
            api: rooms::api(&reader),
            admin: rooms::admin(&reader, stage),
            broker: rooms::broker(&reader),
            redis: rooms::redis(&reader),
            proxy: proxy::Config {
                connector,
                ..rooms::proxy(&reader, services)
            },
            file: reader.text("CONFIG_FILE").map(PathBuf::from),
            fingerprints: alike::fingerprints(&reader, &namespaces),
            namespaces,
            token_ttl: Duration::from_secs(reader.integer("ACCESS_TOKEN_EXPIRE_MINUTES") * 60),
            resolved: reader.resolved(),
            warnings: reader.warnings,
        })
    }
}

/// The text of `.env`, in development only: whoever runs production or tests says so in the environment, and then a
/// file that happens to lie there has no say.
fn dotenv_text(inputs: &Inputs<'_>) -> (String, Option<Fault>) {
    let stage = ["NODE_ENV", "APP_ENV"].iter().find_map(|name| {
        inputs
            .environment
            .get(*name)
            .filter(|text| !text.is_empty())
    });
    if stage.is_some_and(|stage| value::stage(stage.trim()).as_deref() != Some("development")) {
        return (String::new(), None);
    }
    match (inputs.read_file)(Path::new(".env")) {
        Ok(text) => (text, None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), None),
        Err(error) => {
            let rule = format!("cannot be read: {error}");
            (String::new(), Some(Fault::new(".env", None, rule)))
        }
    }
}

fn read_file(reader: &mut Reader, inputs: &Inputs<'_>, services: &mut Services) -> Namespaces {
    let mut base = Namespace::default_for(!reader.boolean("AUTH_REQUIRED"));
    // A small buffer brings small publications along, unless the file says otherwise and is told why not.
    let room = reader
        .size("WS_MAX_BUFFERED_BYTES")
        .min(reader.size("INBOX_MAX_BYTES"));
    base.publication_bytes_max = base
        .publication_bytes_max
        .min(room.saturating_sub(rules::FRAME_BYTES));
    let Some(file) = reader.text("CONFIG_FILE").map(str::to_owned) else {
        return Namespaces::new(base, BTreeMap::new());
    };
    match (inputs.read_file)(Path::new(&file)) {
        Ok(text) => {
            let (namespaces, faults) = file::parse(&file, &text, &base, services);
            reader.faults.extend(faults);
            namespaces
        }
        Err(error) => {
            reader.fault("CONFIG_FILE", format!("cannot be read: {error}"));
            Namespaces::new(base, BTreeMap::new())
        }
    }
}

#[cfg(test)]
mod tests;
