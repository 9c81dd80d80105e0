//! How an account is stored and shown: JSON with an object for each named book, and a table for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BlockLedger, Book, Line};

/// Lines of a named book, each of them there.
struct Named<'a> {
    ledger: &'a BlockLedger,
    book: Book,
}

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.book.lines().map(|line| (line.1.name(), self.ledger.get(line))))
    }
}

impl Serialize for BlockLedger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for book in Book::ALL {
            match book.sheet().name {
                Some(_) if book.sheet().later && self.is_blank(book) => {}
                Some(name) => map.serialize_entry(name, &Named { ledger: self, book })?,
                None => {
                    for line in book.lines() {
                        map.serialize_entry(line.1.name(), &self.get(line))?;
                    }
                }
            }
        }
        map.end()
    }
}

/// A line, or the lines of a named book.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Line(u64),
    Book(BTreeMap<String, u64>),
}

impl<'de> Deserialize<'de> for BlockLedger {
    /// Every line must be there, and no other: an account that was cut or is of another form is refused.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut stored: BTreeMap<String, Value> = BTreeMap::deserialize(deserializer)?;
        let mut ledger = Self::default();
        for book in Book::ALL {
            let mut named = match book.sheet().name {
                Some(name) => match stored.remove(name) {
                    Some(Value::Book(lines)) => Some(lines),
                    None if book.sheet().later => continue,
                    _ => return Err(D::Error::custom(format!("the lines of `{name}` are missing"))),
                },
                None => None,
            };
            for line in book.lines() {
                let name = line.1.name();
                let value = match &mut named {
                    Some(lines) => lines.remove(name),
                    None => match stored.remove(name) {
                        Some(Value::Line(value)) => Some(value),
                        _ => None,
                    },
                };
                let value = value.ok_or_else(|| D::Error::custom(format!("the line `{}` is missing", line.name())))?;
                ledger.set(line, value);
            }
            if let Some((name, _)) = named.and_then(|lines| lines.into_iter().next()) {
                return Err(D::Error::custom(format!("there is no line `{name}`")));
            }
        }
        match stored.into_iter().next() {
            Some((name, _)) => Err(D::Error::custom(format!("there is no line `{name}`"))),
            None => Ok(ledger),
        }
    }
}

impl BlockLedger {
    /// The ledger as a table for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for book in Book::ALL {
            if book.sheet().name.is_none() || !self.is_blank(book) {
                self.render_book(&mut text, book);
            }
        }
        let verdict = match self.check() {
            Ok(()) => "sums exact".to_owned(),
            Err(error) => format!("SUMS WRONG: {error}"),
        };
        text.push_str(&verdict);
        text.push('\n');
        text
    }

    fn render_book(&self, text: &mut String, book: Book) {
        let sheet = book.sheet();
        let values = sheet.parts.iter().map(|item| (item.label(), self.get(Line(book, *item))));
        let Some(heading) = sheet.heading else {
            values.for_each(|(label, value)| row(text, label, value, None));
            return;
        };
        let whole = self.total(book).unwrap_or(u64::MAX);
        row(text, heading, whole, None);
        for (label, value) in values {
            row(text, &format!("  {label}"), value, Some(whole));
        }
        if let Some((item, of)) = sheet.among {
            let value = self.get(Line(book, item));
            row(text, &format!("  {}", item.label()), value, Some(self.get(Line(book, of))));
        }
    }
}

fn row(text: &mut String, name: &str, value: u64, whole: Option<u64>) {
    // Writing to a string cannot fail.
    let _ = match whole {
        Some(whole) if whole > 0 => {
            writeln!(text, "{name:<22}{value:>20}  {:>8.3} %", 100.0 * value as f64 / whole as f64)
        }
        _ => writeln!(text, "{name:<22}{value:>20}"),
    };
}
