//! What is written out of the table: the example, the chapter on operations, the help.

use super::*;

/// Compares a file of the repository with what the table says; `FANFARE_UPDATE_DOCS=1` writes it instead.
fn check_document(path: &str, expected: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let expected = expected(&found);
    if std::env::var_os("FANFARE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).expect("a writable file");
        return;
    }
    assert!(
        found == expected,
        "{} is not up to date: run the tests once with FANFARE_UPDATE_DOCS=1",
        path.display()
    );
}

#[test]
fn the_example_is_up_to_date() {
    check_document(".env.example", |_| env_example());
}

#[test]
fn the_table_of_the_operations_chapter_is_up_to_date() {
    const BEGIN: &str = "<!-- variables: begin -->\n\n";
    const END: &str = "<!-- variables: end -->";
    check_document("docs/OPERATIONS.md", |found| {
        let (before, rest) = found.split_once(BEGIN).expect("the beginning of the table");
        let (_, after) = rest.split_once(END).expect("the end of the table");
        format!("{before}{BEGIN}{}{END}{after}", markdown())
    });
}

#[test]
fn the_operations_chapter_names_no_variable_that_is_not_there() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md");
    let text = std::fs::read_to_string(path).expect("the chapter");
    let is_name = |word: &&str| {
        word.len() > 1
            && word.contains('_')
            && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
    };
    let known = |word: &str| {
        // Not ours: a convention of terminals, and what docker-compose.yml alone reads.
        ["NO_COLOR", "GATEWAY_MEMORY"].contains(&word)
            || variable::VARIABLES
                .iter()
                .any(|row| row.name == word || row.aliases.contains(&word))
            || variable::NOT_YET.iter().any(|row| row.name == word)
    };
    for word in text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(is_name)
    {
        assert!(known(word), "{word}");
    }
}

#[test]
fn the_example_with_every_line_in_force_is_a_valid_configuration() {
    let example: String = env_example()
        .lines()
        .map(|line| {
            let name = line.strip_prefix("# ").filter(|rest| {
                rest.split_once('=')
                    .is_some_and(|(name, _)| !name.contains(' '))
            });
            format!("{}\n", name.unwrap_or(line))
        })
        .collect();
    let settings =
        load_with_files(&[], &[(".env", &example)]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shown(&settings, "PORT").1, Source::DotEnv("PORT"));
    let plain = load(&[]).expect("valid");
    for (with, without) in settings.resolved.iter().zip(&plain.resolved) {
        assert_eq!(with.value, without.value, "{}", with.name);
    }
}

#[test]
fn help_names_every_variable_with_its_default() {
    let help = help();
    for variable in variable::VARIABLES {
        assert!(help.contains(&format!("  {} [{}", variable.name, variable.default_text())));
    }
}
