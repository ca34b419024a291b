//! The table of variables as people read it: `--help`, `.env.example` and the table of `docs/OPERATIONS.md`.

use std::fmt::Write;

use super::variable::{DefaultValue, Group, VARIABLES, Variable};

fn rows(group: Group) -> impl Iterator<Item = &'static Variable> {
    VARIABLES.iter().filter(move |row| row.group == group)
}

fn with_unit(variable: &Variable) -> String {
    match (variable.default, variable.unit) {
        (_, "") | (DefaultValue::Unset, _) => variable.default_text().to_owned(),
        (DefaultValue::Computed(words), unit) => format!("{words} ({unit})"),
        (DefaultValue::Value(value), unit) => format!("{value} {unit}"),
    }
}

/// What stands below `fanfare --help`: every variable with its default and unit.
pub fn help() -> String {
    let mut text = String::from("Environment variables (docs/OPERATIONS.md):\n");
    for group in Group::ALL {
        let _ = write!(text, "\n{}:\n", group.title());
        for variable in rows(group) {
            let _ = write!(text, "  {} [{}]", variable.name, with_unit(variable));
            if !variable.aliases.is_empty() {
                let _ = write!(text, " (alias {})", variable.aliases.join(", "));
            }
            let _ = write!(text, "\n      {}\n", variable.doc);
        }
    }
    text
}

/// The text of `.env.example`: every variable with its default, commented out.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Copy this to .env and change what you need. It is read in development only; in production set the\n\
         # environment. `fanfare check` shows what holds and where it came from.\n",
    );
    for group in Group::ALL {
        let _ = write!(text, "\n## {}\n", group.title());
        for variable in rows(group) {
            let _ = write!(text, "\n# {}", variable.doc);
            if !variable.memory.is_empty() {
                let _ = write!(text, " Memory: {}.", variable.memory);
            }
            let _ = match variable.default {
                DefaultValue::Value(value) if variable.unit.is_empty() => {
                    write!(text, "\n# {}={value}\n", variable.name)
                }
                DefaultValue::Value(value) => {
                    write!(text, "\n# {}={value} # {}\n", variable.name, variable.unit)
                }
                DefaultValue::Computed(_) => write!(
                    text,
                    "\n# {}= # default: {}\n",
                    variable.name,
                    with_unit(variable)
                ),
                DefaultValue::Unset => write!(text, "\n# {}=\n", variable.name),
            };
        }
    }
    text
}

/// The table of `docs/OPERATIONS.md`.
pub fn markdown() -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let _ = write!(
            text,
            "### {}\n\n| variable | default | what it does | memory at worst |\n|---|---|---|---|\n",
            group.title()
        );
        for variable in rows(group) {
            let mut name = format!("`{}`", variable.name);
            for alias in variable.aliases {
                let _ = write!(name, ", alias `{alias}`");
            }
            let default = with_unit(variable);
            let _ = writeln!(
                text,
                "| {name} | {default} | {} | {} |",
                variable.doc, variable.memory
            );
        }
        text.push('\n');
    }
    text
}
