//! What is wrong with one text or number that stands for a text, and how to mend it.

use serde_json::{Number, Value};

use super::found;
use crate::diagnostic::Diagnostic;
use crate::document::{
    MOMENT_FORMAT, Moment, NAME_FORMAT, Name, PROVENANCE_FORMAT, ReferenceValue, TOLERANCE_FORMAT, Tolerance,
    VALUE_FORMAT,
};
use crate::quantity::{self, Decimal, Dimension, QuantityError, dimension_of};
use crate::suggest;
use crate::tree::Node;

/// A number where a text must stand, most often a quantity without its unit.
pub(super) fn number_for_text(node: &Node, path: &str, number: &Number, format: &str, schema: &Value) -> Diagnostic {
    let example = schema["examples"].get(0).and_then(Value::as_str);
    let Some((_, unit)) = example.and_then(|example| example.split_once(' ')) else {
        return Diagnostic::error(node.at, path, found(node)).hint("put the text in quotes");
    };
    let value = number.as_f64().unwrap_or_default();
    let percent = number.to_string().parse::<Decimal>().ok().and_then(|number| number.scaled(1, 2));
    let meant = match percent.filter(|_| format == dimension_of::Fraction::FORMAT && value <= 1.0) {
        Some(percent) => format!("{percent} {unit}"),
        None => format!("{number} {unit}"),
    };
    Diagnostic::error(node.at, path, format!("the number {number} has no unit"))
        .hint(format!("write \"{meant}\" if that is meant"))
}

/// What is wrong with a text, and how to mend it.
pub(super) fn text_problem(text: &str, format: &str, schema: &Value) -> Option<(String, Option<String>)> {
    let quantity_problem = |error: QuantityError| {
        let hint = match &error {
            QuantityError::UnknownUnit { suggestion: Some(unit), .. } => Some(format!("did you mean \"{unit}\"?")),
            QuantityError::UnknownUnit { unit, .. } if unit.starts_with(',') => {
                Some("decimals take a point".to_owned())
            }
            _ => None,
        };
        (error.to_string(), hint)
    };
    if let Some(dimension) = quantity::dimension(format) {
        return (dimension.check)(text).err().map(quantity_problem);
    }
    match format {
        NAME_FORMAT if Name::parse(text).is_none() => {
            let hint = mended_name(text).map(|name| format!("such as \"{name}\""));
            Some(("is not a name".into(), hint))
        }
        PROVENANCE_FORMAT => provenance_problem(text, schema),
        MOMENT_FORMAT if Moment::parse(text).is_none() => {
            let offset = text.contains('+').then(|| "times are in UTC: convert it, and let it end with Z".to_owned());
            Some(("is not a time in UTC".into(), offset))
        }
        VALUE_FORMAT => ReferenceValue::parse(text).err().map(quantity_problem),
        TOLERANCE_FORMAT if Tolerance::parse(text).is_none() => Some(("is not a tolerance".into(), None)),
        _ => length_problem(text, schema),
    }
}

pub(super) fn mended_name(text: &str) -> Option<String> {
    let mended = text.to_lowercase().replace([' ', '_', '.'], "-");
    Name::parse(&mended).map(|name| name.to_string())
}

fn provenance_problem(text: &str, schema: &Value) -> Option<(String, Option<String>)> {
    const ORIGINS: [&str; 3] = ["published", "inferred", "assumed"];
    let (origin, source) = text.split_once(':').unwrap_or((text, ""));
    if !ORIGINS.contains(&origin) {
        let hint = suggest::nearest(origin, ORIGINS).map(|origin| format!("did you mean \"{origin}: ...\"?"));
        return Some(("does not begin with an origin".into(), hint));
    }
    if source.trim().is_empty() {
        return Some(("names no source".into(), None));
    }
    length_problem(text, schema)
}

fn length_problem(text: &str, schema: &Value) -> Option<(String, Option<String>)> {
    let length = text.chars().count() as u64;
    let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
    let least = schema["minLength"].as_u64().unwrap_or(0);
    if length > most {
        return Some((format!("has {length} characters, at most {most} are allowed"), None));
    }
    (length < least).then(|| ("is too short".into(), None))
}
