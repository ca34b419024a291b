//! What is wrong with a configuration. All of it is told at once.

use std::fmt;

/// What is shown in place of a secret.
pub(super) const MASK: &str = "********";

/// One thing that is wrong: where, what stands there, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable, or the place in a file.
    pub name: String,
    /// What stands there; secrets masked. `None` when nothing does.
    pub value: Option<String>,
    /// The rule, as the rest of a sentence that begins with the name.
    pub rule: String,
}

impl Fault {
    pub(super) fn new(name: &str, value: Option<&str>, rule: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            rule: rule.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(value) = &self.value {
            write!(f, "={value:?}")?;
        }
        write!(f, " {}", self.rule)
    }
}

/// The configuration cannot be used; every fault that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub faults: Vec<Fault>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment validation failed:")?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}
