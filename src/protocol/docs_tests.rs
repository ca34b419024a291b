//! The tables of `docs/PROTOCOL.md` against the code, both ways.

use crate::model::{CloseReason, ErrorCode, Reconnect};

const DOCS: &str = include_str!("../../docs/PROTOCOL.md");

/// The rows of the table under a heading, without its head.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DOCS
        .split_once(&format!("\n## {heading}\n"))
        .expect(heading);
    let rows = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn the_table_of_close_codes_is_the_list() {
    let listed: Vec<_> = CloseReason::ALL
        .iter()
        .map(|reason| {
            let reconnect = match reason.reconnect() {
                Reconnect::No => "no",
                Reconnect::Yes => "yes",
                Reconnect::BackingOff => "backing off",
                Reconnect::WithNewToken => "with a new token",
            };
            [
                reason.code().to_string(),
                reason.text().to_owned(),
                format!("`{}`", reason.label()),
                reconnect.to_owned(),
            ]
        })
        .collect();
    let told: Vec<_> = table("Close codes")
        .iter()
        .map(|row| [row[0], row[1], row[2], row[4]].map(str::to_owned))
        .collect();
    assert_eq!(told, listed);
}

#[test]
fn the_table_of_error_codes_is_the_list() {
    let listed: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|code| [format!("`{}`", code.as_str()), code.status().to_string()])
        .collect();
    let told: Vec<_> = table("Error codes")
        .iter()
        .map(|row| [row[0], row[1]].map(str::to_owned))
        .collect();
    assert_eq!(told, listed);
}
