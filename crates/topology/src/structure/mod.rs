//! The tree against the schema of the types: every unknown, missing or malformed field at once.
//!
//! What is wrong is replaced by something valid and remembered as *replaced*, so that the checks which need
//! typed values still run on the rest and never complain about a stand-in.

mod texts;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::diagnostic::{COLLECTED_MAX, Diagnostic, Position, quoted};
use crate::document::{MOMENT_FORMAT, NAME_FORMAT, PROVENANCE_FORMAT, Speed, TOLERANCE_FORMAT, VALUE_FORMAT};
use crate::expand::{Definition, INSTRUMENTS, KINDS, USE};
use crate::quantity;
use crate::schema::EXPANDED;
use crate::suggest;
use crate::tree::{Kind, Node, number_in};
use texts::{mended_name, number_for_text, text_problem};

/// What the structural pass leaves for the next one.
pub(crate) struct Structure {
    /// The document, valid against the schema.
    pub value: Value,
    pub places: Places,
    pub diagnostics: Vec<Diagnostic>,
}

/// Where each field path stands in the file, and which of them hold stand-ins.
#[derive(Default)]
pub(crate) struct Places {
    positions: BTreeMap<String, Place>,
    replaced: BTreeSet<String>,
}

/// Where a value stands in the file.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub at: Position,
    /// Of a value of a definition: from where it is used.
    pub used_at: Option<Position>,
}

impl Places {
    /// Place of the value, or of the nearest block around it that is in the file.
    pub fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.positions.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.positions.get("").copied().unwrap_or_default(),
            }
        }
    }

    /// Its position alone.
    pub fn of(&self, path: &str) -> Position {
        self.place(path).at
    }

    /// Whether the value at this path, or a part of it, is a stand-in.
    pub fn is_replaced(&self, path: &str) -> bool {
        let above = |other: &str, path: &str| {
            path.strip_prefix(other)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']) || other.is_empty())
        };
        self.replaced.iter().any(|replaced| above(replaced, path) || above(path, replaced))
    }
}

/// `instruments` are the definitions that stand in the document, which may lack what the places that use them say; one
/// that is used comes before those that use it.
pub(crate) fn check(root: &Node, instruments: &[Definition], schema: &Value) -> Structure {
    let definitions = schema.get("$defs").cloned().unwrap_or_default();
    let mut walker = Walker {
        definitions: &definitions,
        places: Places::default(),
        diagnostics: Vec::new(),
        used_at: None,
        of_definitions: BTreeMap::new(),
        partial: true,
    };
    for Definition { kind, name, node } in instruments {
        walker.visit(node, &definitions[kind.schema], &format!("spec.{INSTRUMENTS}.{}.{name}", kind.name));
    }
    walker.partial = false;
    let value = walker.visit(root, schema, "");
    Structure { value, places: walker.places, diagnostics: walker.diagnostics }
}

/// Text in the place of one that is missing or cannot be mended.
pub(crate) const STAND_IN: &str = "stand-in";

struct Walker<'a> {
    definitions: &'a Value,
    places: Places,
    diagnostics: Vec<Diagnostic>,
    /// From where the value is used that is looked at, if it is one of a definition.
    used_at: Option<Position>,
    /// What was said of definitions, by place and message: a hundred places that use one are no hundred problems.
    of_definitions: BTreeMap<(Position, String), usize>,
    /// Whether a definition is looked at, in which fields may be missing.
    partial: bool,
}

impl<'a> Walker<'a> {
    fn visit(&mut self, node: &Node, schema: &'a Value, path: &str) -> Value {
        let outer = self.used_at;
        self.used_at = outer.or(node.origin().and_then(|origin| origin.used_at));
        self.places.positions.insert(path.to_owned(), Place { at: node.at, used_at: self.used_at });
        let value = match node.origin().is_some_and(|origin| origin.broken) {
            true => {
                self.places.replaced.insert(path.to_owned());
                self.stand_in(schema)
            }
            false => self.value(node, schema, path),
        };
        self.used_at = outer;
        value
    }

    fn value(&mut self, node: &Node, schema: &'a Value, path: &str) -> Value {
        let schema = self.resolved(schema);
        if let Some(variants) = schema["oneOf"].as_array() {
            return match variants.iter().all(|variant| variant.get("const").is_some()) {
                true => self.choice(node, schema, variants, path),
                false => self.tagged(node, schema, variants, path),
            };
        }
        match schema["type"].as_str() {
            Some("object") => self.object(node, schema, path),
            Some("array") => self.array(node, schema, path),
            Some("string") => self.string(node, schema, path),
            Some("boolean") => self.boolean(node, schema, path),
            Some("number" | "integer") => self.number(node, schema, path),
            _ => self.speed(node, schema, path),
        }
    }

    fn resolved(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
            Some(name) => self.definitions.get(name).unwrap_or(schema),
            None => schema,
        }
    }

    fn note(&mut self, diagnostic: Diagnostic) {
        let Some(used_at) = self.used_at else {
            if !self.is_full() {
                if self.partial {
                    let key = (diagnostic.position, diagnostic.message.clone());
                    self.of_definitions.insert(key, self.diagnostics.len());
                }
                self.diagnostics.push(diagnostic);
            }
            return;
        };
        let said = self.of_definitions.get(&(diagnostic.position, diagnostic.message.clone())).copied();
        if let Some(said) = said.and_then(|index| self.diagnostics.get_mut(index)) {
            if said.related.len() < COLLECTED_MAX {
                said.also_used_at(used_at);
            }
        } else if !self.is_full() {
            self.diagnostics.push(diagnostic.used_at(used_at));
        }
    }

    fn is_full(&self) -> bool {
        self.diagnostics.len() >= COLLECTED_MAX
    }

    /// Reports a bad value and stands something valid in for it.
    fn replace(&mut self, path: &str, schema: &'a Value, diagnostic: Diagnostic) -> Value {
        self.note(diagnostic);
        self.places.replaced.insert(path.to_owned());
        self.stand_in(schema)
    }

    fn stand_in(&self, schema: &'a Value) -> Value {
        let schema = self.resolved(schema);
        if let Some(first) = schema["examples"].get(0).or(schema.get("const")).or(schema["enum"].get(0)) {
            return first.clone();
        }
        if let Some(first) = schema["oneOf"].get(0) {
            return self.stand_in(first);
        }
        match schema["type"].as_str() {
            Some("object") => {
                let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let fields = required.map(|name| (name.to_owned(), self.stand_in(&schema["properties"][name])));
                Value::Object(fields.collect())
            }
            Some("array") => {
                let items = schema["minItems"].as_u64().unwrap_or(0);
                Value::Array((0..items).map(|_| self.stand_in(&schema["items"])).collect())
            }
            Some("boolean") => Value::Bool(false),
            Some("number" | "integer") => schema.get("minimum").cloned().unwrap_or_else(|| 0.into()),
            _ if schema["format"] == PROVENANCE_FORMAT => "assumed: -".into(),
            _ => STAND_IN.into(),
        }
    }

    // === collections ===

    fn object(&mut self, node: &Node, schema: &'a Value, path: &str) -> Value {
        let Kind::Mapping(entries) = &node.kind else {
            return self.wrong_type(node, schema, path, "a block of fields");
        };
        let Some(properties) = schema["properties"].as_object() else {
            return self.free_map(node, schema, path);
        };
        let mut fields = Map::new();
        let mut meant = BTreeSet::new();
        let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
        for entry in entries {
            let field_path = join(path, &entry.key);
            match properties.get(&entry.key) {
                Some(field) if is_of_the_cluster(field) || is_expanded(field) => {}
                // Programs write `null` for what is not set.
                Some(_) if entry.value.scalar() == Some(Value::Null) && !required(&entry.key) => {}
                Some(field) => {
                    let value = self.visit(&entry.value, field, &field_path);
                    fields.insert(entry.key.clone(), value);
                    if field["format"] == "provenance-map" {
                        self.provenance_keys(&entry.value, schema, &field_path);
                    }
                }
                None if self.is_full() => {}
                None => {
                    let own = properties.iter().filter(|(_, field)| !is_of_the_cluster(field));
                    let names: Vec<&str> = own.map(|(name, _)| name.as_str()).collect();
                    let free = names.iter().copied().filter(|name| node.get(name).is_none());
                    let suggestion = suggest::nearest(&entry.key, free);
                    let inherited = entry.value.origin().and_then(|origin| origin.used_at);
                    let outer = self.used_at;
                    self.used_at = outer.or(inherited);
                    // What a place says beside `use` is a field that its definition does not have either.
                    let defined_at = node.origin().filter(|_| inherited.is_none()).and_then(|origin| origin.defined_at);
                    self.unknown_field(&entry.key, entry.key_at, (&field_path, defined_at), &names, suggestion);
                    self.used_at = outer;
                    meant.extend(suggestion.map(str::to_owned));
                }
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                let field_path = join(path, name);
                if !meant.contains(name) && !self.partial {
                    self.missing_field(name, node, &field_path, &properties[name]);
                }
                // No check looks below the definitions.
                if !self.partial {
                    self.places.replaced.insert(field_path);
                }
                fields.insert(name.to_owned(), self.stand_in(&properties[name]));
            }
        }
        for name in meant {
            self.places.replaced.insert(join(path, &name));
        }
        Value::Object(fields)
    }

    fn unknown_field(
        &mut self,
        key: &str,
        at: Position,
        (path, defined_at): (&str, Option<Position>),
        known: &[&str],
        suggestion: Option<&str>,
    ) {
        let hint = match (key, suggestion) {
            (USE, _) => Some(format!("`{USE}` stands in {}", KINDS.map(|kind| kind.name).join(", "))),
            ("<<", _) => Some("a merge key stands without quotes".to_owned()),
            (_, Some(suggestion)) => Some(format!("did you mean \"{suggestion}\"?")),
            _ => None,
        };
        let diagnostic = Diagnostic::error(at, path, format!("unknown field {}", quoted(key)))
            .expected(format!("one of {}", known.join(", ")))
            .hint_if(hint);
        self.note(match defined_at {
            Some(defined_at) => diagnostic.defined_at(defined_at),
            None => diagnostic,
        });
    }

    fn missing_field(&mut self, name: &str, block: &Node, path: &str, schema: &'a Value) {
        let expected = match schema["description"].as_str() {
            Some(description) => format!("{}; {}", self.describe(schema), description.trim_end_matches('.')),
            None => self.describe(schema),
        };
        let diagnostic =
            Diagnostic::error(block.at, path, format!("the field \"{name}\" is missing")).expected(expected);
        self.note(match block.origin().and_then(|origin| origin.defined_at) {
            Some(defined_at) => diagnostic.defined_at(defined_at),
            None => diagnostic,
        });
    }

    fn free_map(&mut self, node: &Node, schema: &'a Value, path: &str) -> Value {
        let Kind::Mapping(entries) = &node.kind else { return Value::Null };
        if let Some(most) = schema["maxProperties"].as_u64()
            && entries.len() as u64 > most
        {
            let message = format!("{} entries", entries.len());
            let diagnostic = Diagnostic::error(node.at, path, message).expected(format!("at most {most} entries"));
            return self.replace(path, schema, diagnostic);
        }
        let values = entries.iter().map(|entry| {
            let value = self.visit(&entry.value, &schema["additionalProperties"], &join(path, &entry.key));
            (entry.key.clone(), value)
        });
        Value::Object(values.collect())
    }

    fn array(&mut self, node: &Node, schema: &'a Value, path: &str) -> Value {
        let Kind::Sequence(items) = &node.kind else {
            return self.wrong_type(node, schema, path, "a list");
        };
        let least = schema["minItems"].as_u64().unwrap_or(0);
        let most = schema["maxItems"].as_u64().unwrap_or(u64::MAX);
        let count = items.len() as u64;
        let mut values: Vec<Value> = items
            .iter()
            .take(most as usize)
            .enumerate()
            .map(|(index, item)| self.visit(item, &schema["items"], &format!("{path}[{index}]")))
            .collect();
        if count < least || count > most {
            let expected = match (least, most) {
                (least, most) if least == most => format!("exactly {least}"),
                (least, most) if count < least => format!("at least {least} (and at most {most})"),
                (_, most) => format!("at most {most}"),
            };
            let message = format!("{count} {} in the list", if count == 1 { "entry" } else { "entries" });
            self.note(Diagnostic::error(node.at, path, message).expected(expected));
            while (values.len() as u64) < least {
                self.places.replaced.insert(format!("{path}[{}]", values.len()));
                values.push(self.stand_in(&schema["items"]));
            }
        }
        Value::Array(values)
    }

    /// An object whose field `type` says which fields it has.
    fn tagged(&mut self, node: &Node, schema: &'a Value, variants: &'a [Value], path: &str) -> Value {
        if !matches!(node.kind, Kind::Mapping(_)) {
            return self.wrong_type(node, schema, path, "a block of fields");
        }
        let name_of = |variant: &'a Value| variant["properties"]["type"]["const"].as_str().unwrap_or_default();
        let names: Vec<&str> = variants.iter().map(name_of).collect();
        let expected = format!("one of {}", names.join(", "));
        let tag_path = join(path, "type");
        let Some(tag) = node.get("type") else {
            if node.origin().is_some_and(|origin| origin.defined_at.is_some()) {
                // It is the definition that lacks it, which is said there.
                self.places.replaced.insert(path.to_owned());
                return self.stand_in(schema);
            }
            let diagnostic = Diagnostic::error(node.at, tag_path, "the field \"type\" is missing").expected(expected);
            return self.replace(path, schema, diagnostic);
        };
        let text = tag.scalar().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        match variants.iter().find(|variant| name_of(variant) == text) {
            Some(variant) => self.object(node, variant, path),
            None => {
                let suggestion = suggest::nearest(&text, names.iter().copied());
                let diagnostic = Diagnostic::error(tag.at, tag_path, format!("unknown type {}", quoted(&text)))
                    .expected(expected)
                    .hint_if(suggestion.map(|suggestion| format!("did you mean \"{suggestion}\"?")));
                self.replace(path, schema, diagnostic)
            }
        }
    }

    // === scalars ===

    fn choice(&mut self, node: &Node, schema: &'a Value, variants: &'a [Value], path: &str) -> Value {
        let names: Vec<&str> = variants.iter().filter_map(|variant| variant["const"].as_str()).collect();
        match node.scalar() {
            Some(Value::String(text)) if names.contains(&text.as_str()) => Value::String(text),
            other => {
                let text = other.as_ref().and_then(Value::as_str).unwrap_or_default();
                let suggestion = suggest::nearest(text, names.iter().copied());
                let diagnostic = Diagnostic::error(node.at, path, found(node))
                    .expected(format!("{}{}", if names.len() > 1 { "one of " } else { "" }, names.join(", ")))
                    .hint_if(suggestion.map(|suggestion| format!("did you mean \"{suggestion}\"?")));
                self.replace(path, schema, diagnostic)
            }
        }
    }

    fn string(&mut self, node: &Node, schema: &'a Value, path: &str) -> Value {
        let format = schema["format"].as_str().unwrap_or_default();
        let scalar = node.scalar();
        let Some(Value::String(text)) = scalar else {
            let diagnostic = match &scalar {
                Some(Value::Number(number)) => number_for_text(node, path, number, format, schema),
                Some(Value::Bool(_)) => Diagnostic::error(node.at, path, found(node)).hint("put the text in quotes"),
                _ => Diagnostic::error(node.at, path, found(node)),
            };
            let expected = self.describe(schema);
            return self.replace(path, schema, diagnostic.expected(expected));
        };
        match text_problem(&text, format, schema) {
            None => Value::String(text),
            Some((message, hint)) => {
                let diagnostic = Diagnostic::error(node.at, path, format!("{} {message}", quoted(&text)))
                    .expected(self.describe(schema))
                    .hint_if(hint);
                let stand_in = self.replace(path, schema, diagnostic);
                // What refers to a name is likely to be meant for its mended form.
                if format == NAME_FORMAT { mended_name(&text).map_or(stand_in, Value::String) } else { stand_in }
            }
        }
    }

    fn boolean(&mut self, node: &Node, schema: &'a Value, path: &str) -> Value {
        match node.scalar() {
            Some(value @ Value::Bool(_)) => value,
            _ => self.wrong_type(node, schema, path, "true or false"),
        }
    }

    fn number(&mut self, node: &Node, schema: &'a Value, path: &str) -> Value {
        let whole = schema["type"] == "integer";
        let scalar = match node.scalar() {
            // To YAML 1.1 `1e-10` is a text, and programs that read it so write it in quotes.
            Some(Value::String(text)) if !whole => number_in(&text).map(Value::Number),
            scalar => scalar,
        };
        let value = match scalar {
            Some(Value::Number(number)) if !whole || number.is_u64() || number.is_i64() => number,
            _ => {
                let expected = self.describe(schema);
                return self.wrong_type(node, schema, path, &expected);
            }
        };
        let number = value.as_f64().unwrap_or(f64::NAN);
        let bound = |name: &str| schema[name].as_f64();
        if bound("minimum").is_some_and(|least| number < least) || bound("maximum").is_some_and(|most| number > most) {
            let expected = self.describe(schema);
            let diagnostic =
                Diagnostic::error(node.at, path, format!("the value {value} is out of range")).expected(expected);
            return self.replace(path, schema, diagnostic);
        }
        Value::Number(value)
    }

    fn speed(&mut self, node: &Node, schema: &'a Value, path: &str) -> Value {
        let scalar = node.scalar();
        let text = scalar.as_ref().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let number_is_whole = scalar.as_ref().is_some_and(|value| value.is_string() || value.is_u64());
        match (text.as_deref().and_then(Speed::parse), scalar) {
            (Some(_), Some(value)) if number_is_whole => value,
            _ => {
                let expected = "max, a whole number such as 1, or another number in quotes such as \"0.5\"";
                self.wrong_type(node, schema, path, expected)
            }
        }
    }

    fn wrong_type(&mut self, node: &Node, schema: &'a Value, path: &str, expected: &str) -> Value {
        self.replace(path, schema, Diagnostic::error(node.at, path, found(node)).expected(expected))
    }

    // === provenance ===

    /// Each key names a field of the block, or a path of fields below it.
    fn provenance_keys(&mut self, node: &Node, owner: &'a Value, path: &str) {
        let Kind::Mapping(entries) = &node.kind else { return };
        for entry in entries {
            let mut schema = owner;
            for segment in entry.key.split('.') {
                let fields = self.fields(schema);
                match fields.iter().find(|(name, _)| *name == segment && segment != "provenance") {
                    Some((_, field)) => schema = field,
                    None => {
                        let suggestion = suggest::nearest(segment, fields.iter().map(|(name, _)| *name));
                        let message = format!("provenance of {}, which is not a field here", quoted(&entry.key));
                        let diagnostic = Diagnostic::error(entry.key_at, join(path, &entry.key), message)
                            .expected("the name of a field beside it, or a path of names such as detector.efficiency")
                            .hint_if(suggestion.map(|suggestion| format!("did you mean \"{suggestion}\"?")));
                        self.note(diagnostic);
                        break;
                    }
                }
            }
        }
    }

    /// Fields of an object, of the entries of a list, or of every variant.
    fn fields(&self, schema: &'a Value) -> Vec<(&'a str, &'a Value)> {
        let schema = self.resolved(schema);
        if let Some(items) = schema.get("items") {
            return self.fields(items);
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            return variants.iter().flat_map(|variant| self.fields(variant)).collect();
        }
        let properties = schema["properties"].as_object();
        let written = properties.into_iter().flatten().filter(|(_, field)| !is_expanded(field));
        written.map(|(name, field)| (name.as_str(), field)).collect()
    }

    /// What a schema wants, in words.
    fn describe(&self, schema: &'a Value) -> String {
        let schema = self.resolved(schema);
        let format = schema["format"].as_str().unwrap_or_default();
        if let Some(dimension) = quantity::dimension(format) {
            return dimension.expectation();
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            let names: Vec<&str> = variants.iter().filter_map(|variant| variant["const"].as_str()).collect();
            return if names.is_empty() { "a block of fields".into() } else { format!("one of {}", names.join(", ")) };
        }
        let range = match (schema.get("minimum"), schema.get("maximum")) {
            (Some(least), Some(most)) => format!(" between {least} and {most}"),
            _ => String::new(),
        };
        match (schema["type"].as_str(), format) {
            (_, NAME_FORMAT) => "a name of lower-case letters, digits and inner hyphens, 1 to 63 characters".into(),
            (_, PROVENANCE_FORMAT) => {
                "\"published: ...\", \"inferred: ...\" or \"assumed: ...\" with the source".into()
            }
            (_, VALUE_FORMAT) => {
                "a bit rate, a percentage, a duration or a count such as \"7069 bit/s\", \"4.24 %\" or \"9 times\""
                    .into()
            }
            (_, TOLERANCE_FORMAT) => {
                "a tolerance such as \"5 %\", \"0.2 pp\" (percentage points), \"factor 1.3\", \"exact\" or \"at least\""
                    .into()
            }
            (_, MOMENT_FORMAT) => orbits::TimeError::EXPECTED.into(),
            (Some("integer"), _) => format!("a whole number{range}"),
            (Some("number"), _) => format!("a number{range}"),
            (Some("array"), _) => "a list".into(),
            (Some("object"), _) => "a block of fields".into(),
            (Some("boolean"), _) => "true or false".into(),
            _ => "a text".into(),
        }
    }
}

/// A field that a cluster writes into its objects. It may stand in a file and is not read.
fn is_of_the_cluster(schema: &Value) -> bool {
    schema["readOnly"] == true
}

/// A field that is only in the text: what it names or holds is in its places before the document is read.
fn is_expanded(schema: &Value) -> bool {
    schema[EXPANDED] == true
}

fn found(node: &Node) -> String {
    match node.scalar() {
        Some(Value::Null) => "found nothing".into(),
        Some(Value::Bool(value)) => format!("found the value {value}"),
        Some(Value::Number(number)) => format!("found the number {number}"),
        Some(Value::String(text)) => format!("found {}", quoted(&text)),
        _ if matches!(node.kind, Kind::Sequence(_)) => "found a list".into(),
        _ => "found a block of fields".into(),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
