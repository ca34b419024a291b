//! What a subcommand says at its end: one line for people, and with `--json` one flat JSON object for scripts. Flat,
//! so that `sed` is enough to read a field where there is no `jq`.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::clock;

/// The figures of a run, in the order in which they were added.
#[derive(Debug)]
pub(crate) struct Report {
    work: String,
    parts: Vec<String>,
    fields: Map<String, Value>,
}

impl Report {
    /// A report about `work`.
    pub(crate) fn new(work: impl Into<String>) -> Self {
        let work = work.into();
        let fields = Map::from_iter([("work".to_owned(), json!(work))]);
        Report {
            work,
            parts: Vec::new(),
            fields,
        }
    }

    /// A figure that people and scripts get: the number, and words around it where `{}` stands.
    pub(crate) fn say(&mut self, name: &str, value: f64, words: &str) -> &mut Self {
        self.parts.push(words.replace("{}", &plain(value)));
        self.set(name, json!(rounded(value)))
    }

    /// A figure that only scripts get.
    pub(crate) fn set(&mut self, name: &str, value: Value) -> &mut Self {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// Words that only people get.
    pub(crate) fn add(&mut self, words: impl Into<String>) -> &mut Self {
        self.parts.push(words.into());
        self
    }

    /// What went wrong, where something did.
    pub(crate) fn troubles<'a>(
        &mut self,
        texts: impl IntoIterator<Item = &'a String>,
    ) -> &mut Self {
        for text in texts {
            self.add(format!("trouble: {text}"));
        }
        self
    }

    /// p50, p90, p99 and the highest of a histogram, in milliseconds; names begin with `prefix`.
    pub(crate) fn spread(
        &mut self,
        prefix: &str,
        label: &str,
        spread: &Histogram<u64>,
    ) -> &mut Self {
        let values = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)]
            .map(|(name, quantile)| (name, clock::ms(spread.value_at_quantile(quantile))));
        let words: Vec<String> = values
            .iter()
            .map(|(name, value)| format!("{name} {}", plain(*value)))
            .collect();
        if spread.is_empty() {
            return self;
        }
        self.parts.push(format!("{label} {} ms", words.join(" ")));
        for (name, value) in values {
            self.set(&format!("{prefix}{name}_ms"), json!(rounded(value)));
        }
        self
    }

    /// Prints it: the line to standard output, or with `json` the object there and the line to standard error.
    pub(crate) fn print(&self, json: bool) {
        let line = format!("{}: {}", self.work, self.parts.join(" · "));
        if json {
            eprintln!("{line}");
            println!("{}", Value::Object(self.fields.clone()));
        } else {
            println!("{line}");
        }
    }
}

/// Four significant digits are more than a run repeats.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powf(3.0 - value.abs().log10().floor());
    if value.abs() >= 10_000.0 {
        value.round()
    } else {
        (value * scale).round() / scale
    }
}

fn plain(value: f64) -> String {
    let value = rounded(value);
    let digits = value.abs().round().to_string();
    if value.fract() != 0.0 || digits.len() < 5 {
        return value.to_string();
    }
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|g| std::str::from_utf8(g).ok())
        .collect();
    format!("{}{}", if value < 0.0 { "-" } else { "" }, groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::histogram;

    #[test]
    fn prints_what_can_be_read() {
        let cases = [
            (0.0, "0"),
            (0.123456, "0.1235"),
            (2.0, "2"),
            (5_300_123.4, "5,300,123"),
            (12_345.6, "12,346"),
        ];
        for (value, expected) in cases {
            assert_eq!(plain(value), expected);
        }
    }

    #[test]
    fn a_histogram_becomes_four_flat_fields() {
        let mut spread = histogram();
        (1..=100).for_each(|value| spread.saturating_record(value * 1_000_000));
        let mut report = Report::new("test");
        report.spread("last_", "to the last", &spread);
        assert!(
            report.fields["last_p50_ms"]
                .as_f64()
                .is_some_and(|p50| (50.0..50.1).contains(&p50))
        );
        assert!(
            report.fields["last_max_ms"]
                .as_f64()
                .is_some_and(|max| (100.0..100.2).contains(&max))
        );
    }

    #[test]
    fn an_empty_histogram_says_nothing() {
        let mut report = Report::new("test");
        report.spread("", "latency", &histogram());
        assert!(!report.fields.contains_key("p50_ms"));
    }
}
