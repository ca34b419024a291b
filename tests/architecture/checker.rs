//! Finds every path that a source file names, and holds each against the rules. It knows syntax, not types: what comes
//! into a file by a glob import, or through a macro of another crate, is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Spacing, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemUse, Macro, MetaList, UseTree};

/// What the rules are: the tables of `tests/architecture.rs`.
pub(crate) struct Rules {
    /// Upper before lower. A room may name the rooms below; those on one line do not know each other.
    pub(crate) floors: &'static [&'static [&'static str]],
    /// What the floors allow and is denied all the same, with the reason.
    pub(crate) denied: &'static [(&'static str, &'static str, &'static str)],
    /// Of these rooms below it, a room may name these things only.
    pub(crate) narrow: &'static [Narrow],
    /// Rooms without I/O and clock.
    pub(crate) sans_io: &'static [&'static str],
    /// Parts of `std` that are I/O or clock, with what of them is neither.
    pub(crate) io_of_std: &'static [(&'static str, &'static [&'static str])],
    /// Crates that are I/O, clock or chance.
    pub(crate) io_crates: &'static [&'static str],
    /// Each third-party crate and where it may be named: a room, or a file of one without `.rs`. `*` is everywhere.
    pub(crate) homes: &'static [(&'static str, &'static [&'static str])],
}

/// Who, of which rooms below, what.
pub(crate) type Narrow = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// One source file that is compiled outside tests.
pub(crate) struct Source {
    /// As `src/hub/mod.rs`.
    pub(crate) file: String,
    /// As `["hub"]`.
    pub(crate) module: Vec<String>,
    syntax: syn::File,
}

impl Source {
    pub(crate) fn parse(file: &str, module: &[&str], text: &str) -> Self {
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let module = module.iter().map(|&name| name.to_owned()).collect();
        Self {
            file: file.to_owned(),
            module,
            syntax,
        }
    }

    fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    /// Whether a home holds this file: `*`, a room, a file as `hub/frame`, or a folder as `broker/redis`.
    pub(crate) fn is_in(&self, home: &str) -> bool {
        let is_folder = || {
            let inside = self.place().strip_prefix(home);
            inside.is_some_and(|inside| inside.starts_with('/'))
        };
        ["*", self.room(), self.place()].contains(&home) || is_folder()
    }

    /// As `hub/frame`.
    fn place(&self) -> &str {
        let file = self.file.trim_start_matches("src/");
        file.trim_end_matches(".rs").trim_end_matches("/mod")
    }
}

/// Follows the `mod` lines of `lib.rs` and `main.rs`, so that what only tests compile is not met.
pub(crate) fn sources(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    read(root, Path::new("src/lib.rs"), &[], &mut found);
    read(root, Path::new("src/main.rs"), &["main"], &mut found);
    found
}

fn read(root: &Path, file: &Path, module: &[&str], found: &mut Vec<Source>) {
    let text = std::fs::read_to_string(root.join(file))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let source = Source::parse(&file.to_string_lossy(), module, &text);
    for item in &source.syntax.items {
        let Item::Mod(child) = item else { continue };
        if child.content.is_some() || is_test(&child.attrs) {
            continue;
        }
        let name = child.ident.to_string();
        let mut path: Vec<&str> = module.to_vec();
        path.push(&name);
        read(root, &file_of(root, file, &name), &path, found);
    }
    found.push(source);
}

fn file_of(root: &Path, parent: &Path, name: &str) -> PathBuf {
    let stem = parent.file_stem().and_then(|stem| stem.to_str());
    let folder = match stem {
        Some("lib" | "mod" | "main") => parent.with_file_name(""),
        _ => parent.with_extension(""),
    };
    let flat = folder.join(format!("{name}.rs"));
    if root.join(&flat).exists() {
        flat
    } else {
        folder.join(name).join("mod.rs")
    }
}

/// Whether only tests compile it.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Path>()
                    .is_ok_and(|condition| condition.is_ident("test")))
    })
}

/// The faults of one file, a line each: where, what and by which rule.
pub(crate) fn check(source: &Source, rules: &Rules) -> BTreeSet<String> {
    if source.room() == "lib" {
        return types_in_lib(source);
    }
    let mut faults = BTreeSet::new();
    for (line, path) in Names::of(source) {
        if let Some(rule) = fault(source, &path, rules) {
            faults.insert(format!(
                "{}:{line}: `{}`: {rule}",
                source.file,
                path.join("::")
            ));
        }
    }
    faults
}

fn types_in_lib(source: &Source) -> BTreeSet<String> {
    let items = source.syntax.items.iter();
    let others =
        items.filter(|item| !matches!(item, Item::Mod(module) if module.content.is_none()));
    others
        .map(|_| format!("{}: lib.rs holds `mod` lines only", source.file))
        .collect()
}

/// The crates and rooms that a file names, by the first segment of each path.
pub(crate) fn named(source: &Source) -> BTreeSet<String> {
    let paths = Names::of(source).into_iter();
    paths
        .filter_map(|(_, path)| path.into_iter().next())
        .collect()
}

/// The rule that this path breaks, if one.
fn fault(source: &Source, path: &[String], rules: &Rules) -> Option<String> {
    let segments: Vec<&str> = path.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["crate", room, rest @ ..] => direction(source.room(), room, rest, rules),
        ["std" | "core", rest @ ..] => clock_or_io(source.room(), rest, rules),
        [name, ..] => home(source, name, rules),
        [] => None,
    }
}

fn direction(from: &str, to: &str, rest: &[&str], rules: &Rules) -> Option<String> {
    if from == to {
        return None;
    }
    let floor = |room: &str| rules.floors.iter().position(|floor| floor.contains(&room));
    let Some(lower) = floor(to) else {
        return Some(format!("`{to}` is no room of the table"));
    };
    let Some(upper) = floor(from) else {
        return Some(format!("`{from}` is no room of the table"));
    };
    if upper == lower {
        return Some(format!(
            "{from} and {to} stand side by side and do not know each other"
        ));
    }
    if upper > lower {
        return Some(format!("{from} stands below {to} and may not name it"));
    }
    let denied = rules.denied.iter().find(|row| row.0 == from && row.1 == to);
    if let Some((_, _, reason)) = denied {
        return Some(format!("{from} may not name {to}: {reason}"));
    }
    // The bare room is an import whose uses are checked one by one.
    let name = rest.first()?;
    let mut narrow = rules.narrow.iter();
    let (_, _, allowed) = narrow.find(|row| row.0 == from && row.1.contains(&to))?;
    (!allowed.contains(name))
        .then(|| format!("of {to}, {from} may name only {}", allowed.join(", ")))
}

fn clock_or_io(room: &str, rest: &[&str], rules: &Rules) -> Option<String> {
    let part = rest.first()?;
    let (_, harmless) = rules.io_of_std.iter().find(|row| row.0 == *part)?;
    let harms = rest.get(1).is_none_or(|name| !harmless.contains(name));
    (harms && rules.sans_io.contains(&room))
        .then(|| format!("{room} is sans-IO: no I/O, no clock; pass it in"))
}

fn home(source: &Source, name: &str, rules: &Rules) -> Option<String> {
    let (_, homes) = rules.homes.iter().find(|row| row.0 == name)?;
    let room = source.room();
    if rules.sans_io.contains(&room) && rules.io_crates.contains(&name) {
        return Some(format!("{room} is sans-IO and may not name {name}"));
    }
    (!homes.iter().any(|home| source.is_in(home))).then(|| {
        format!(
            "{name} lives in {}, not in {}",
            homes.join(", "),
            source.place()
        )
    })
}

/// Every path that a file names, before it is known what the first segment stands for.
struct Names {
    module: Vec<String>,
    found: Vec<(usize, Vec<String>)>,
    /// What `use` and `mod` made of a name. Scopes are not told apart: no file here gives a name two meanings.
    bound: BTreeMap<String, Vec<String>>,
}

impl Names {
    /// Lines and absolute paths: the first segment is a crate, `std` or `crate`, where that can be known.
    fn of(source: &Source) -> Vec<(usize, Vec<String>)> {
        let mut names = Self {
            module: source.module.clone(),
            found: Vec::new(),
            bound: BTreeMap::new(),
        };
        if !is_test(&source.syntax.attrs) {
            names.visit_file(&source.syntax);
        }
        let bound = names.bound;
        let resolve = |(line, path): (usize, Vec<String>)| {
            let meant = path.first().and_then(|first| bound.get(first));
            let path = meant.map_or_else(|| path.clone(), |meant| [meant, &path[1..]].concat());
            (line, path)
        };
        names.found.into_iter().map(resolve).collect()
    }

    fn add(&mut self, span: Span, path: Vec<String>) {
        let path = self.absolute(path);
        self.found.push((span.start().line, path));
    }

    /// `self` and `super` become `crate::…`; in the binary, so does the library's name.
    fn absolute(&self, path: Vec<String>) -> Vec<String> {
        let mut at: Vec<String> = self.module.clone();
        let mut rest = path.as_slice();
        match rest.first().map(String::as_str) {
            Some("fanfare") => at.clear(),
            Some("self") => {}
            Some("super") => {
                at.pop();
            }
            _ => return path,
        }
        rest = &rest[1..];
        while rest.first().is_some_and(|segment| segment == "super") {
            at.pop();
            rest = &rest[1..];
        }
        let mut absolute = vec!["crate".to_owned()];
        absolute.extend(at);
        absolute.extend_from_slice(rest);
        absolute
    }

    fn import(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &with(path.ident.to_string())),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before);
                }
            }
            UseTree::Glob(glob) => self.add(glob.star_token.spans[0], with("*".to_owned())),
            UseTree::Name(name) => self.bind(&name.ident, None, before),
            UseTree::Rename(rename) => self.bind(&rename.ident, Some(&rename.rename), before),
        }
    }

    fn bind(&mut self, name: &syn::Ident, rename: Option<&syn::Ident>, before: &[String]) {
        let mut path = before.to_vec();
        if name != "self" {
            path.push(name.to_string());
        }
        let last = path.last().cloned().unwrap_or_default();
        let bound = rename.map_or(last, ToString::to_string);
        let absolute = self.absolute(path.clone());
        if absolute != [bound.clone()] {
            self.bound.insert(bound, absolute);
        }
        self.add(name.span(), path);
    }

    /// Paths in what a macro is given, which nobody has parsed.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut begun = Span::call_site();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_of(&mut path, begun);
                        begun = ident.span();
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    let joined = colons == 1 || punct.spacing() == Spacing::Joint;
                    colons = if joined { colons + 1 } else { 0 };
                }
                TokenTree::Group(group) => {
                    self.end_of(&mut path, begun);
                    colons = 0;
                    self.scan(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.end_of(&mut path, begun);
                    colons = 0;
                }
            }
        }
        self.end_of(&mut path, begun);
    }

    fn end_of(&mut self, path: &mut Vec<String>, begun: Span) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.add(begun, path);
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(attributes(item)) {
            return;
        }
        if let Item::Mod(module) = item {
            let name = module.ident.to_string();
            let mut path = vec!["crate".to_owned()];
            path.extend(self.module.iter().cloned());
            path.push(name.clone());
            self.bound.insert(name.clone(), path);
            self.module.push(name);
            visit::visit_item(self, item);
            self.module.pop();
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Fn(item) => item.attrs.as_slice(),
            ImplItem::Const(item) => item.attrs.as_slice(),
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.import(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if let (Some(first), true) = (path.segments.first(), segments.len() > 1) {
            self.add(first.ident.span(), segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast Macro) {
        self.scan(invocation.tokens.clone());
        visit::visit_macro(self, invocation);
    }

    fn visit_meta_list(&mut self, list: &'ast MetaList) {
        self.scan(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        _ => &[],
    }
}
