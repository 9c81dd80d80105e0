//! Which member of a body is of a wrong type: looked for once a body was refused.

use serde_json::{Value, json};

use super::reply::Problem;

/// What a member may be.
#[derive(Clone, Copy)]
enum Shape {
    Whole,
    Text,
    Object,
    List(&'static Shape),
    /// Objects of which each has to have this member.
    Having(&'static str, &'static Shape),
}

/// Members of the data formats of clauses 6.2 and 6.4. A body has those of one of them.
const MEMBERS: [(&str, Shape); 5] = [
    ("number", Shape::Whole),
    ("size", Shape::Whole),
    ("additional_slave_SAE_IDs", Shape::List(&Shape::Text)),
    ("extension_mandatory", Shape::List(&Shape::Object)),
    ("key_IDs", Shape::List(&Shape::Having("key_ID", &Shape::Text))),
];

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Whole => "a whole number that is not negative",
            Shape::Text => "a string",
            Shape::Object | Shape::Having(..) => "an object",
            Shape::List(_) => "an array",
        }
    }

    /// The place within `value` that is of another shape, what stands there, and what should.
    fn misfit(self, path: String, value: &Value) -> Option<(String, &'static str, &'static str)> {
        let fits = match self {
            Shape::Whole => value.is_u64(),
            Shape::Text => value.is_string(),
            Shape::Object | Shape::Having(..) => value.is_object(),
            Shape::List(_) => value.is_array(),
        };
        if !fits {
            return Some((path, kind(value), self.name()));
        }
        match self {
            Shape::List(item) => {
                let mut items = value.as_array().into_iter().flatten().enumerate();
                items.find_map(|(index, value)| item.misfit(format!("{path}[{index}]"), value))
            }
            Shape::Having(name, shape) => {
                let path = format!("{path}.{name}");
                match value.get(name) {
                    Some(value) => shape.misfit(path, value),
                    None => Some((path, "missing", shape.name())),
                }
            }
            Shape::Whole | Shape::Text | Shape::Object => None,
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "another number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What is wrong with JSON that could not be taken.
pub(super) fn problem(body: &Value) -> Problem {
    let Some(members) = body.as_object() else {
        return Problem::request(format!("the body is {}, not an object", kind(body)));
    };
    let misfit = MEMBERS.iter().find_map(|(name, shape)| {
        // Null stands for what is left out.
        let value = members.get(*name).filter(|value| !value.is_null())?;
        shape.misfit((*name).to_owned(), value)
    });
    match misfit {
        Some((path, found, expected)) => Problem::request(format!("{path} is {found}, not {expected}"))
            .details(json!({"parameter": path, "expected": expected})),
        // Every member is of its type, so what was refused is a name that stands there once more.
        None => Problem::request("a member of the body is given twice"),
    }
}
