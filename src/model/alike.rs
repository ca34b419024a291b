//! Settings that must be alike on all nodes of a fleet, compared without being told.

use std::fmt;

/// Settings that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsGroup {
    /// What channels are like: namespaces, and so histories.
    Channels,
    /// What back ends hear of and are asked.
    Events,
    /// The keys of back ends and operators, and the secret that signs webhooks.
    Keys,
    /// How sessions are kept, and passwords.
    Sessions,
    /// By what tokens are verified and signed.
    Tokens,
}

impl SettingsGroup {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Channels,
        Self::Events,
        Self::Keys,
        Self::Sessions,
        Self::Tokens,
    ];

    /// Its name between nodes, in logs and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Channels => "channels",
            Self::Events => "events",
            Self::Keys => "keys",
            Self::Sessions => "sessions",
            Self::Tokens => "tokens",
        }
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }
}

impl fmt::Display for SettingsGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Of each group, where it is known, 16 bits of a keyed hash of its settings. Two nodes whose settings differ have the same
/// ones once in 65,536 times; and whoever reads them learns too little to try secrets against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprints([Option<u16>; SettingsGroup::ALL.len()]);

impl Fingerprints {
    /// Adds the one of a group.
    pub const fn set(&mut self, group: SettingsGroup, fingerprint: u16) {
        self.0[group as usize] = Some(fingerprint);
    }

    /// Those that are known.
    pub fn known(&self) -> impl Iterator<Item = (SettingsGroup, u16)> {
        let all = SettingsGroup::ALL.into_iter().zip(self.0);
        all.filter_map(|(group, fingerprint)| Some((group, fingerprint?)))
    }

    /// The groups that both know and that are not alike.
    pub fn differing(&self, other: &Self) -> Vec<SettingsGroup> {
        let known = self.known();
        let differing = known.filter(|(group, own)| {
            other.0[*group as usize].is_some_and(|fingerprint| fingerprint != *own)
        });
        differing.map(|(group, _)| group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_know_can_differ() {
        let (mut one, mut other) = (Fingerprints::default(), Fingerprints::default());
        one.set(SettingsGroup::Channels, 1);
        one.set(SettingsGroup::Keys, 2);
        one.set(SettingsGroup::Tokens, 3);
        other.set(SettingsGroup::Channels, 1);
        other.set(SettingsGroup::Keys, 7);
        other.set(SettingsGroup::Events, 3);
        assert_eq!(one.differing(&other), [SettingsGroup::Keys]);
        assert_eq!(other.differing(&one), [SettingsGroup::Keys]);
        assert_eq!(one.differing(&one), []);
    }

    #[test]
    fn names_lead_back() {
        for group in SettingsGroup::ALL {
            assert_eq!(SettingsGroup::of(group.name()), Some(group));
        }
        assert_eq!(SettingsGroup::of("later"), None);
    }
}
