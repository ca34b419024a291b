//! The format of `.env`: `KEY=value` a line, `#` comments (after a value too), single and double quotes, `export`.
//!
//! Not here: multi-line values and `${…}` substitution; a file that needs them is for a shell.

use super::fault::Fault;

/// The variables of a file's text in their order, and what cannot be read. A fault never shows the line: it may hold
/// a secret.
pub(super) fn parse(text: &str) -> (Vec<(String, String)>, Vec<Fault>) {
    let mut variables = Vec::new();
    let mut faults = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        match pair(line) {
            Ok(Some(pair)) => variables.push(pair),
            Ok(None) => {}
            Err(rule) => faults.push(Fault::new(&format!(".env line {}", index + 1), None, rule)),
        }
    }
    (variables, faults)
}

fn pair(line: &str) -> Result<Option<(String, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=').ok_or("must be KEY=value")?;
    let key = key.trim();
    let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_key {
        return Err("must begin with a name of letters, digits and _");
    }
    Ok(Some((key.to_owned(), unquote(value.trim())?)))
}

fn unquote(value: &str) -> Result<String, &'static str> {
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Ok(without_comment(value).to_owned());
    };
    let mut text = String::new();
    let mut rest = value[1..].chars();
    while let Some(char) = rest.next() {
        match char {
            '\\' if quote == '"' => text.push(unescape(rest.next().unwrap_or('\\'))),
            _ if char == quote => {
                let after = rest.as_str().trim();
                return if after.is_empty() || after.starts_with('#') {
                    Ok(text)
                } else {
                    Err("must have nothing but a comment after the closing quote")
                };
            }
            _ => text.push(char),
        }
    }
    Err("must close its quote on the same line")
}

const fn unescape(char: char) -> char {
    match char {
        'n' => '\n',
        't' => '\t',
        other => other,
    }
}

/// Cuts off a trailing comment: a `#` at the beginning or after white space. A `#` inside a word belongs to it.
pub(super) fn without_comment(value: &str) -> &str {
    let mut before = ' ';
    for (index, char) in value.char_indices() {
        if char == '#' && before.is_whitespace() {
            return value[..index].trim_end();
        }
        before = char;
    }
    value.trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let (variables, faults) = parse(line);
        assert_eq!(faults, [], "{line}");
        assert_eq!(
            variables,
            [("KEY".to_owned(), expected.to_owned())],
            "{line}"
        );
    }

    #[test]
    fn reads_values_quotes_and_comments() {
        check("KEY=value", "value");
        check("  export KEY = a b  ", "a b");
        check("KEY=30 # minutes", "30");
        check("KEY=30\t#minutes", "30");
        check("KEY=# nothing", "");
        check("KEY=", "");
        check("KEY=a#b", "a#b");
        check("KEY=a=b=c", "a=b=c");
        check("KEY=\"a # b\" # c", "a # b");
        check("KEY='a \\n \"b\"'", "a \\n \"b\"");
        check(r#"KEY="a\n\"b\\""#, "a\n\"b\\");
        check("\u{feff}KEY=value\r\n", "value");
        check("# comment\n\nKEY=1\n   # more", "1");
    }

    #[test]
    fn tells_the_line_but_not_its_content() {
        let (variables, faults) =
            parse("A=1\nsecret\nB-C=secret\nD=\"secret\nE='a' secret\n=secret\nF=2");
        assert_eq!(variables.len(), 2);
        let places: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
        assert_eq!(
            places,
            [
                ".env line 2",
                ".env line 3",
                ".env line 4",
                ".env line 5",
                ".env line 6"
            ]
        );
        assert!(
            faults
                .iter()
                .all(|fault| !fault.to_string().contains("secret"))
        );
    }
}
