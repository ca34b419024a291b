//! `fanfare check`: the resolved configuration, or every fault.

use std::io::Write;

use super::CliError;
use crate::config::{ConfigError, Settings, written};
use crate::model::Namespace;
use crate::session::check_data_file;

/// Prints the configuration; the faults are the error, and a data file that `serve` could not work with.
pub(super) fn run(
    settings: &Result<Settings, ConfigError>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let settings = settings.as_ref().map_err(Clone::clone)?;
    let name_width = settings.resolved.iter().map(|row| row.name.len()).max();
    let value_width = settings.resolved.iter().map(|row| row.value.len()).max();
    let (name_width, value_width) = (name_width.unwrap_or(0), value_width.unwrap_or(0));
    for row in &settings.resolved {
        let value = if row.value.is_empty() {
            "-"
        } else {
            &row.value
        };
        writeln!(
            out,
            "{:name_width$}  {value:value_width$}  from {}; default: {}",
            row.name, row.source, row.default
        )?;
    }
    writeln!(out)?;
    for (name, namespace) in settings.namespaces.iter() {
        let name = if name.is_empty() { "default" } else { name };
        writeln!(out, "namespace {name}: {}", described(namespace))?;
    }
    for service in &settings.proxy.services {
        writeln!(out, "service {}:", service.name)?;
        for line in written(service).lines() {
            writeln!(out, "    {line}")?;
        }
    }
    for warning in &settings.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    if settings.session.redis.is_none() {
        check_data_file(&settings.session.data_file)?;
    }
    Ok(())
}

fn described(namespace: &Namespace) -> String {
    let on = |on: bool| if on { "on" } else { "off" };
    format!(
        "history {} for {:?}, recovery {}, presence {}, join_leave {}, overflow {}, subscribe {}, publish {}, \
         read_presence {}, read_history {}, idle_ttl {:?}, publication_bytes_max {}",
        namespace.history.size,
        namespace.history.ttl,
        on(namespace.recovery),
        on(namespace.presence),
        on(namespace.join_leave),
        namespace.overflow,
        namespace.subscribe,
        namespace.publish,
        namespace.read_presence,
        namespace.read_history,
        namespace.idle_ttl,
        namespace.publication_bytes_max,
    )
}
