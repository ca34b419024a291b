//! `CONFIG_FILE` (TOML): what its tables are, and who reads them.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::fault::Fault;
use super::place::Place;
use super::services::Services;
use crate::model::{Namespace, Namespaces};

/// The tables of a file.
const TABLES: &str = "namespaces, services";

/// Reads a file's text: the namespaces, beginning with `base` for the default one, and the services, into `services`.
/// `file` is the name that faults show.
pub(super) fn parse(
    file: &str,
    text: &str,
    base: &Namespace,
    services: &mut Services,
) -> (Namespaces, Vec<Fault>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut place = Place {
        file,
        text,
        faults: Vec::new(),
    };
    for error in errors {
        let span = error.span().unwrap_or_default();
        // The key that stands there twice, for one.
        let written = text.get(span.clone());
        let written = written.filter(|text| (1..=64).contains(&text.len()));
        let written = written.map(ToOwned::to_owned);
        place.fault(span.start, "", written, error.message().to_owned());
    }
    let mut default = base.clone();
    let mut named = BTreeMap::new();
    for (key, value) in root.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("namespaces", DeValue::Table(tables)) => {
                (default, named) = place.namespaces(tables, base);
            }
            ("services", DeValue::Table(tables)) => place.services(tables, services),
            (name @ ("namespaces" | "services"), _) => {
                place.wrong(value, name, "must be a table");
            }
            (name, _) => place.unknown(key, name, TABLES),
        }
    }
    (Namespaces::new(default, named), place.faults)
}
