//! The namespaces of `CONFIG_FILE`. `[namespaces.default]` is the default namespace; the others take from it what they do
//! not say.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::place::{Key, Place, Value};
use crate::model::{ChannelKey, Namespace, OverflowPolicy, Permission, Role, RoleError};

/// The most publications of one channel that can be kept; the bytes over all have their own bound.
const HISTORY_SIZE_MAX: u64 = 1_000_000;

impl Place<'_> {
    /// The default namespace, beginning with `base`, and the named ones.
    pub(super) fn namespaces(
        &mut self,
        tables: &DeTable<'_>,
        base: &Namespace,
    ) -> (Namespace, BTreeMap<String, Namespace>) {
        let mut default = base.clone();
        // The default comes first, wherever it stands: the others take from it.
        if let Some(value) = tables.get("default") {
            default = self.namespace("default", value, default);
        }
        let mut named = BTreeMap::new();
        for (key, value) in tables.iter().filter(|(key, _)| key.get_ref() != "default") {
            let name = key.get_ref().as_ref();
            if name.contains(':') || ChannelKey::new(name).is_err() {
                let rule = "must be named as the part of a channel before its first `:`";
                self.fault(key.span().start, name, None, rule.to_owned());
            }
            named.insert(
                name.to_owned(),
                self.namespace(name, value, default.clone()),
            );
        }
        (default, named)
    }

    fn namespace(&mut self, name: &str, value: &Value<'_>, mut namespace: Namespace) -> Namespace {
        let path = format!("namespaces.{name}");
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(value, &path, "must be a table");
            return namespace;
        };
        for (key, value) in table {
            let path = format!("{path}.{}", key.get_ref());
            self.setting(&path, key, value, &mut namespace);
        }
        let has = |key: &str| table.contains_key(key);
        if namespace.join_leave && !namespace.presence {
            if has("join_leave") {
                self.wrong(value, &path, "must have presence when it has join_leave");
            }
            namespace.join_leave = false;
        }
        if namespace.recovery && !namespace.history.is_on() {
            if has("recovery") {
                self.wrong(value, &path, "must have history when it has recovery");
            }
            namespace.recovery = false;
        }
        namespace
    }

    fn setting(&mut self, path: &str, key: &Key<'_>, value: &Value<'_>, to: &mut Namespace) {
        match key.get_ref().as_ref() {
            "history" => self.history(path, value, to),
            "recovery" => self.boolean(path, value, &mut to.recovery),
            "presence" => self.boolean(path, value, &mut to.presence),
            "join_leave" => self.boolean(path, value, &mut to.join_leave),
            "overflow" => self.choice(path, value, &OVERFLOW, &mut to.overflow),
            "subscribe" => self.permission(path, value, &mut to.subscribe),
            "publish" => self.permission(path, value, &mut to.publish),
            "read_presence" => self.permission(path, value, &mut to.read_presence),
            "read_history" => self.permission(path, value, &mut to.read_history),
            "consent" => self.boolean(path, value, &mut to.consent),
            "idle_ttl" => self.duration(path, value, &mut to.idle_ttl),
            "publication_bytes_max" => {
                if let Some(bytes) = self.integer(path, value, 1, 1 << 40) {
                    to.publication_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
                }
            }
            _ => self.unknown(
                key,
                path,
                "history, recovery, presence, join_leave, overflow, subscribe, publish, read_presence, read_history, \
                 consent, idle_ttl, publication_bytes_max",
            ),
        }
    }

    /// One of the words, or a list of roles. A role alone is no word: who mistypes `authenticated` should hear of it.
    fn permission(&mut self, path: &str, value: &Value<'_>, to: &mut Permission) {
        const RULE: &str =
            "must be one of nobody, authenticated, anyone, or a list of roles as [\"editor\"]";
        let said = value.get_ref().as_str();
        if let Some((_, word)) = PERMISSION.iter().find(|(word, _)| Some(*word) == said) {
            *to = word.clone();
            return;
        }
        let before = self.faults.len();
        let list = self.list(path, value, RULE);
        let role = |one| self.text(path, one, &RoleError.to_string(), |text| text.parse().ok());
        let roles: Vec<Role> = list.iter().filter_map(role).collect();
        if self.faults.len() > before {
            return;
        }
        if roles.is_empty() {
            return self.wrong(value, path, "must name a role, or be \"nobody\"");
        }
        *to = Permission::Roles(roles.into());
    }

    fn history(&mut self, path: &str, value: &Value<'_>, to: &mut Namespace) {
        let DeValue::Table(table) = value.get_ref() else {
            return self.wrong(
                value,
                path,
                "must be a table as { size = 100, ttl = \"5m\" }",
            );
        };
        for (key, value) in table {
            let path = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "size" => {
                    if let Some(size) = self.integer(&path, value, 0, HISTORY_SIZE_MAX) {
                        to.history.size = u32::try_from(size).unwrap_or(u32::MAX);
                    }
                }
                "ttl" => self.duration(&path, value, &mut to.history.ttl),
                _ => self.unknown(key, &path, "size, ttl"),
            }
        }
    }
}

const OVERFLOW: [(&str, OverflowPolicy); 3] = [
    ("disconnect", OverflowPolicy::Disconnect),
    ("drop_oldest", OverflowPolicy::DropOldest),
    ("latest", OverflowPolicy::Latest),
];

const PERMISSION: [(&str, Permission); 3] = [
    ("nobody", Permission::Nobody),
    ("authenticated", Permission::Authenticated),
    ("anyone", Permission::Anyone),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::file;
    use crate::config::services::Services;
    use crate::model::Namespaces;

    fn read(text: &str) -> (Namespaces, Vec<String>) {
        let base = Namespace::default_for(false);
        let mut services = Services::default();
        let (namespaces, faults) = file::parse("fanfare.toml", text, &base, &mut services);
        let faults = faults.iter().map(ToString::to_string).collect();
        (namespaces, faults)
    }

    fn of(namespaces: &Namespaces, channel: &str) -> Namespace {
        namespaces
            .of(&ChannelKey::new(channel).expect("a channel name"))
            .clone()
    }

    fn check_fault(text: &str, expected: &str) {
        let (_, faults) = read(text);
        assert!(
            faults.iter().any(|fault| fault.starts_with(expected)),
            "{text}\n{faults:#?}"
        );
    }

    #[test]
    fn words_are_written_as_they_are_read() {
        for (word, policy) in &OVERFLOW {
            assert_eq!(policy.to_string(), *word);
        }
        for (word, permission) in &PERMISSION {
            assert_eq!(permission.to_string(), *word);
        }
        let (namespaces, _) = read("[namespaces.a]\npublish = [\"editor\", \"chief\"]");
        assert_eq!(
            of(&namespaces, "a:1").publish.to_string(),
            r#"["editor", "chief"]"#
        );
    }

    #[test]
    fn reads_every_key() {
        let (namespaces, faults) = read(
            r#"
            [namespaces.chat]
            history = { size = 1_000, ttl = "2h" }
            recovery = false
            presence = true
            join_leave = false
            overflow = "latest"
            subscribe = "anyone"
            publish = "authenticated"
            read_presence = "nobody"
            read_history = "anyone"
            consent = false
            idle_ttl = "30s"
            publication_bytes_max = 0x400
        "#,
        );
        assert_eq!(faults, [""; 0]);
        let chat = of(&namespaces, "chat:1");
        assert_eq!(chat.history.size, 1000);
        assert_eq!(chat.history.ttl, Duration::from_secs(7200));
        assert!(!chat.recovery && chat.presence && !chat.join_leave);
        assert_eq!(chat.overflow, OverflowPolicy::Latest);
        assert_eq!(chat.subscribe, Permission::Anyone);
        assert_eq!(chat.publish, Permission::Authenticated);
        assert_eq!(chat.read_presence, Permission::Nobody);
        assert_eq!(chat.read_history, Permission::Anyone);
        assert!(!chat.consent);
        assert_eq!(chat.idle_ttl, Duration::from_secs(30));
        assert_eq!(chat.publication_bytes_max, 1024);
        assert_eq!(of(&namespaces, "news"), Namespace::default_for(false));
    }

    #[test]
    fn roles_are_named_in_a_list() {
        let (namespaces, faults) = read(
            "[namespaces.a]\nsubscribe = [\"reader\", \"editor\"]\npublish = [\"editor\"]\nread_history = [\"x y\"]",
        );
        assert_eq!(faults, [""; 0]);
        let roles = |names: &[&str]| {
            let roles = names.iter().map(|name| name.parse().expect("a role"));
            Permission::Roles(roles.collect())
        };
        let a = of(&namespaces, "a:x");
        assert_eq!(a.subscribe, roles(&["reader", "editor"]));
        assert_eq!(a.publish, roles(&["editor"]));
        assert_eq!(a.read_history, roles(&["x y"]));
        assert_eq!(a.read_presence, Permission::Authenticated);
    }

    #[test]
    fn named_ones_take_from_the_default_wherever_it_stands() {
        let (namespaces, faults) = read(
            "[namespaces.a]\npresence = false\n[namespaces.default]\nhistory = { size = 7 }\npublish = \"anyone\"",
        );
        assert_eq!(faults, [""; 0]);
        let a = of(&namespaces, "a:x");
        assert_eq!((a.history.size, a.publish), (7, Permission::Anyone));
        assert!(!a.presence && !a.join_leave, "join and leave need presence");
        assert_eq!(of(&namespaces, "x").history.size, 7);
    }

    #[test]
    fn without_history_there_is_no_recovery() {
        let (namespaces, faults) = read("[namespaces.a]\nhistory.size = 0");
        assert_eq!(faults, [""; 0]);
        assert!(!of(&namespaces, "a:x").recovery);
    }

    /// The file's text, and how the fault begins after the file's name.
    #[rustfmt::skip]
    const FAULTS: [(&str, &str); 23] = [
        ("[routes]\n", "1: routes is not known here"),
        ("namespaces = 3", "1: namespaces=\"3\" must be a table"),
        ("[namespaces]\na = 3", "2: namespaces.a=\"3\" must be a table"),
        ("\n[namespaces.a]\nhistroy = {}", "3: namespaces.a.histroy is not known here"),
        ("[namespaces.a]\nhistory = { sizee = 1 }", "2: namespaces.a.history.sizee is not known here"),
        ("[namespaces.a]\nhistory = 5", "2: namespaces.a.history=\"5\" must be a table"),
        ("[namespaces.a]\nhistory.size = -1", "2: namespaces.a.history.size=\"-1\" must be a whole"),
        ("[namespaces.a]\nhistory.size = 1000001", "2: namespaces.a.history.size=\"1000001\" must"),
        ("[namespaces.a]\nhistory.ttl = \"5\"", "2: namespaces.a.history.ttl=\"5\" must be a dur"),
        ("[namespaces.a]\nidle_ttl = \"0s\"", "2: namespaces.a.idle_ttl=\"0s\" must be a duration"),
        ("[namespaces.a]\nidle_ttl = 5", "2: namespaces.a.idle_ttl=\"5\" must be a duration"),
        ("[namespaces.a]\npresence = 1", "2: namespaces.a.presence=\"1\" must be true or false"),
        ("[namespaces.a]\noverflow = \"x\"", "2: namespaces.a.overflow=\"x\" must be one of disc"),
        ("[namespaces.a]\npublish = true", "2: namespaces.a.publish=\"true\" must be one of nobody"),
        ("[namespaces.a]\npublish = \"editor\"", "2: namespaces.a.publish=\"editor\" must be one of nobody"),
        ("[namespaces.a]\nsubscribe = []", "2: namespaces.a.subscribe=\"[]\" must name a role"),
        ("[namespaces.a]\nsubscribe = [\"a\",\n\"anyone\"]", "3: namespaces.a.subscribe=\"anyone\" must be a role"),
        ("[namespaces.a]\nread_history = [\" a\"]", "2: namespaces.a.read_history=\" a\" must be a role"),
        ("[namespaces.a]\nread_presence = [3]", "2: namespaces.a.read_presence=\"3\" must be a role"),
        ("[namespaces.a]\npublication_bytes_max = 0", "2: namespaces.a.publication_bytes_max=\"0\""),
        ("[namespaces.\"a:b\"]\n", "1: a:b must be named as"),
        ("[namespaces.a]\npresence = false\njoin_leave = true", "1: namespaces.a must have presence"),
        ("[namespaces.a]\nhistory.size = 0\nrecovery = true", "1: namespaces.a must have history"),
    ];

    #[test]
    fn tells_name_and_line_of_what_is_not_known_or_wrong() {
        for (text, expected) in FAULTS {
            check_fault(text, &format!("fanfare.toml line {expected}"));
        }
    }

    #[test]
    fn tells_all_faults_at_once_and_survives_what_is_no_toml() {
        let (_, faults) = read("[namespaces.a]\nx = 1\ny = 2\npresence = 3\n[what]");
        assert_eq!(faults.len(), 4, "{faults:#?}");
        for text in [
            "[",
            "= 1",
            "a = ",
            "[namespaces.a]\npresence = maybe",
            "\u{0}",
        ] {
            let (_, faults) = read(text);
            assert!(!faults.is_empty(), "{text}");
            assert!(faults[0].starts_with("fanfare.toml line "), "{faults:?}");
        }
    }
}
